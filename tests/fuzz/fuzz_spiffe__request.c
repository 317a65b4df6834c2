/* What comes inside of frames: a SignRequest, a DiscoveryRequest, an inbox fed in pieces, headers
 * as names and values.
 */
#include "attestd/spiffe/inbox.h"
#include "attestd/spiffe/sds_request.h"
#include "attestd/spiffe/sign_request.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void sign(struct att_slice bytes)
{
    struct sign_request request;
    if (sign_request_parse(bytes, &request) == NULL &&
        (request.digest_len < 20 || request.digest_len > 64 || request.scheme > 2)) {
        abort();
    }
}

/* Names as they were counted, none longer than it may be, sorted. */
static void discovery(struct att_slice bytes)
{
    struct sds_request request = {0};
    if (sds_request_parse(bytes, &request) == NULL) {
        size_t n = 0;
        const char *before = "";
        for (char *rest = NULL, *name = strtok_r(request.names, "\n", &rest); name;
             name = strtok_r(NULL, "\n", &rest), n++) {
            if (strlen(name) > SDS_NAME_MAX || strcmp(before, name) >= 0) {
                abort();
            }
            before = name;
        }
        if (n != request.name_count || n > SDS_NAMES_MAX) {
            abort();
        }
    }
    sds_request_done(&request);
}

/* In pieces of every length it must come to the same as in one. */
static void inbox(struct att_slice bytes, size_t piece)
{
    struct grpc_inbox whole, parts;
    size_t used = 0, at = 0;
    grpc_inbox_init(&whole, 1024);
    grpc_inbox_init(&parts, 1024);
    enum grpc_status status = grpc_inbox_put(&whole, bytes, &used), other = GRPC_OK;
    while (at < bytes.len && other == GRPC_OK && !grpc_inbox_full(&parts)) {
        size_t taken = 0, len = bytes.len - at < piece ? bytes.len - at : piece;
        other = grpc_inbox_put(&parts, ATT_SLICE(bytes.ptr + at, len), &taken);
        at += taken;
    }
    if (status != other || grpc_inbox_full(&whole) != grpc_inbox_full(&parts) ||
        (status == GRPC_OK && at != used) ||
        !att_slice_eq(att_buf_slice(&whole.message), att_buf_slice(&parts.message))) {
        abort();
    }
    grpc_inbox_done(&whole);
    grpc_inbox_done(&parts);
}

/* A byte for each length, then the bytes. */
static void headers(struct att_slice bytes)
{
    struct grpc_headers all;
    struct att_cur cur = att_cur_init(bytes);
    const char *why = NULL;
    int code = -1;
    grpc_headers_init(&all, "m");
    while (cur.left && !cur.failed) {
        struct att_slice name = att_cur_take(&cur, att_cur_u8(&cur));
        struct att_slice value = att_cur_take(&cur, att_cur_u8(&cur));
        if (cur.failed || !grpc_headers_add(&all, name, value)) {
            break;
        }
    }
    if (grpc_headers_check(&all, &code, &why) == GRPC_HEADERS_OK &&
        (!all.post || !all.path[0] || all.malformed)) {
        abort();
    }
    if (!why || strlen(all.path) > GRPC_PATH_MAX) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    struct att_slice bytes = ATT_SLICE(data + 2, size - 2);
    switch (data[0] % 4) {
    case 0:
        sign(bytes);
        break;
    case 1:
        inbox(bytes, (size_t)data[1] + 1);
        break;
    case 3:
        discovery(bytes);
        break;
    default:
        headers(bytes);
    }
    return 0;
}
