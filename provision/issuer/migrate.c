/* An issuer's database to another place, while the issuer is down. */
#include "provision/issuer/context.h"

#include "attestd/base/io.h"
#include "provision/store/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

/* The lock of the state folder that the database lies in, by default: an issuer that serves from it
 * would go on writing what nobody copies. */
static enum att_rc take_folder(const char *database, int *ret_fd, struct att_err *err)
{
    const char *slash = strrchr(database, '/');
    issuer_autofree *path = NULL;
    if (asprintf(&path, "%.*slock", slash ? (int)(slash + 1 - database) : 0, database) < 0) {
        path = NULL;
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    *ret_fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (*ret_fd < 0) {
        return errno == ENOENT ? ATT_OK : att_fail_errno(err, ATT_E_IO, "%s", path);
    }
    return flock(*ret_fd, LOCK_EX | LOCK_NB) == 0
               ? ATT_OK
               : issuer_refuse(err, ATT_E_EXISTS, "stateDirInUse",
                               "an attest-issuerd uses %s: stop it first", database);
}

static void tell(const struct store_copy_report *report, const char *from)
{
    char hash[2 * STORE_HASH_LEN + 1];
    for (size_t i = 0; i < report->n; i++) {
        printf("%-12s %lld rows\n", report->table[i].name, (long long)report->table[i].rows);
    }
    att_hex(hash, ATT_SLICE_ARRAY(report->head.hash));
    printf("audit chain verified: %lld records, head %s\n"
           "Set store: in issuer.yaml to the new place, and put %s away.\n",
           (long long)report->head.seq, hash, from);
}

enum att_rc issuer_migrate(const char *from, const char *to, const char *password_file,
                           struct att_err *err)
{
    att_autofd lock = -1;
    struct store_copy_report report = {0};
    const char *path = store_sqlite_path(from);
    const struct store_place old = {from, NULL}, new = {to, password_file};
    struct stat st;
    if (store_spec_shared(from) || !store_spec_shared(to)) {
        return att_fail(err, ATT_E_INVAL,
                        "expected --from sqlite:PATH and --to postgres:… or postgresql://…");
    }
    if (stat(path, &st) != 0) { /* opening would make one */
        return att_fail_errno(err, ATT_E_NOTFOUND, "%s", path);
    }
    enum att_rc rc = take_folder(path, &lock, err);
    if (!rc) {
        rc = store_copy(&old, &new, &report, err);
    }
    if (!rc) {
        tell(&report, path);
    }
    return rc;
}
