/* The folder: its lock, what is in it, what a crash left. */
#include "attestd/keyd/internal.h"

#include "attestd/base/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum att_rc keyd_path(const struct keyd *keyd, const char *name, char ret[KEYD_PATH_MAX],
                      struct att_err *err)
{
    int len = snprintf(ret, KEYD_PATH_MAX, "%s/%s", keyd->dir, name);
    if (len < 0 || len >= KEYD_PATH_MAX) {
        return att_fail(err, ATT_E_INVAL, "path too long: %.80s…", keyd->dir);
    }
    return ATT_OK;
}

void keyd_tell(struct keyd *keyd, enum keyd_event event, const char *what,
               const struct att_err *err)
{
    if (keyd->on_event) {
        keyd->on_event(keyd->user, event, what, err);
    }
}

void keyd_text(struct att_slice text, char *ret, size_t room)
{
    size_t len = text.len < room ? text.len : room - 1;
    if (len) {
        memcpy(ret, text.ptr, len);
    }
    ret[len] = 0;
}

enum att_rc keyd_deny(struct att_err *err, const char *reason, const char *fmt, ...)
{
    char text[300];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    enum att_rc rc = att_fail(err, ATT_E_DENIED, "%s", text);
    att_err_reason(err, reason);
    return rc;
}

/* ---- files --------------------------------------------------------------------------------- */

bool keyd_state_exists(const struct keyd *keyd, const char *name)
{
    char path[KEYD_PATH_MAX];
    /* What cannot be looked at is not absent: nothing may be made, or removed, because of that. */
    return keyd_path(keyd, name, path, NULL) == ATT_OK &&
           (access(path, F_OK) == 0 || errno != ENOENT);
}

bool keyd_state_was_bad(const struct keyd *keyd, const char *name)
{
    char bad[KEYD_PATH_MAX];
    snprintf(bad, sizeof bad, "%s.bad", name);
    return keyd_state_exists(keyd, bad);
}

static void remember_bad(struct keyd *keyd, const char *name)
{
    pthread_mutex_lock(&keyd->lock);
    if (keyd->bad_count < KEYD_BAD_MAX) {
        char *copy = strdup(name);
        if (copy) {
            keyd->bad[keyd->bad_count++] = copy;
        }
    }
    pthread_mutex_unlock(&keyd->lock);
}

