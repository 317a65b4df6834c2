/* A token endpoint's answer, the first two bytes its status: refused with a reason, or a token of
 * visible characters with a lifetime; and whatever an error says is one clean line. */
#include "attestd/ctl/exchange.h"

#include "attestd/base/text.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char endpoint[] = "https://a.example/token", path[] = "a.access_token",
                plain[] = "access_token";
    struct conf_exchange profile = {.endpoint = endpoint, .token = plain, .lifetime_s = 300};
    struct exchange_token token = {0};
    struct att_err err = {0};
    if (size < 2) {
        return 0;
    }
    int status = data[0] == 'O' ? 200 : 100 + (data[0] << 1);
    profile.token = data[1] == 'p' ? path : plain;
    if (exchange_answer(&profile, status, ATT_SLICE(data + 2, size - 2), &token, &err) == ATT_OK) {
        if (token.lifetime_s < 1 || token.lifetime_s > EXCHANGE_LIFETIME_MAX || !token.token.len ||
            strlen((const char *)token.token.ptr) != token.token.len) {
            abort();
        }
        for (size_t i = 0; i < token.token.len; i++) {
            if (token.token.ptr[i] <= 0x20 || token.token.ptr[i] >= 0x7f) {
                abort();
            }
        }
        exchange_token_done(&token);
        return 0;
    }
    bool ok = err.rc == ATT_E_NOMEM || err.reason[0];
    for (const char *c = err.msg; *c && ok;) {
        c += att_text_next(c, &ok);
        ok = ok || !*c; /* cut at its end */
    }
    if (!ok) {
        abort();
    }
    return 0;
}
