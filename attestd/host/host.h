/* attestd itself: enrols the host, keeps each assigned agent's certificate fresh, answers the
 * control socket (docs/CONTROL.md). Opens no TPM and holds no key: keyd does. Never ends because
 * the issuer or keyd is away, and never leaves an expired certificate in place. */
#ifndef ATTESTD_HOST_HOST_H
#define ATTESTD_HOST_HOST_H

#include "attestd/conf/acme_agents.h"
#include "attestd/conf/conf.h"

struct host_options {
    const char *conf_path;           /* read again on SIGHUP */
    const char *state_dir, *run_dir; /* command line; NULL: the file's */
    const char *log;                 /* command line; NULL: the file's */
    const char *keyd_user;           /* who serves keyd's socket; NULL: the own user */
    const char *tokend_user;         /* who may ask who a caller is; NULL: the own user */
    const char *spiffed_user;        /* the same for attestd-spiffed */
    const char *whod_user;           /* who serves whod's socket; NULL: the own user */
    const char *ipc_group;           /* through which that user reaches it; NULL: the own group */
};

/* The configuration with the command line over it. Errors in the file go to stderr, one line each.
 * The caller frees with conf_attestd_free. */
ATT_MUST_USE enum att_rc host_conf_load(const struct host_options *opts,
                                        struct conf_attestd **ret_conf, struct att_err *err);

/* The file that acme.agents names, checked whole; every error of it to stderr, with file and line.
 * Without the section acme nothing is read, and *ret_agents stays. */
ATT_MUST_USE enum att_rc host_acme_agents_load(const struct conf_attestd *conf,
                                               struct conf_acme_agents **ret_agents,
                                               struct att_err *err);

/* Runs until SIGTERM or SIGINT (ATT_OK). Takes conf over. Fails at start only: the state folder is
 * another attestd's or cannot be written, the control socket cannot be made, the sandbox is
 * refused. */
ATT_MUST_USE enum att_rc host_run(const struct host_options *opts, struct conf_attestd *conf,
                                  struct att_err *err);

#endif
