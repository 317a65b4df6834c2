#include "attestd/hsmd/hsmd.h"

#include "attestd/base/hash.h"
#include "attestd/base/io.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SALT_LEN 16
#define MARK_LEN (SALT_LEN + ATT_SHA256_LEN)

enum att_rc hsmd_pin_load(const char *path, struct att_secret *ret_pin, struct att_err *err)
{
    enum att_rc rc = att_secret_load_line(path, "PIN", HSM_PIN_MAX, ret_pin, err);
    if (rc == ATT_E_PARSE || rc == ATT_E_DENIED) {
        att_err_reason(err, rc == ATT_E_PARSE ? "pinForm" : "pinMode");
    }
    return rc;
}

/* ---- refused once --------------------------------------------------------------------------- */

static void digest(const struct hsmd_mark *mark, const uint8_t salt[SALT_LEN],
                   uint8_t ret[ATT_SHA256_LEN])
{
    const struct att_slice parts[] = {
        ATT_SLICE(salt, SALT_LEN), ATT_SLICE(mark->label, strlen(mark->label) + 1),
        ATT_SLICE(mark->serial, strlen(mark->serial) + 1), att_secret_slice(mark->pin)};
    att_sha256_v(ret, parts, sizeof parts / sizeof parts[0]);
}

enum att_rc hsmd_mark_check(const struct hsmd_mark *mark, struct att_err *err)
{
    att_autobuf kept = ATT_BUF_INIT(MARK_LEN);
    struct att_err why = {0};
    uint8_t now[ATT_SHA256_LEN];
    enum att_rc rc = att_io_read_file(mark->path, MARK_LEN, &kept, &why);
    if (rc == ATT_E_NOTFOUND || rc == ATT_E_LIMIT || (rc == ATT_OK && kept.len != MARK_LEN)) {
        return ATT_OK; /* none of ours */
    }
    if (rc != ATT_OK) { /* better no login than one too many */
        return att_fail(err, rc, "%s", why.msg);
    }
    digest(mark, kept.ptr, now);
    if (!att_slice_eq_secret(ATT_SLICE(kept.ptr + SALT_LEN, ATT_SHA256_LEN),
                             ATT_SLICE_ARRAY(now))) {
        return ATT_OK;
    }
    (void)!att_fail(err, ATT_E_AUTH,
                    "token \"%s\" has refused this PIN since the host booted, which is not tried "
                    "again: put the right one in its place (or remove %s)",
                    mark->label, mark->path);
    att_err_reason(err, "pinRefused");
    return ATT_E_AUTH;
}

enum att_rc hsmd_mark_set(const struct hsmd_mark *mark, struct att_err *err)
{
    uint8_t bytes[MARK_LEN];
    enum att_rc rc = att_random(bytes, SALT_LEN, err);
    if (rc != ATT_OK) {
        return rc;
    }
    digest(mark, bytes, bytes + SALT_LEN);
    return att_io_write_file(mark->path, ATT_SLICE_ARRAY(bytes), 0600, err);
}
