#include "provision/verify/findings.h"

#include "tpm/parse/pcr.h"

#include <string.h>

static const struct {
    const char *word, *remedy;
} findings[VERIFY_FINDING_COUNT] = {
#define VERIFY_FINDING_ROW(id, word_text, remedy_text)                                             \
    [VERIFY_FINDING_##id] = {word_text, remedy_text},
    VERIFY_FINDINGS(VERIFY_FINDING_ROW)
#undef VERIFY_FINDING_ROW
};
static const char *const severities[] = {"refuse", "refuse", "warn", "info"};
static const char *const modes[] = {"enforce", "warn", "observe"};

const char *verify_finding_word(enum verify_finding_id id)
{
    return (unsigned)id < VERIFY_FINDING_COUNT ? findings[id].word : "none";
}

const char *verify_finding_remedy(enum verify_finding_id id)
{
    return (unsigned)id < VERIFY_FINDING_COUNT ? findings[id].remedy : "";
}

enum att_rc verify_finding_from_word(const char *word, enum verify_finding_id *ret)
{
    for (unsigned i = 0; word && i < VERIFY_FINDING_COUNT; i++) {
        if (!strcmp(word, findings[i].word)) {
            *ret = (enum verify_finding_id)i;
            return ATT_OK;
        }
    }
    return ATT_E_NOTFOUND;
}

const char *verify_severity_word(enum verify_severity severity)
{
    return severities[(unsigned)severity < 4 ? severity : 0];
}

enum att_rc verify_severity_from_word(const char *word, enum verify_severity *ret)
{
    for (unsigned i = 1; word && i < 4; i++) {
        if (!strcmp(word, severities[i])) {
            *ret = (enum verify_severity)i;
            return ATT_OK;
        }
    }
    return ATT_E_NOTFOUND;
}

const char *verify_mode_word(enum verify_mode mode)
{
    return modes[(unsigned)mode < 3 ? mode : 0];
}

enum att_rc verify_mode_from_word(const char *word, enum verify_mode *ret)
{
    for (unsigned i = 0; word && i < 3; i++) {
        if (!strcmp(word, modes[i])) {
            *ret = (enum verify_mode)i;
            return ATT_OK;
        }
    }
    return ATT_E_NOTFOUND;
}

json_t *verify_finding_json(const struct verify_finding *finding)
{
    json_t *json = json_pack("{s:s, s:s, s:s, s:s}", "id", verify_finding_word(finding->id),
                             "severity", verify_severity_word(finding->severity), "detail",
                             finding->detail, "remedy", finding->remedy);
    bool good = json != NULL;
    if (good && finding->component[0]) {
        good = json_object_set_new(json, "component", json_string(finding->component)) == 0;
    }
    if (good && finding->pcr < PARSE_PCR_COUNT) {
        good = json_object_set_new(json, "pcr", json_integer((json_int_t)finding->pcr)) == 0;
    }
    if (good && finding->log) {
        good = json_object_set_new(json, "log", json_string(finding->log)) == 0 &&
               json_object_set_new(json, "event", json_integer((json_int_t)finding->event)) == 0;
    }
    if (!good) {
        json_decref(json);
        return NULL;
    }
    return json;
}
