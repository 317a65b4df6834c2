/* What device-mapper tells IMA, in a list of either form. A table that is said to be dm-verity
 * names its device, one target and its root hash, each once. */
#include "tpm/parse/ima_dm.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t count(struct att_slice text, const char *what)
{
    size_t n = 0, len = strlen(what);
    for (size_t i = 0; i + len <= text.len; i++) {
        n += memcmp(text.ptr + i, what, len) == 0;
    }
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ATT_CLEANUP(parse_ima_done) struct parse_ima list = {0};
    struct parse_ima_entry entry;
    if (parse_ima_init(&list, ATT_SLICE(data, size), NULL) != ATT_OK) {
        return 0;
    }
    while (parse_ima_next(&list, &entry, NULL) == ATT_OK) {
        struct parse_ima_dm dm;
        struct att_err err = {0};
        if (parse_ima_dm(&entry, &dm, &err) != ATT_OK) {
            if (err.msg[0] == 0) {
                abort();
            }
            continue;
        }
        if (dm.is_verity &&
            (dm.kind != PARSE_IMA_DM_LOAD || !dm.has_device || dm.why ||
             count(entry.fields[2], "target_name=verity") < 1 ||
             count(entry.fields[2], "root_digest=") < 1 || count(entry.fields[2], "major=") < 1)) {
            abort();
        }
        if (dm.kind == PARSE_IMA_DM_LOAD && !dm.is_verity && !dm.why) {
            abort();
        }
    }
    return 0;
}
