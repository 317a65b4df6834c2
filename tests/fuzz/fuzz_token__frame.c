/* What a workload sends, as the relay reads it: the version byte, then frames. Each frame that
 * passes must be one of the calls that are served, within the caps; what takes the place of another
 * call must pass as a head. */
#include "pkcs11/token/frame.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct att_cur cur = att_cur_init(ATT_SLICE(data, size));
    struct token_frame_state state = {0};
    (void)att_cur_u8(&cur);
    while (cur.left >= TOKEN_FRAME_HEAD) {
        struct token_frame_head head, again;
        struct att_err err = {0};
        uint8_t refusal[TOKEN_FRAME_REFUSAL_LEN];
        struct att_slice bytes = att_cur_take(&cur, TOKEN_FRAME_HEAD);
        if (token_frame_head(bytes.ptr, &head, &err) != ATT_OK) {
            return 0;
        }
        (void)att_cur_take(&cur, head.options_len);
        struct att_slice message = att_cur_take(&cur, head.message_len);
        if (cur.failed) {
            return 0;
        }
        bool was = state.initialized;
        enum token_frame_verdict verdict = token_frame_check(&state, message, &err);
        if (verdict == TOKEN_FRAME_REFUSED) {
            if (!err.msg[0]) {
                abort();
            }
            return 0;
        }
        if (!was && state.initialized && verdict != TOKEN_FRAME_PASS) {
            abort();
        }
        token_frame_refusal(head.code, refusal);
        if (token_frame_head(refusal, &again, NULL) != ATT_OK || again.code != head.code) {
            abort();
        }
    }
    return 0;
}
