/* The sandbox of attest-issuerd, entered before it makes a thread or reads a byte from anybody. */
#include "provision/issuer/issuer.h"

#include "attestd/base/io.h"
#include "attestd/conf/issuer_conf.h"
#include "attestd/proc/sandbox.h"
#include "provision/issuer/conns.h"
#include "provision/store/store.h"

#include <malloc.h>
#include <stdio.h>
#include <string.h>

#define FOLDERS 120

/* Of freed memory at the end of a thread's heap this much stays; from this size on a block is
 * mapped by itself and goes back at once, as a request with logs does. */
#define KEPT_FREE   (4 << 20)
#define GROWN_AHEAD (256 << 10)
#define MAPPED_FROM (1 << 20)

struct folders {
    struct proc_sandbox_path list[FOLDERS + 1];
    char parents[7 + 2 + CONF_ADMIN_LIST_MAX + 2 * CONF_FEDERATION_MAX][4096];
    size_t n, n_parents;
};

static void add(struct folders *folders, struct proc_sandbox_path path)
{
    if (path.path && path.path[0]) {
        folders->list[folders->n++] = path;
    }
}

/* The folder of a file that is read again later, perhaps as another file of this name. */
static void add_folder_of(struct folders *folders, const char *file)
{
    char *parent = folders->parents[folders->n_parents];
    if (!file || (size_t)snprintf(parent, sizeof folders->parents[0], "%s", file) >=
                     sizeof folders->parents[0]) {
        return;
    }
    char *slash = strrchr(parent, '/');
    if (slash) {
        slash[slash == parent] = 0;
    } else {
        strcpy(parent, ".");
    }
    folders->n_parents++;
    add(folders, (struct proc_sandbox_path){parent, PROC_PATH_READ});
}

/* The folder of an SQLite database, which makes files beside it; what libpq reads, for each
 * connection anew: certificates and keys of its own folder. A unix socket needs no rule. */
static void add_store(struct folders *folders, const struct conf_issuer *conf)
{
    if (!store_spec_shared(conf->store)) {
        size_t at = folders->n;
        add_folder_of(folders, store_sqlite_path(conf->store));
        folders->list[at].access = PROC_PATH_WRITE;
        return;
    }
    if (conf->store_password_file && conf->store_password_file[0] == '/') {
        add_folder_of(folders, conf->store_password_file);
    }
    add(folders, (struct proc_sandbox_path){"/etc/attestd/postgres", PROC_PATH_READ});
    add(folders, (struct proc_sandbox_path){"/etc/postgresql-common", PROC_PATH_READ});
}

/* What is read again when it was replaced. */
static void add_admin(struct folders *folders, const struct conf_admin *admin)
{
    if (!admin) {
        return;
    }
    add_folder_of(folders, admin->client_ca_file);
    add_folder_of(folders, admin->no_crl ? NULL : admin->client_crl_file);
    for (unsigned i = 0; i < admin->n_oidc; i++) {
        add_folder_of(folders, admin->oidc[i].jwks_file);
        add_folder_of(folders, admin->oidc[i].ca_file);
    }
}

/* The system's roots where an endpoint has none of its own. */
static void add_federation(struct folders *folders, const struct conf_federation *federation)
{
    bool system = false;
    for (unsigned i = 0; federation && i < federation->n_trust_domains; i++) {
        const struct conf_federated *d = &federation->trust_domains[i];
        add_folder_of(folders, d->ca_file);
        add_folder_of(folders, d->bundle_file);
        system = system || (!d->by_spiffe && !d->ca_file);
    }
    if (system) {
        add(folders, (struct proc_sandbox_path){"/etc/ssl/certs", PROC_PATH_READ});
        add(folders, (struct proc_sandbox_path){"/usr/share/ca-certificates", PROC_PATH_READ});
        add(folders,
            (struct proc_sandbox_path){"/usr/local/share/ca-certificates", PROC_PATH_READ});
    }
}

static enum att_rc enter(const struct conf_issuer *conf, const char *config, struct att_err *err)
{
    struct folders folders = {0};
    struct proc_sandbox_report report;
    add(&folders, (struct proc_sandbox_path){conf->state_dir, PROC_PATH_WRITE});
    add(&folders, (struct proc_sandbox_path){conf->run_dir, PROC_PATH_WRITE});
    add(&folders, (struct proc_sandbox_path){conf->ek->roots_dir, PROC_PATH_READ});
    add(&folders, (struct proc_sandbox_path){conf->policies_dir, PROC_PATH_READ});
    add_folder_of(&folders, config);
    add_folder_of(&folders, conf->tls ? conf->tls->cert_file : NULL);
    add_folder_of(&folders, conf->tls ? conf->tls->key_file : NULL);
    add_folder_of(&folders, conf->jwt ? conf->jwt->cert_file : NULL);
    add_folder_of(&folders, conf->jwt ? conf->jwt->key_file : NULL);
    add_federation(&folders, conf->federation);
    add_store(&folders, conf);
    add_admin(&folders, conf->admin);
    const struct proc_sandbox_opts opts = {.profile = PROC_PROFILE_ISSUERD, .paths = folders.list};
    enum att_rc rc = proc_sandbox_enter(&opts, &report, err);
    if (!rc) {
        att_log(ATT_INFO, "issuer.sandbox", ATT_S("profile", report.profile),
                ATT_S("seccomp", report.seccomp), ATT_N("landlock", report.landlock_abi),
                ATT_S("reason", report.reason));
    }
    return rc;
}

void issuer_memory(void)
{
    (void)mallopt(M_TRIM_THRESHOLD, KEPT_FREE);
    (void)mallopt(M_TOP_PAD, GROWN_AHEAD);
    (void)mallopt(M_MMAP_THRESHOLD, MAPPED_FROM);
}

enum att_rc issuer_confine(const char *config, struct att_err *err)
{
    struct conf_issuer *conf = NULL;
    unsigned most = 0;
    enum att_rc rc = conf_issuer_load(config, &conf, NULL, err);
    if (!rc) {
        rc = issuer_conns_room(&most, err); /* no limit is raised in there */
    }
    if (!rc) {
        rc = att_io_mkdirs(conf->run_dir, 0755, err); /* a rule is for what is there */
    }
    if (!rc) {
        rc = enter(conf, config, err);
    }
    conf_issuer_free(conf);
    return rc;
}
