/* PCR selections as text and PCR values as JSON: what parses must be written back as it was. */
#include "tpm/parse/pcr.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Either result is right. */
static void either(enum att_rc rc)
{
    (void)rc;
}

static void selection(const char *text)
{
    struct parse_pcr_sel sel, back;
    char again[PARSE_PCR_TEXT_MAX];
    uint8_t raw[PARSE_PCR_RAW_LEN];
    if (parse_pcr_sel_parse(text, &sel, NULL) != ATT_OK) {
        return;
    }
    if (parse_pcr_sel_text(&sel, again, NULL) != ATT_OK || strcmp(text, again) != 0 ||
        parse_pcr_sel_raw(&sel, raw, NULL) != ATT_OK ||
        parse_pcr_sel_from_raw(ATT_SLICE_ARRAY(raw), &back, NULL) != ATT_OK ||
        back.mask != sel.mask || back.bank != sel.bank) {
        abort();
    }
}

static void values(struct att_slice text)
{
    struct parse_pcr_set set, back;
    if (parse_pcr_set_parse(text, NULL, &set, NULL) != ATT_OK) {
        return;
    }
    att_autojson *json = NULL;
    if (parse_pcr_set_json(&set, &json, NULL) != ATT_OK ||
        parse_pcr_set_from_json(json, &set.sel, &back, NULL) != ATT_OK ||
        memcmp(&set, &back, sizeof set) != 0) {
        abort();
    }
    uint8_t digest[PARSE_DIGEST_MAX];
    size_t len = 0;
    if (parse_pcr_set_digest(&set, PARSE_ALG_SHA256, digest, &len, NULL) != ATT_OK) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    if (!text) {
        return 0;
    }
    if (size) {
        memcpy(text, data, size);
    }
    text[size] = 0;
    selection(text);
    free(text);
    values(ATT_SLICE(data, size));
    struct parse_pcr_sel sel;
    either(parse_pcr_sel_from_raw(ATT_SLICE(data, size), &sel, NULL));
    return 0;
}
