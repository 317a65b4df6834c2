#include "provision/verify/reason.h"

#include <string.h>

static const struct {
    const char *word, *proves;
} reasons[VERIFY_REASON_COUNT] = {[VERIFY_REASON_NONE] = {"none", "nothing"},
#define VERIFY_REASON_ROW(id, word_text, proves_text)                                              \
    [VERIFY_REASON_##id] = {word_text, proves_text},
                                  VERIFY_REASONS(VERIFY_REASON_ROW)
#undef VERIFY_REASON_ROW
};

static unsigned index_of(enum verify_reason reason)
{
    unsigned at = (unsigned)reason;
    return at < VERIFY_REASON_COUNT ? at : 0;
}

const char *verify_reason_word(enum verify_reason reason)
{
    return reasons[index_of(reason)].word;
}

const char *verify_reason_proves(enum verify_reason reason)
{
    return reasons[index_of(reason)].proves;
}

enum att_rc verify_reason_from_word(const char *word, enum verify_reason *ret_reason,
                                    struct att_err *err)
{
    for (unsigned i = 1; word && i < VERIFY_REASON_COUNT; i++) {
        if (!strcmp(word, reasons[i].word)) {
            *ret_reason = (enum verify_reason)i;
            return ATT_OK;
        }
    }
    return att_fail(err, ATT_E_NOTFOUND, "\"%s\" is not a reason for a refusal", word ? word : "");
}
