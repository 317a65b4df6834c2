/* TPMS_ATTEST: what parses must be written back as it was, and only the selection of PCRs that we
 * ask for gets through. */
#include "tpm/parse/attest.h"
#include "tpm/parse/pcr.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_selection(struct att_slice raw)
{
    struct parse_pcr_sel sel;
    uint8_t again[PARSE_PCR_RAW_LEN];
    char text[PARSE_PCR_TEXT_MAX];
    if (parse_pcr_sel_from_raw(raw, &sel, NULL) != ATT_OK) {
        return;
    }
    if (parse_pcr_sel_raw(&sel, again, NULL) != ATT_OK ||
        !att_slice_eq(raw, ATT_SLICE_ARRAY(again)) ||
        parse_pcr_sel_text(&sel, text, NULL) != ATT_OK) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct att_slice bytes = ATT_SLICE(data, size), inner;
    struct parse_attest attest;
    if (parse_attest_unwrap(bytes, &inner, NULL) == ATT_OK) {
        bytes = inner;
    }
    struct att_err err = {0};
    if (parse_attest_parse(bytes, &attest, &err) != ATT_OK) {
        return 0;
    }
    att_autobuf again = {0};
    if (parse_attest_encode(&attest, &again, NULL) != ATT_OK ||
        !att_slice_eq(att_buf_slice(&again), bytes)) {
        abort();
    }
    if (attest.type == PARSE_ATTEST_QUOTE) {
        check_selection(attest.u.quote.pcr_select);
    }
    bool quote = parse_attest_quote(bytes, &attest, NULL) == ATT_OK;
    bool certify = parse_attest_certify(bytes, &attest, NULL) == ATT_OK;
    if (quote && certify) {
        abort();
    }
    return 0;
}
