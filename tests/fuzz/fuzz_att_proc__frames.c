/* Requests and replies of the local sockets: a frame without its length word; the tables' numbers
 * overlap, so each is tried. What parses must encode
 * to the same bytes again. */
#include "attestd/proc/hsm_proto.h"
#include "attestd/proc/keyd_proto.h"
#include "attestd/proc/logtpm_proto.h"
#include "attestd/proc/sign_proto.h"
#include "attestd/proc/who_proto.h"
#include "attestd/proc/workload_proto.h"

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

static void try_table(const struct proc_op *table, const struct proc_frame *frame)
{
    static struct proc_msg msg, record;
    struct att_err err = {0};
    const struct proc_op *op = proc_op_find(table, frame->op & 0x7fff);
    if (!op) {
        return;
    }
    if (!(frame->op & PROC_REPLY)) {
        if (proc_msg_parse(&op->request, frame->payload, &msg, &err) == ATT_OK) {
            check_again(&op->request, &msg, frame->payload);
            if (msg.count) {
                (void)proc_agent_name_ok(msg.v[0].bytes);
                (void)proc_key_id_ok(msg.v[0].bytes);
            }
        }
        return;
    }
    if (proc_reply_parse(op, frame->payload, &msg, &err) != ATT_OK) {
        return;
    }
    check_again(&op->reply, &msg, ATT_SLICE(frame->payload.ptr + 1, frame->payload.len - 1));
    if (table == proc_keyd_table && op->op == PROC_KEYD_KEY_LIST) {
        for (size_t i = 0; i < msg.v[0].item_count; i++) {
            struct att_slice item = msg.v[0].items[i];
            if (proc_msg_parse(&proc_key_record_shape, item, &record, NULL) == ATT_OK) {
                check_again(&proc_key_record_shape, &record, item);
            }
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proc_frame frame;
    struct att_err err = {0};
    if (proc_frame_parse(ATT_SLICE(data, size), &frame, &err) != ATT_OK) {
        return 0;
    }
    const struct proc_op *const tables[] = {proc_keyd_table, proc_sign_table,
                                            proc_who_table,  proc_workload_table,
                                            proc_hsm_table,  proc_logtpm_table};
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        try_table(tables[i], &frame);
    }
    return 0;
}
