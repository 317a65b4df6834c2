/* IMA lists, ASCII: whatever has no first digit gets one, so that no run is spent on the binary
 * form. A line that is taken is what the binary form of its template data gives. */
#include "tpm/parse/ima.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void le32(struct att_buf *buf, size_t value)
{
    for (unsigned i = 0; i < 4; i++) {
        att_buf_u8(buf, (uint8_t)(value >> (8 * i)));
    }
}

static void put_binary(const struct parse_ima_entry *entry, struct att_buf *ret)
{
    le32(ret, entry->pcr);
    att_buf_put_slice(ret, entry->shown);
    le32(ret, strlen(entry->tmpl->name));
    att_buf_put_str(ret, entry->tmpl->name);
    if (entry->tmpl->fields[0] == PARSE_IMA_D) {
        att_buf_put_slice(ret, entry->fields[0]);
        le32(ret, entry->fields[1].len);
        att_buf_put_slice(ret, entry->fields[1]);
    } else {
        le32(ret, entry->parts[0].len);
        att_buf_put_slice(ret, entry->parts[0]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    att_autobuf text = {0}, binary = {0};
    if (size == 0 || size > 65536) {
        return 0;
    }
    if (data[0] < '0' || data[0] > '9') {
        att_buf_u8(&text, '1');
    }
    att_buf_put(&text, data, size);
    struct att_slice bytes = att_buf_slice(&text);
    ATT_CLEANUP(parse_ima_done) struct parse_ima list = {0};
    struct parse_ima_entry entry;
    struct att_err err = {0};
    if (parse_ima_init(&list, bytes, NULL) != ATT_OK || !list.ascii) {
        abort();
    }
    enum att_rc rc;
    while ((rc = parse_ima_next(&list, &entry, &err)) == ATT_OK) {
        put_binary(&entry, &binary);
    }
    if (rc != ATT_E_NOTFOUND && err.msg[0] == 0) {
        abort();
    }
    struct parse_ima_pcrs a, b;
    struct parse_ima_replay how = {.bank = PARSE_ALG_SHA256, .at_least = SIZE_MAX};
    if (parse_ima_replay(bytes, &how, &a, NULL) == ATT_OK &&
        (parse_ima_replay(att_buf_slice(&binary), &how, &b, NULL) != ATT_OK ||
         memcmp(a.value, b.value, sizeof a.value) != 0)) {
        abort();
    }
    return 0;
}
