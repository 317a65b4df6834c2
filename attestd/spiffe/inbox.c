#include "attestd/spiffe/inbox.h"

#include <string.h>

void grpc_inbox_init(struct grpc_inbox *inbox, size_t max)
{
    *inbox = (struct grpc_inbox){.message = ATT_BUF_INIT(max)};
}

void grpc_inbox_done(struct grpc_inbox *inbox)
{
    att_buf_done(&inbox->message);
}

static enum grpc_status read_prefix(struct grpc_inbox *inbox)
{
    struct att_cur cur = att_cur_init(ATT_SLICE_ARRAY(inbox->prefix));
    uint8_t compressed = att_cur_u8(&cur);
    inbox->want = att_cur_be32(&cur);
    if (compressed) {
        return GRPC_INTERNAL;
    }
    return inbox->want > inbox->message.max ? GRPC_RESOURCE_EXHAUSTED : GRPC_OK;
}

enum grpc_status grpc_inbox_put(struct grpc_inbox *inbox, struct att_slice bytes, size_t *ret_used)
{
    size_t used = 0;
    enum grpc_status status = GRPC_OK;
    while (inbox->prefix_len < GRPC_PREFIX_LEN && used < bytes.len) {
        inbox->prefix[inbox->prefix_len++] = bytes.ptr[used++];
        if (inbox->prefix_len == GRPC_PREFIX_LEN) {
            status = read_prefix(inbox);
        }
    }
    if (status == GRPC_OK && inbox->prefix_len == GRPC_PREFIX_LEN) {
        size_t left = inbox->want - inbox->message.len;
        size_t take = bytes.len - used < left ? bytes.len - used : left;
        if (take) {
            att_buf_put(&inbox->message, bytes.ptr + used, take);
        }
        used += take;
        status = inbox->message.failed ? GRPC_RESOURCE_EXHAUSTED : GRPC_OK;
    }
    *ret_used = used;
    return status;
}

bool grpc_inbox_full(const struct grpc_inbox *inbox)
{
    return inbox->prefix_len == GRPC_PREFIX_LEN && inbox->message.len == inbox->want;
}

bool grpc_inbox_empty(const struct grpc_inbox *inbox)
{
    return inbox->prefix_len == 0;
}
