/* attestctl: one command is a row of a table; most rows only name an operation of a control socket,
 * its arguments and the columns to show. Exit codes are a contract (docs/man/attestctl.1). */
#ifndef ATTESTD_CTL_CTL_H
#define ATTESTD_CTL_CTL_H

#include "attestd/base/json.h"

enum ctl_exit {
    CTL_OK = 0,
    CTL_FAILED = 1,      /* refused or failed */
    CTL_USAGE = 2,       /* the command line is wrong */
    CTL_UNREACHABLE = 3, /* no daemon at the socket, no server at the address */
    CTL_FORBIDDEN = 4, /* the socket is not for this user; the API does not know him, or his role */
};

/* What the global options said. */
struct ctl_ctx {
    const char *control_path; /* attestd's socket */
    const char *admin_path;   /* attest-issuerd's socket, or the https address of its admin API */
    const char *cert, *key, *cacert, *token_file, *request_id; /* for the latter; NULL: not given */
    bool json;
    int timeout_ms;
};

enum ctl_param_kind {
    CTL_POSITIONAL, /* a word */
    CTL_OPTION,     /* --name WORD */
    CTL_NUMBER,     /* --name N */
    CTL_FLAG,       /* --name */
    CTL_LABELS,     /* --name KEY=VALUE;KEY=VALUE, as an object */
    CTL_WORDS,      /* any number of words, as a list */
    CTL_FILE,       /* -f FILE or a word: its content as "text", its name as "filename" */
};

struct ctl_param {
    enum ctl_param_kind kind;
    const char *name; /* as on the command line, without dashes */
    const char *key;  /* member of args; NULL: the same as name */
    bool required;
};

#define CTL_PARAMS_MAX  8
#define CTL_COLUMNS_MAX 8

/* One column of a list: a title and a member ("a.b" goes deeper). */
struct ctl_column {
    const char *title, *member;
};

/* The parsed arguments of a command. */
struct ctl_args {
    json_t *json;     /* the args object, borrowed */
    const char *file; /* of a CTL_FILE parameter, or NULL */
    const char *out;  /* --out, or NULL */
    char **rest;      /* what stands behind "--", NULL-terminated; NULL: no "--" */
};

struct ctl_command {
    const char *noun, *verb; /* verb NULL: the noun alone */
    const char *help;
    bool at_issuer;
    const char *op; /* NULL: local says what to do without asking a daemon first */
    struct ctl_param params[CTL_PARAMS_MAX];
    bool takes_rest;  /* "-- CMD…" follows */
    const char *list; /* the member that is a list; NULL: one object */
    struct ctl_column columns[CTL_COLUMNS_MAX];
    bool paged;    /* the list comes in pages (args after, limit; "next" in the answer) */
    unsigned most; /* rows that are shown without --limit; 0: all */
    /* Instead of the generic output, or instead of everything where op is NULL. */
    enum ctl_exit (*show)(const struct ctl_ctx *ctx, const struct ctl_args *args,
                          const json_t *result);
};

/* end: noun NULL */
extern const struct ctl_command ctl_host_commands[], ctl_issuer_commands[], ctl_manifest_commands[],
    ctl_seal_commands[], ctl_ca_commands[], ctl_federation_commands[];

/* Runs a whole command line; returns the exit code. */
int ctl_main(int argc, char **argv);

/* Prints "attestctl: message" with the reason and returns the exit code that fits err. */
enum ctl_exit ctl_report(const struct att_err *err);
/* One call, its errors reported. */
enum ctl_exit ctl_call(const struct ctl_ctx *ctx, bool at_issuer, const char *op,
                       const json_t *args, json_t **ret_result);

/* One call of the issuer's admin API (remote.c). ret_forbidden: it says that we may not. */
bool ctl_is_remote(const struct ctl_ctx *ctx);
ATT_MUST_USE enum att_rc ctl_remote_call(const struct ctl_ctx *ctx, const char *op,
                                         const json_t *args, json_t **ret_result,
                                         bool *ret_forbidden, struct att_err *err);

