#include "provision/audit/leaf.h"

#include "attestd/base/enc.h"
#include "attestd/base/json.h"
#include "provision/audit/tile.h"

#include <string.h>

#define FORM       "attestd-decision/1"
#define WORD_MAX   39
#define RECORD_MAX ((size_t)16 << 20)

enum att_rc audit_salt_new(uint8_t ret[AUDIT_SALT_LEN], struct att_err *err)
{
    return att_random(ret, AUDIT_SALT_LEN, err);
}

void audit_commit(const uint8_t salt[AUDIT_SALT_LEN], struct att_slice record,
                  uint8_t ret[ATT_SHA256_LEN])
{
    const struct att_slice parts[] = {ATT_SLICE_LIT(FORM), ATT_SLICE(salt, AUDIT_SALT_LEN), record};
    att_sha256_v(ret, parts, 3);
}

/* Only words of letters are published: what somebody typed could be a name. */
static const char *word(const json_t *record, const char *member)
{
    const char *text = json_string_value(json_object_get(record, member));
    size_t len = text ? strlen(text) : 0;
    bool ok = len > 0 && len <= WORD_MAX;
    for (size_t i = 0; ok && i < len; i++) {
        ok = (text[i] >= 'a' && text[i] <= 'z') || (text[i] >= 'A' && text[i] <= 'Z');
    }
    return ok ? text : "-";
}

enum att_rc audit_leaf_make(int64_t seq, int64_t at, const char *record,
                            const uint8_t salt[AUDIT_SALT_LEN], struct att_buf *ret_leaf,
                            struct att_err *err)
{
    uint8_t hash[ATT_SHA256_LEN];
    att_autojson *json = NULL;
    (void)!att_json_parse(att_slice_str(record), RECORD_MAX, &json, NULL);
    const char *outcome = word(json, "outcome");
    /* Of a refusal the reason is one of ours; of a ban it is what the operator typed. */
    const char *reason = strcmp(outcome, "refused") == 0 ? word(json, "reason") : "-";
    audit_commit(salt, att_slice_str(record), hash);
    att_buf_printf(ret_leaf, FORM "\n%lld\n%lld\n%s\n%s\n%s\n", (long long)seq, (long long)at,
                   word(json, "kind"), outcome, reason);
    att_buf_hex(ret_leaf, ATT_SLICE_ARRAY(hash));
    att_buf_u8(ret_leaf, '\n');
    return att_buf_ok(ret_leaf, err);
}

bool audit_leaf_is(struct att_slice leaf, int64_t seq, int64_t at, const char *record,
                   struct att_slice salt)
{
    att_autobuf again = ATT_BUF_INIT(AUDIT_ENTRY_MAX);
    return salt.len == AUDIT_SALT_LEN &&
           audit_leaf_make(seq, at, record, salt.ptr, &again, NULL) == ATT_OK &&
           att_slice_eq(att_buf_slice(&again), leaf);
}
