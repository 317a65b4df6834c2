/* The issuer: ACME server, verifier, CA, audit and admin socket (docs/PROTOCOL.md, docs/ADMIN.md).
 * This header is what its main needs; the handlers behind it are declared in the files beside. */
#ifndef PROVISION_ISSUER_ISSUER_H
#define PROVISION_ISSUER_ISSUER_H

#include "attestd/base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct issuer;

/* Makes state_dir/ca: roots, intermediates, bundle.pem, ak-roots.pem, tls-root.pem, the TLS leaf
 * and the view signer. ATT_E_EXISTS (nothing changed) when there is a CA already. */
ATT_MUST_USE enum att_rc issuer_init(const char *config_path, struct att_err *err);
/* The same with roots whose keys are elsewhere: *ret_complete false, when state_dir/offline holds
 * requests whose chains are awaited. */
ATT_MUST_USE enum att_rc issuer_init_offline(const char *config_path, bool *ret_complete,
                                             struct att_err *err);

/* How the C library keeps freed memory: up to a few MiB for each thread instead of 128 KiB, since
 * the pages of a request's JSON are otherwise given back and asked for again three times for each
 * certificate. For the whole process, so a main's to call, before any thread is made. */
void issuer_memory(void);

/* Raises the limit of open descriptors and enters the sandbox, with the folders that the
 * configuration names. Before any thread is made. */
ATT_MUST_USE enum att_rc issuer_confine(const char *config_path, struct att_err *err);

/* Everything that is needed to serve is read and checked: configuration, CA, EK roots, store,
 * policies named by profiles. Interrupted signatures are completed or recorded as abandoned.
 * Nothing listens yet. ATT_E_EXISTS, reason "stateDirInUse": another process serves from this
 * state_dir. */
ATT_MUST_USE enum att_rc issuer_new(const char *config_path, struct issuer **ret_issuer,
                                    struct att_err *err);
/* Configuration, CA and the policies of policies_dir are read as issuer_new would, beside a running
 * issuer, too: nothing is written. An SQLite database is not opened; a PostgreSQL is asked whether
 * it would do. */
ATT_MUST_USE enum att_rc issuer_check(const char *config_path, struct att_err *err);
/* Copies the database of an issuer that is down into a new one, verifies the copy, and prints what
 * was copied (provision/store/copy.h). from: "sqlite:PATH"; to: a PostgreSQL. */
ATT_MUST_USE enum att_rc issuer_migrate(const char *from, const char *to, const char *password_file,
                                        struct att_err *err);
/* Copies what an issuer has under state_dir into the new folder `to`, also beside the one that
 * serves, and prints what was copied; the database if it is a file. ATT_E_EXISTS, reason
 * "backupExists": the folder is there. What fails leaves "<to>.partial". */
ATT_MUST_USE enum att_rc issuer_backup(const char *config_path, const char *to,
                                       struct att_err *err);
/* Listens and serves until issuer_stop. Then connections are closed and the threads are gone. */
ATT_MUST_USE enum att_rc issuer_serve(struct issuer *issuer, struct att_err *err);
/* Async-signal-safe; any thread. */
void issuer_stop(struct issuer *issuer);
/* Async-signal-safe: the configuration (profiles, EK roots, enrolment) is read again soon; when it
 * is bad, the old one stays and the error is logged. */
void issuer_reload(struct issuer *issuer);
void issuer_free(struct issuer *issuer);

#endif
