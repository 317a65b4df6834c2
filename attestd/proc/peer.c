#include "attestd/proc/peer.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* (uid_t)-1 means "nobody in particular" to the kernel. */
static bool number(const char *text, uid_t *ret_uid)
{
    size_t len = strlen(text);
    if (len == 0 || len > 10 || strspn(text, "0123456789") != len) {
        return false;
    }
    unsigned long long value = strtoull(text, NULL, 10);
    if (value >= (uid_t)-1) {
        return false;
    }
    *ret_uid = (uid_t)value;
    return true;
}

enum att_rc proc_user_find(const char *name, uid_t *ret_uid, struct att_err *err)
{
    char scratch[16384];
    struct passwd entry, *found = NULL;
    if (number(name, ret_uid)) {
        return ATT_OK;
    }
    int failed = getpwnam_r(name, &entry, scratch, sizeof scratch, &found);
    if (failed) {
        errno = failed;
        return att_fail_errno(err, ATT_E_IO, "look up user \"%.60s\"", name);
    }
    if (!found) {
        return att_fail(err, ATT_E_NOTFOUND, "user \"%.60s\" does not exist", name);
    }
    *ret_uid = found->pw_uid;
    return ATT_OK;
}

enum att_rc proc_group_find(const char *name, gid_t *ret_gid, struct att_err *err)
{
    char scratch[65536]; /* a group's members, all of them */
    struct group entry, *found = NULL;
    if (number(name, ret_gid)) {
        return ATT_OK;
    }
    int failed = getgrnam_r(name, &entry, scratch, sizeof scratch, &found);
    if (failed) {
        errno = failed;
        return att_fail_errno(err, ATT_E_IO, "look up group \"%.60s\"", name);
    }
    if (!found) {
        return att_fail(err, ATT_E_NOTFOUND, "group \"%.60s\" does not exist", name);
    }
    *ret_gid = found->gr_gid;
    return ATT_OK;
}

enum att_rc proc_users_add(struct proc_users *users, const char *name, struct att_err *err)
{
    uid_t uid;
    enum att_rc rc = proc_user_find(name, &uid, err);
    if (rc != ATT_OK || proc_users_have(users, uid)) {
        return rc;
    }
    if (users->count == PROC_USERS_MAX) {
        return att_fail(err, ATT_E_LIMIT, "user \"%.60s\" is one too many, at most %d", name,
                        PROC_USERS_MAX);
    }
    users->uids[users->count++] = uid;
    return ATT_OK;
}

bool proc_users_have(const struct proc_users *users, uid_t uid)
{
    for (size_t i = 0; i < users->count; i++) {
        if (users->uids[i] == uid) {
            return true;
        }
    }
    return uid == 0;
}

enum att_rc proc_peer_get(int fd, struct proc_peer *ret_peer, struct att_err *err)
{
    struct ucred cred;
    socklen_t len = sizeof cred;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0 || len != sizeof cred) {
        return att_fail_errno(err, ATT_E_IO, "SO_PEERCRED");
    }
    *ret_peer = (struct proc_peer){cred.uid, cred.gid, cred.pid, -1};
    return ATT_OK;
}
