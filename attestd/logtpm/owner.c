/* The password of the TPM's owner hierarchy, where it has one: the counter is read, made and
 * removed by it, and an SRK that is not persistent is made by it. */
#include "attestd/logtpm/internal.h"

#include "attestd/base/log.h"

#include <stdio.h>
#include <string.h>

#define PASSWORD_MAX 64 /* TPM2B_AUTH */

static enum att_rc load(const struct logtpm *logtpm, struct att_secret *ret_password,
                        struct att_err *err)
{
    struct att_err why = {0};
    if (!logtpm->owner_file[0]) {
        return ATT_OK;
    }
    enum att_rc rc = att_secret_load_line(logtpm->owner_file, "owner password", PASSWORD_MAX,
                                          ret_password, &why);
    return rc ? logtpm_refuse(err, rc, "ownerPasswordFile", "%s", why.msg) : ATT_OK;
}

static enum att_rc again(const struct logtpm *logtpm, struct att_err *err)
{
    return logtpm_refuse(err, ATT_E_DENIED, "ownerPassword",
                         "the TPM has refused the owner's password of %s, which is not tried again "
                         "until it is another, or attest-issuerd-tpm is started anew",
                         logtpm->owner_file);
}

enum att_rc logtpm_owner(struct logtpm *logtpm, struct att_err *err)
{
    att_autosecret password = {0};
    uint8_t digest[ATT_SHA256_LEN];
    struct att_err why = {0};
    if (logtpm->owner_known) {
        return ATT_OK;
    }
    enum att_rc rc = load(logtpm, &password, err);
    if (rc) {
        return rc;
    }
    att_sha256(digest, att_secret_slice(&password));
    if (logtpm->owner_refused && memcmp(digest, logtpm->owner_digest, sizeof digest) == 0) {
        rc = again(logtpm, err);
    } else {
        logtpm->owner_refused = false;
        rc = tpm_context_owner(logtpm->ctx, att_secret_slice(&password), &why);
        logtpm->owner_known = rc == ATT_OK;
        bool refused = rc && strcmp(why.reason, "ownerPassword") == 0;
        if (refused && password.len) {
            logtpm->owner_refused = true; /* a line for each try: there is one */
            att_log(ATT_ERROR, "logtpm.owner-refused", ATT_S("file", logtpm->owner_file));
            memcpy(logtpm->owner_digest, digest, sizeof digest);
            rc = again(logtpm, err);
        } else if (refused) {
            rc = logtpm_refuse(err, rc, "ownerPassword",
                               "%s: expected it as the systemd credential " LOGTPM_CREDENTIAL
                               " or in log_tpm.owner_password_file",
                               why.msg);
        } else if (rc && err) {
            *err = why;
        }
    }
    att_wipe(digest, sizeof digest);
    return rc;
}
