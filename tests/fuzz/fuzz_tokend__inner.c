/* What a token process, perhaps taken over, asks of tokend, and what tokend answers. What parses
 * must encode to the same bytes again. */
#include "attestd/tokend/inner_proto.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_again(const struct proc_shape *shape, const struct proc_msg *msg,
                        struct att_slice from)
{
    att_autobuf again = ATT_BUF_INIT(PROC_FRAME_MAX);
    if (proc_msg_encode(shape, msg->v, &again, NULL) != ATT_OK ||
        !att_slice_eq(att_buf_slice(&again), from)) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct proc_msg msg;
    struct proc_frame frame;
    struct att_err err = {0};
    if (proc_frame_parse(ATT_SLICE(data, size), &frame, &err) != ATT_OK) {
        return 0;
    }
    const struct proc_op *op = proc_op_find(tokend_inner_table, frame.op & 0x7fff);
    if (op && !(frame.op & PROC_REPLY)) {
        if (proc_msg_parse(&op->request, frame.payload, &msg, &err) == ATT_OK) {
            check_again(&op->request, &msg, frame.payload);
        }
    } else if (op && proc_reply_parse(op, frame.payload, &msg, &err) == ATT_OK) {
        check_again(&op->reply, &msg, ATT_SLICE(frame.payload.ptr + 1, frame.payload.len - 1));
    }
    return 0;
}
