#include "attestd/host/internal.h"
#include "attestd/base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static char *join(const char *dir, const char *name)
{
    char *path = NULL;
    return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

enum att_rc host_paths_init(struct host_paths *paths, const struct conf_attestd *conf,
                            struct att_err *err)
{
    struct host_paths p = {.dir = join(conf->state_dir, "host")};
    if (p.dir) {
        p.agents = join(p.dir, "agents");
        p.records = join(p.dir, "records");
        p.withdrawn = join(p.dir, "withdrawn");
        p.evidence = join(p.dir, "evidence");
        p.decisions = join(p.dir, "decisions");
        p.record = join(p.dir, "host.json");
        p.view = join(p.dir, "view.jws");
        p.bundle = join(p.dir, "bundle.pem");
        p.crl = join(p.dir, "crl.pem");
        p.ak_chain = join(p.dir, "ak.pem");
        p.lock = join(p.dir, "lock");
    }
    p.control = join(conf->run_dir, "control.sock");
    p.keyd = join(conf->run_dir, "keyd/keyd.sock");
    p.whod = join(conf->run_dir, "whod.sock");
    p.workload = join(conf->run_dir, "workload.sock");
    if (!p.dir || !p.agents || !p.records || !p.withdrawn || !p.evidence || !p.decisions ||
        !p.record || !p.view || !p.bundle || !p.crl || !p.ak_chain || !p.lock || !p.control ||
        !p.keyd || !p.whod || !p.workload) {
        host_paths_done(&p);
        return att_fail(err, ATT_E_NOMEM, "no memory for paths");
    }
    *paths = p;
    return ATT_OK;
}

void host_paths_done(struct host_paths *paths)
{
    char *all[] = {paths->dir,      paths->agents,   paths->records, paths->withdrawn,
                   paths->evidence, paths->record,   paths->view,    paths->bundle,
                   paths->ak_chain, paths->lock,     paths->control, paths->keyd,
                   paths->whod,     paths->workload, paths->crl,     paths->decisions};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        free(all[i]);
    }
    *paths = (struct host_paths){0};
}

enum att_rc host_paths_make(const struct host_paths *paths, struct att_err *err)
{
    /* Chains and bundle are for everybody on the host; records and evidence are not. */
    const struct {
        const char *path;
        mode_t mode;
    } dirs[] = {{paths->dir, 0755},
                {paths->agents, 0755},
                {paths->records, 0700},
                {paths->withdrawn, 0700},
                {paths->evidence, 0700}};
    for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
        enum att_rc rc = att_io_mkdirs(dirs[i].path, dirs[i].mode, err);
        if (rc != ATT_OK) {
            return rc;
        }
    }
    return ATT_OK;
}

enum att_rc host_lock_take(const char *path, int *ret_fd, struct att_err *err)
{
    att_autofd fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return att_fail_errno(err, ATT_E_IO, "cannot open %s", path);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        char pid[24] = "";
        ssize_t len = pread(fd, pid, sizeof(pid) - 1, 0);
        pid[len > 0 ? (size_t)len : 0] = '\0';
        pid[strcspn(pid, "\n")] = '\0';
        enum att_rc rc = att_fail(err, ATT_E_EXISTS,
                                  "another attestd (pid %s) uses this state_dir: %s is locked",
                                  pid[0] ? pid : "unknown", path);
        att_err_reason(err, "stateDirInUse");
        return rc;
    }
    char pid[24];
    int len = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, pid, (size_t)len, 0) != len) {
        return att_fail_errno(err, ATT_E_IO, "cannot write %s", path);
    }
    *ret_fd = fd;
    fd = -1;
    return ATT_OK;
}
