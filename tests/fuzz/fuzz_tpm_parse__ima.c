/* IMA lists, binary: the iterator, the replay of three banks, the explainer. */
#include "tpm/parse/ima.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool inside(struct att_slice part, const uint8_t *ptr, size_t len)
{
    return part.len == 0 ||
           (part.ptr >= ptr && part.len <= len && part.ptr <= ptr + (len - part.len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct att_slice bytes = ATT_SLICE(data, size);
    ATT_CLEANUP(parse_ima_done) struct parse_ima list = {0};
    struct parse_ima_entry entry;
    struct att_err err = {0};
    if (parse_ima_init(&list, bytes, NULL) != ATT_OK) {
        return 0;
    }
    enum att_rc rc;
    size_t end = 0, last = 0;
    while ((rc = parse_ima_next(&list, &entry, &err)) == ATT_OK) {
        const uint8_t *ptr = list.ascii ? list.scratch.ptr : data;
        size_t len = list.ascii ? list.scratch.len : size;
        if (entry.offset != end || entry.size == 0 || list.pos != end + entry.size ||
            entry.pcr >= PARSE_PCR_COUNT || !inside(entry.parts[0], ptr, len) ||
            !inside(entry.name, ptr, len) || !inside(entry.file, ptr, len)) {
            abort();
        }
        last = end;
        end = list.pos;
    }
    if (rc != ATT_E_NOTFOUND && err.msg[0] == 0) {
        abort(); /* every refusal says why */
    }
    static const uint16_t banks[] = {PARSE_ALG_SHA1, PARSE_ALG_SHA256, PARSE_ALG_SHA384};
    for (size_t i = 0; i < 3; i++) {
        struct parse_ima_pcrs pcrs, again;
        struct parse_ima_replay how = {.bank = banks[i], .at_least = SIZE_MAX};
        if (parse_ima_replay(bytes, &how, &pcrs, NULL) != ATT_OK) {
            continue;
        }
        /* What replays is whole, and a shorter signed part leads to the same value. */
        how.at_least = last;
        how.until = pcrs.value[PARSE_IMA_PCR];
        if (rc != ATT_E_NOTFOUND || pcrs.used != size ||
            parse_ima_replay(bytes, &how, &again, NULL) != ATT_OK ||
            memcmp(pcrs.value[PARSE_IMA_PCR], again.value[PARSE_IMA_PCR], pcrs.digest_len) != 0) {
            abort();
        }
    }
    json_t *json = NULL;
    if ((parse_ima_explain(bytes, &json, NULL) == ATT_OK) != (rc == ATT_E_NOTFOUND)) {
        abort();
    }
    json_decref(json);
    return 0;
}
