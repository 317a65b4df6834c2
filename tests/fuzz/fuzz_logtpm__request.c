/* What attest-issuerd-tpm reads: its own record, and a request to sign, as the socket brings it.
 * What it agrees to sign is a checkpoint to the byte, of this log, no smaller than the last one. */
#include "attestd/logtpm/record.h"
#include "attestd/proc/logtpm_proto.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_record(struct att_slice bytes)
{
    struct logtpm_record record, back;
    att_autobuf text = {0};
    if (logtpm_record_parse(bytes, &record, NULL) != ATT_OK) {
        return;
    }
    if (logtpm_record_encode(&record, &text, NULL) != ATT_OK ||
        logtpm_record_parse(att_buf_slice(&text), &back, NULL) != ATT_OK ||
        back.counter != record.counter || back.last.size != record.last.size ||
        strcmp(back.before, record.before) != 0) {
        __builtin_trap();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct proc_msg msg;
    struct logtpm_record record = {.last = {.origin = "example.com/log", .size = 2, .counter = 7},
                                   .counter = 7};
    struct audit_checkpoint c;
    struct att_slice bytes = ATT_SLICE(data, size);
    const struct proc_op *op = proc_op_find(proc_logtpm_table, PROC_LOGTPM_SIGN);
    check_record(bytes);
    /* The request alone, as the fields say; and the whole as the text of one. */
    struct logtpm_request request = {bytes, 2, NULL, 0};
    for (int i = 0; i < 2; i++) {
        if (i == 1) {
            if (proc_msg_parse(&op->request, bytes, &msg, NULL) != ATT_OK) {
                break;
            }
            request = (struct logtpm_request){msg.v[PROC_LOGTPM_SIGN_REQ_TEXT].bytes,
                                              msg.v[PROC_LOGTPM_SIGN_REQ_OLD].num,
                                              msg.v[PROC_LOGTPM_SIGN_REQ_PROOF].items,
                                              msg.v[PROC_LOGTPM_SIGN_REQ_PROOF].item_count};
        }
        att_autobuf again = {0};
        if (logtpm_judge(&record, &request, 7, 1, &c, NULL) == ATT_OK) {
            audit_checkpoint_text(&c, &again);
            if (c.size < 2 || (c.counter != 7 && c.counter != 8) ||
                strcmp(c.origin, record.last.origin) != 0 ||
                !att_slice_eq(att_buf_slice(&again), request.text)) {
                __builtin_trap();
            }
        }
    }
    return 0;
}