enum att_rc keyd_state_bad(struct keyd *keyd, const char *name, struct att_err *err)
{
    char path[KEYD_PATH_MAX];
    enum att_rc rc = keyd_path(keyd, name, path, err);
    if (rc == ATT_OK) {
        rc = att_io_set_aside(path, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    remember_bad(keyd, name);
    keyd_tell(keyd, KEYD_EVENT_BAD, name, NULL);
    return ATT_OK;
}

enum att_rc keyd_state_blob(struct keyd *keyd, const char *name, enum tpm_blob_type type,
                            struct tpm_blob *ret_blob, struct att_err *err)
{
    char path[KEYD_PATH_MAX];
    att_autobuf text = ATT_BUF_INIT(TPM_BLOB_PEM_MAX);
    enum att_rc rc = keyd_path(keyd, name, path, err);
    if (rc == ATT_OK) {
        rc = att_io_read_file(path, TPM_BLOB_PEM_MAX, &text, err);
    }
    if (rc != ATT_OK && rc != ATT_E_LIMIT) {
        return rc;
    }
    struct att_err cause = {0};
    tpm_autoblob blob = {0};
    if (rc == ATT_OK) {
        rc = tpm_tss2pem_parse(att_buf_slice(&text), &blob, &cause);
    }
    if (rc == ATT_OK && blob.type != type) {
        rc = att_fail(&cause, ATT_E_PARSE, "another kind of object");
    }
    if (rc == ATT_OK) {
        *ret_blob = blob;
        blob = (struct tpm_blob){0};
        return ATT_OK;
    }
    if (rc == ATT_E_NOMEM || rc == ATT_E_CRYPTO) {
        return att_fail(err, rc, "%s: %s", path, cause.msg);
    }
    rc = keyd_state_bad(keyd, name, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_err_clear(err);
    return att_fail(err, ATT_E_CONFLICT, "%s does not parse and was set aside as .bad: %s", path,
                    cause.msg[0] ? cause.msg : "too long");
}

enum att_rc keyd_state_write_blob(const struct keyd *keyd, const char *name,
                                  const struct tpm_blob *blob, struct att_err *err)
{
    char path[KEYD_PATH_MAX];
    att_autobuf text = ATT_BUF_INIT(TPM_BLOB_PEM_MAX);
    enum att_rc rc = keyd_path(keyd, name, path, err);
    if (rc == ATT_OK) {
        rc = tpm_tss2pem_encode(blob, &text, err);
    }
    return rc == ATT_OK ? att_io_write_file(path, att_buf_slice(&text), 0600, err) : rc;
}

/* ---- opening ------------------------------------------------------------------------------- */

static enum att_rc take_lock(struct keyd *keyd, struct att_err *err)
{
    char path[KEYD_PATH_MAX];
    enum att_rc rc = keyd_path(keyd, "lock", path, err);
    if (rc != ATT_OK) {
        return rc;
    }
    keyd->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (keyd->lock_fd < 0) {
        return att_fail_errno(err, ATT_E_IO, "%s", path);
    }
    if (flock(keyd->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK) {
            return att_fail_errno(err, ATT_E_IO, "lock %s", path);
        }
        return att_fail(err, ATT_E_CONFLICT, "%s: another keyd uses this folder", keyd->dir);
    }
    return ATT_OK;
}

/* "<32 hex>.<ext>" */
static bool key_file(const char *name, const char *ext, char ret_id[PROC_KEY_ID_LEN + 1])
{
    if (strlen(name) < PROC_KEY_ID_LEN || strcmp(name + PROC_KEY_ID_LEN, ext) != 0 ||
        !proc_key_id_ok(ATT_SLICE(name, PROC_KEY_ID_LEN))) {
        return false;
    }
    keyd_text(ATT_SLICE(name, PROC_KEY_ID_LEN), ret_id, PROC_KEY_ID_LEN + 1);
    return true;
}

static enum att_rc remove_in(const struct keyd *keyd, const char *folder, const char *name,
                             struct att_err *err)
{
    char path[KEYD_PATH_MAX];
    int len =
        snprintf(path, sizeof path, "%s%s%s/%s", keyd->dir, folder[0] ? "/" : "", folder, name);
    if (len < 0 || (size_t)len >= sizeof path) {
        return att_fail(err, ATT_E_INVAL, "path too long");
    }
    return att_io_unlink(path, err);
}

/* What a kill left: temporary files of atomic writes; ours is the only process here (lock). And
 * what earlier starts set aside stays in the report until somebody removes it. */
static enum att_rc tidy_folder(struct keyd *keyd, const char *folder, struct att_err *err)
{
    char path[KEYD_PATH_MAX];
    enum att_rc rc = keyd_path(keyd, folder, path, err);
    if (rc != ATT_OK) {
        return rc;
    }
    DIR *dir = opendir(path);
    if (!dir) {
        return att_fail_errno(err, ATT_E_IO, "%s", path);
    }
    for (struct dirent *entry; rc == ATT_OK && (entry = readdir(dir));) {
        if (strstr(entry->d_name, ".tmp.")) {
            rc = remove_in(keyd, folder, entry->d_name, err);
        } else if (strstr(entry->d_name, ".bad")) {
            remember_bad(keyd, entry->d_name);
        }
    }
    closedir(dir);
    return rc;
}

/* A key is created sidecar first and destroyed PEM first: a sidecar alone is a creation or a
 * destruction that was cut off, and nobody was told of such a key. */
static enum att_rc load_one(struct keyd *keyd, const char *id, struct att_err *err)
{
    char name[64];
    snprintf(name, sizeof name, "agents/%s.pem", id);
    if (!keyd_state_exists(keyd, name)) {
        /* A PEM that was set aside may be restored: only the sidecar knows its authValue's seed. */
        return keyd_state_was_bad(keyd, name) ? ATT_OK : keyd_keyfile_remove(keyd, id, err);
    }
    struct att_err cause = {0};
    struct keyd_key key = {0};
    enum att_rc rc = keyd_keyfile_load(keyd, id, &key, &cause);
    if (rc == ATT_E_CONFLICT) {
        return ATT_OK; /* set aside and reported */
    }
    if (rc != ATT_OK) {
        if (err) {
            *err = cause;
        }
        return rc;
    }
    rc = keyd_keys_add(keyd, &key, err);
    keyd_key_done(&key);
    return rc;
}

static enum att_rc load_hsm(struct keyd *keyd, const char *id, struct att_err *err)
{
    struct att_err cause = {0};
    struct keyd_key key = {0};
    enum att_rc rc = keyd_hsm_load(keyd, id, &key, &cause);
    if (rc == ATT_E_CONFLICT || rc == ATT_E_NOTFOUND) {
        return ATT_OK; /* set aside and reported; or waste */
    }
    if (rc != ATT_OK) {
        if (err) {
            *err = cause;
        }
        return rc;
    }
    rc = keyd_keys_add(keyd, &key, err);
    keyd_key_done(&key);
    return rc;
}

static enum att_rc load_keys(struct keyd *keyd, struct att_err *err)
{
    char path[KEYD_PATH_MAX];
    enum att_rc rc = keyd_path(keyd, "agents", path, err);
    if (rc != ATT_OK) {
        return rc;
    }
    struct dirent **names = NULL;
    int count = scandir(path, &names, NULL, alphasort);
    if (count < 0) {
        return att_fail_errno(err, ATT_E_IO, "%s", path);
    }
    for (int i = 0; i < count; i++) {
        char id[PROC_KEY_ID_LEN + 1];
        char sidecar[64];
        if (rc == ATT_OK && key_file(names[i]->d_name, ".json", id)) {
            rc = load_one(keyd, id, err);
        } else if (rc == ATT_OK && key_file(names[i]->d_name, ".hsm", id)) {
            rc = load_hsm(keyd, id, err);
        } else if (rc == ATT_OK && key_file(names[i]->d_name, ".pem", id)) {
            /* Without its sidecar the authValue cannot be derived; no cut-off leaves this. */
            snprintf(sidecar, sizeof sidecar, "agents/%s.json", id);
            if (!keyd_state_exists(keyd, sidecar) && !keyd_state_was_bad(keyd, sidecar)) {
                char pem[64];
                snprintf(pem, sizeof pem, "agents/%s.pem", id);
                rc = keyd_state_bad(keyd, pem, err);
            }
        }
        free(names[i]);
    }
    free(names);
    return rc;
}

enum att_rc keyd_state_open(struct keyd *keyd, struct att_err *err)
{
    char path[KEYD_PATH_MAX];
    enum att_rc rc = att_io_mkdirs(keyd->dir, 0700, err);
    if (rc == ATT_OK) {
        rc = keyd_path(keyd, "agents", path, err);
    }
    if (rc == ATT_OK) {
        rc = att_io_mkdirs(path, 0700, err);
    }
    if (rc == ATT_OK) {
        rc = take_lock(keyd, err);
    }
    if (rc == ATT_OK) {
        rc = tidy_folder(keyd, "agents", err);
    }
    if (rc == ATT_OK) {
        rc = tidy_folder(keyd, "", err);
    }
    if (rc == ATT_OK) {
        rc = load_keys(keyd, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_keys_settle(keyd, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_frozen_load(keyd, err);
    }
    return rc == ATT_OK ? keyd_issuer_load(keyd, err) : rc;
}
