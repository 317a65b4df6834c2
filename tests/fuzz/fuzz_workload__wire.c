/* whod's answer, as attestd reads it; what is read encodes to an answer that is read the same. */
#include "attestd/proc/who_proto.h"
#include "attestd/workload/wire.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct proc_op *op = proc_op_find(proc_who_table, PROC_WHO_WHO);
    static struct proc_msg msg;
    static struct workload_caller a, b;
    if (proc_reply_parse(op, ATT_SLICE(data, size), &msg, NULL) != ATT_OK ||
        workload_wire_parse(&msg, &a, NULL) != ATT_OK) {
        return 0;
    }
    att_autobuf once = {0}, twice = {0};
    if (workload_wire_encode(op, &a, &once, NULL) != ATT_OK ||
        proc_reply_parse(op, att_buf_slice(&once), &msg, NULL) != ATT_OK ||
        workload_wire_parse(&msg, &b, NULL) != ATT_OK ||
        workload_wire_encode(op, &b, &twice, NULL) != ATT_OK ||
        !att_slice_eq(att_buf_slice(&once), att_buf_slice(&twice))) {
        abort();
    }
    return 0;
}
