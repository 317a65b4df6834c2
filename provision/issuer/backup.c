/* attest-issuerd backup: everything that an issuer has under state_dir, beside the one that serves.
 * The order decides: what says how long the log was (audit.checkpoint, audit.head) is copied before
 * the database that has to continue it, or the copy would look rolled back. Authorities' keys are
 * copied before it and after it: a row is written after its key. */
#include "provision/issuer/jwt.h"

#include "attestd/base/io.h"
#include "provision/store/backup.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX  ((size_t)64 << 20)
#define DEPTH_MAX 12
#define PATH_ROOM 4096

struct backup {
    uint64_t files;
    int64_t records;
};

static enum att_rc join(char ret[PATH_ROOM], const char *dir, const char *name, struct att_err *err)
{
    int n = snprintf(ret, PATH_ROOM, "%s/%s", dir, name);
    return n > 0 && n < PATH_ROOM
               ? ATT_OK
               : att_fail(err, ATT_E_LIMIT, "backup: %s/%s is too long", dir, name);
}

/* One that went meanwhile (a partial tile that has become full) is not missed; one that is copied
 * already never changes. */
static enum att_rc copy_file(struct backup *b, const char *from, const char *to, mode_t mode,
                             struct att_err *err)
{
    att_autobuf bytes = ATT_BUF_INIT(FILE_MAX);
    struct att_err why = {0};
    if (access(to, F_OK) == 0) {
        return ATT_OK;
    }
    enum att_rc rc = att_io_read_file(from, FILE_MAX, &bytes, &why);
    if (rc == ATT_E_NOTFOUND) {
        return ATT_OK;
    }
    if (rc) {
        return att_fail(err, rc, "backup: %s", why.msg);
    }
    struct att_slice content = bytes.ptr ? att_buf_slice(&bytes) : ATT_SLICE("", 0);
    rc = att_io_write_file(to, content, mode & 0700, err);
    b->files += !rc;
    return rc;
}

static enum att_rc copy_folder(struct backup *b, const char *from, const char *to, int depth,
                               struct att_err *err);

static enum att_rc copy_any(struct backup *b, const char *from, const char *to, int depth,
                            struct att_err *err)
{
    struct stat st;
    if (lstat(from, &st) != 0) {
        return errno == ENOENT ? ATT_OK : att_fail_errno(err, ATT_E_IO, "backup: %s", from);
    }
    if (S_ISDIR(st.st_mode)) {
        return copy_folder(b, from, to, depth + 1, err);
    }
    return S_ISREG(st.st_mode) ? copy_file(b, from, to, st.st_mode, err) : ATT_OK;
}

static enum att_rc copy_folder(struct backup *b, const char *from, const char *to, int depth,
                               struct att_err *err)
{
    char source[PATH_ROOM], target[PATH_ROOM];
    if (depth > DEPTH_MAX) {
        return att_fail(err, ATT_E_LIMIT, "backup: %s is deeper than anything of ours", from);
    }
    DIR *dir = opendir(from);
    if (!dir) {
        return errno == ENOENT ? ATT_OK : att_fail_errno(err, ATT_E_IO, "backup: %s", from);
    }
    enum att_rc rc = att_io_mkdirs(to, 0700, err);
    for (struct dirent *entry; !rc && (entry = readdir(dir));) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strstr(name, ".tmp")) {
            continue;
        }
        rc = join(source, from, name, err);
        rc = rc ? rc : join(target, to, name, err);
        rc = rc ? rc : copy_any(b, source, target, depth, err);
    }
    closedir(dir);
    return rc;
}

/* The log before the database, its guards before its tiles. */
static enum att_rc copy_state(struct backup *b, const struct conf_issuer *conf, const char *to,
                              struct att_err *err)
{
    static const char *const parts[] = {"audit.checkpoint", "audit.head", "ca", "audit-log"};
    char source[PATH_ROOM], target[PATH_ROOM];
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; !rc && i < sizeof parts / sizeof parts[0]; i++) {
        rc = join(source, conf->state_dir, parts[i], err);
        rc = rc ? rc : join(target, to, parts[i], err);
        rc = rc ? rc : copy_any(b, source, target, 0, err);
    }
    if (!rc && !store_spec_shared(conf->store)) {
        rc = join(target, to, "issuer.db", err);
        rc = rc ? rc : store_backup(conf->store, target, &b->records, err);
    }
    /* Keys that rows speak of: a row is written after its key. */
    static const char *const keys[] = {"ca/keys", "ca/jwt"};
    for (size_t i = 0; !rc && i < sizeof keys / sizeof keys[0]; i++) {
        rc = join(source, conf->state_dir, keys[i], err);
        rc = rc ? rc : join(target, to, keys[i], err);
        rc = rc ? rc : copy_any(b, source, target, 1, err);
    }
    return rc;
}

/* Written first: what was made after it is in no backup, or is newer than this says. */
static enum att_rc write_mark(const char *to, struct att_err *err)
{
    char path[PATH_ROOM], at[ATT_TIME_TEXT_LEN];
    att_autobuf text = {0};
    att_time_text(at, att_now_utc_s());
    att_buf_printf(&text, "{\"version\": 1, \"madeAt\": \"%s\"}\n", at);
    enum att_rc rc = join(path, to, ISSUER_BACKUP_FILE, err);
    rc = rc ? rc : att_buf_ok(&text, err);
    return rc ? rc : att_io_write_file(path, att_buf_slice(&text), 0600, err);
}

static void tell(const struct backup *b, const struct conf_issuer *conf, const char *to)
{
    bool shared = store_spec_shared(conf->store);
    printf("%s: %llu files: the authorities with their keys, the log's key, the published log%s\n",
           to, (unsigned long long)b->files, shared ? "" : ", and the database");
    if (shared) {
        printf("The database is not in it. Run pg_dump NOW, after this: a dump that is older than\n"
               "audit.checkpoint in %s would be refused as rolled back.\n",
               to);
    } else {
        printf("database: %lld decisions, checked\n", (long long)b->records);
    }
    printf("Not in it: issuer.yaml, ek.roots_dir, policies_dir, keys in an HSM or TPM.\n");
}

enum att_rc issuer_backup(const char *config_path, const char *to, struct att_err *err)
{
    struct conf_issuer *conf = NULL;
    struct backup b = {0};
    char partial[PATH_ROOM];
    struct stat st;
    enum att_rc rc = conf_issuer_load(config_path, &conf, NULL, err);
    if (rc) {
        return rc;
    }
    if (lstat(to, &st) == 0) {
        rc = issuer_refuse(err, ATT_E_EXISTS, "backupExists", "%s is there: nothing is overwritten",
                           to);
    }
    if (!rc && snprintf(partial, sizeof partial, "%s.partial", to) >= (int)sizeof partial) {
        rc = att_fail(err, ATT_E_LIMIT, "backup: the path is too long");
    }
    if (!rc && mkdir(partial, 0700) != 0) {
        rc = att_fail_errno(err, ATT_E_IO, "backup: %s", partial);
    }
    rc = rc ? rc : write_mark(partial, err);
    rc = rc ? rc : copy_state(&b, conf, partial, err);
    /* Under its name it is whole. */
    if (!rc && rename(partial, to) != 0) {
        rc = att_fail_errno(err, ATT_E_IO, "backup: %s", to);
    }
    rc = rc ? rc : att_io_sync_folder_of(to, err);
    if (!rc) {
        tell(&b, conf, to);
    }
    conf_issuer_free(conf);
    return rc;
}