/* A command's list, page by page: each is printed before the next is asked for. */
enum ctl_exit ctl_pages_run(const struct ctl_ctx *ctx, const struct ctl_command *command,
                            const struct ctl_args *args);

/* out.c */
void ctl_print_json(const json_t *json);
/* The same of what stands so many spaces deep in another; no line end. */
void ctl_print_json_inner(const json_t *json, int indent);
void ctl_print_list(const json_t *list, const struct ctl_column *columns);
/* Its rows as they come: the title stands above the first ones, a column only grows. */
struct ctl_table {
    const struct ctl_column *columns;
    int widths[CTL_COLUMNS_MAX];
    bool titled;
};
void ctl_table_rows(struct ctl_table *table, const json_t *list);
void ctl_print_object(const json_t *object, int indent);
/* A member by path "a.b" as text that is safe to print; "-" where there is none. buf holds what is
 * not a string, or not a clean one. */
const char *ctl_text(const json_t *object, const char *path, char *buf, size_t size);

/* Commands with a file of their own. */
enum ctl_exit ctl_status_show(const struct ctl_ctx *, const struct ctl_args *, const json_t *);
enum ctl_exit ctl_ticket_show(const struct ctl_ctx *, const struct ctl_args *, const json_t *);
enum ctl_exit ctl_cert_show(const struct ctl_ctx *, const struct ctl_args *, const json_t *);
enum ctl_exit ctl_quote_write(const struct ctl_ctx *, const struct ctl_args *, const json_t *);
enum ctl_exit ctl_verify_run(const struct ctl_ctx *, const struct ctl_args *, const json_t *);
enum ctl_exit ctl_eventlog_show(const struct ctl_ctx *, const struct ctl_args *, const json_t *);
enum ctl_exit ctl_enrol_run(const struct ctl_ctx *, const struct ctl_args *, const json_t *);
enum ctl_exit ctl_run_run(const struct ctl_ctx *, const struct ctl_args *, const json_t *);
enum ctl_exit ctl_doctor_show(const struct ctl_ctx *, const struct ctl_args *, const json_t *);
enum ctl_exit ctl_who_show(const struct ctl_ctx *, const struct ctl_args *, const json_t *);
enum ctl_exit ctl_measure_run(const struct ctl_ctx *, const struct ctl_args *, const json_t *);
enum ctl_exit ctl_allowlist_apply(const struct ctl_ctx *, const struct ctl_args *, const json_t *);
enum ctl_exit ctl_allowlist_draft(const struct ctl_ctx *, const struct ctl_args *, const json_t *);
enum ctl_exit ctl_allowlist_diff(const struct ctl_ctx *, const struct ctl_args *, const json_t *);
enum ctl_exit ctl_policy_show(const struct ctl_ctx *, const struct ctl_args *, const json_t *);
enum ctl_exit ctl_policy_sign(const struct ctl_ctx *, const struct ctl_args *, const json_t *);
enum ctl_exit ctl_policy_test(const struct ctl_ctx *, const struct ctl_args *, const json_t *);
enum ctl_exit ctl_policy_diff(const struct ctl_ctx *, const struct ctl_args *, const json_t *);
enum ctl_exit ctl_policy_dryrun(const struct ctl_ctx *, const struct ctl_args *, const json_t *);
enum ctl_exit ctl_apply_show(const struct ctl_ctx *, const struct ctl_args *, const json_t *);
enum ctl_exit ctl_json_show(const struct ctl_ctx *, const struct ctl_args *, const json_t *);
enum ctl_exit ctl_audit_verify(const struct ctl_ctx *, const struct ctl_args *, const json_t *);
enum ctl_exit ctl_audit_export(const struct ctl_ctx *, const struct ctl_args *, const json_t *);
enum ctl_exit ctl_audit_check(const struct ctl_ctx *, const struct ctl_args *, const json_t *);
enum ctl_exit ctl_hostlog_verify(const struct ctl_ctx *, const struct ctl_args *, const json_t *);
enum ctl_exit ctl_migrate_scan(const struct ctl_ctx *, const struct ctl_args *, const json_t *);
enum ctl_exit ctl_why_show(const struct ctl_ctx *, const struct ctl_args *, const json_t *);

#endif
