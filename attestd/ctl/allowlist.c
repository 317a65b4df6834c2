/* Allow lists of IMA in files: reading them, and finding those that a policy names. */
#include "attestd/ctl/source.h"

#include "attestd/base/io.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUFFIX ".imalist"

enum att_rc ctl_excludes(char *text, const char *ret[CTL_EXCLUDES_MAX + 1], struct att_err *err)
{
    size_t n = 0;
    char *state = NULL;
    for (char *one = strtok_r(text, ",", &state); one; one = strtok_r(NULL, ",", &state)) {
        if (n == CTL_EXCLUDES_MAX || one[0] != '/' || strlen(one) < 2 || strchr(one, ' ')) {
            return att_fail(err, ATT_E_INVAL,
                            "--exclude: expected at most %d prefixes of paths like /tmp/,/run/, "
                            "with \"_\" for each space",
                            CTL_EXCLUDES_MAX);
        }
        ret[n++] = one;
    }
    ret[n] = NULL;
    return ATT_OK;
}

enum att_rc ctl_allowlist_load(const char *path, struct verify_imalist **ret, struct att_err *err)
{
    att_autobuf text = ATT_BUF_INIT(VERIFY_IMALIST_BYTES_MAX);
    enum att_rc rc = att_io_read_file(path, VERIFY_IMALIST_BYTES_MAX, &text, err);
    rc = rc ? rc : verify_imalist_parse(att_buf_slice(&text), ret, err);
    if (rc) {
        att_err_prefix(err, "%s", path);
    }
    return rc;
}

/* Only a list that is named is read as one; others in the folder are nobody's business. */
static enum att_rc try_file(const char *path, struct verify_policy *policy, struct att_err *err)
{
    att_autobuf text = ATT_BUF_INIT(VERIFY_IMALIST_BYTES_MAX);
    uint8_t sha256[ATT_SHA256_LEN];
    bool named = false;
    if (att_io_read_file(path, VERIFY_IMALIST_BYTES_MAX, &text, NULL)) {
        return ATT_OK;
    }
    att_sha256(sha256, att_buf_slice(&text));
    for (size_t i = 0; i < policy->ima.n_lists; i++) {
        named = named || memcmp(policy->ima.lists[i].sha256, sha256, ATT_SHA256_LEN) == 0;
    }
    if (!named) {
        return ATT_OK;
    }
    verify_autoimalist *list = NULL;
    enum att_rc rc = verify_imalist_parse(att_buf_slice(&text), &list, err);
    if (rc) {
        att_err_prefix(err, "%s", path);
        return rc;
    }
    verify_imarule_bind(&policy->ima, list);
    return ATT_OK;
}

enum att_rc ctl_allowlists_beside(const char *policy_path, struct verify_policy *policy,
                                  struct att_err *err)
{
    const char *slash = strrchr(policy_path, '/');
    char dir[4096], path[4096 + 300];
    if (!policy->ima.given) {
        return ATT_OK;
    }
    snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - policy_path) + 1 : 2,
             slash ? policy_path : "./");
    DIR *folder = opendir(dir);
    enum att_rc rc = ATT_OK;
    for (struct dirent *d; folder && !rc && (d = readdir(folder)) != NULL;) {
        size_t len = strlen(d->d_name);
        if (len > sizeof SUFFIX - 1 && !strcmp(d->d_name + len - (sizeof SUFFIX - 1), SUFFIX)) {
            snprintf(path, sizeof path, "%s%s", dir, d->d_name);
            rc = try_file(path, policy, err);
        }
    }
    if (folder) {
        (void)closedir(folder);
    }
    return rc;
}
