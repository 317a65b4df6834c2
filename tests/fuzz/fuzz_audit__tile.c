/* A tile's path, and an entry bundle: one spelling of each. */
#include "provision/audit/tile.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[256], again[AUDIT_PATH_MAX];
    struct audit_tile tile;
    struct att_slice rest = ATT_SLICE(data, size), entry;
    struct att_buf bundle = {0};
    size_t len = size < sizeof path - 1 ? size : sizeof path - 1;
    memcpy(path, size ? data : (const uint8_t *)"", len);
    path[len] = 0;
    if (audit_tile_parse(path, &tile, NULL) == ATT_OK) {
        audit_tile_path(&tile, again);
        if (strcmp(path, again) != 0 || strstr(path, "..") || tile.width < 1 ||
            tile.width > AUDIT_TILE_WIDTH || tile.level < AUDIT_ENTRIES ||
            tile.level >= AUDIT_LEVELS) {
            __builtin_trap();
        }
    }
    while (rest.len && audit_bundle_next(&rest, &entry, NULL) == ATT_OK) {
        audit_bundle_put(&bundle, entry);
    }
    if (bundle.len + rest.len != size ||
        (bundle.len && memcmp(bundle.ptr, data, bundle.len) != 0)) {
        __builtin_trap();
    }
    att_buf_done(&bundle);
    return 0;
}
