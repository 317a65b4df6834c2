/* A private software TPM for a test: made by swtpm_setup with EK and platform certificates from a
 * CA of its own, in a folder of its own, reached over a unix socket. The socket serves one client
 * at a time: a tool started while a test holds its context open waits until the context is closed.
 */
#ifndef ATT_TESTS_SUPPORT_SWTPM_H
#define ATT_TESTS_SUPPORT_SWTPM_H

#include "attestd/base/err.h"

#include <stdbool.h>
#include <sys/types.h>

#define SWTPM_PATH 200

struct swtpm {
    char dir[SWTPM_PATH];
    char tcti[SWTPM_PATH + 16];          /* "swtpm:path=…/sock" */
    char root_ca[SWTPM_PATH + 40];       /* PEM: root of the EK certificates */
    char issuer_ca[SWTPM_PATH + 40];     /* PEM: their intermediate */
    char issuer_ca_key[SWTPM_PATH + 40]; /* PEM: its key, to make further EK certificates */
    char ek_roots[SWTPM_PATH + 40];      /* PEM: both certificates */
    pid_t pid;                           /* 0: not running */
};

struct swtpm_options {
    const char *pcr_banks; /* NULL: "sha256" */
    bool no_startup;       /* leave TPM2_Startup to the first client */
    bool no_ek_cert;       /* without certificates, as some cloud TPMs are */
};

/* Is swtpm installed? Tests skip() where not. */
bool swtpm_available(void);
/* Makes a TPM in a new folder under $TMPDIR or /tmp and starts it. options may be NULL. */
ATT_MUST_USE enum att_rc swtpm_new(struct swtpm *ret_tpm, const struct swtpm_options *options,
                                   struct att_err *err);
/* Starts the process again after swtpm_stop(); what the TPM keeps over a reset is there again. */
ATT_MUST_USE enum att_rc swtpm_start(struct swtpm *tpm, bool no_startup, struct att_err *err);
/* Power off, at once. */
void swtpm_stop(struct swtpm *tpm);
/* Power cycle: stop and start. */
ATT_MUST_USE enum att_rc swtpm_reset(struct swtpm *tpm, struct att_err *err);
/* Stops it and removes the folder. */
void swtpm_done(struct swtpm *tpm);
/* Runs a program (argv[0] searched in PATH) in the TPM's folder with TPM2TOOLS_TCTI set, output
 * discarded but for a failing one's, which goes to stderr; returns its exit status, 127 where it is
 * missing. */
int swtpm_tool(const struct swtpm *tpm, const char *const argv[]);
/* The same by sh -c; what it prints is left in <dir>/tool.out. */
int swtpm_sh(const struct swtpm *tpm, const char *command);

#endif
