/* The commands that talk to attestd's control socket (docs/CONTROL.md), and those that need none.
 */
#include "attestd/ctl/token_command.h"

#include "attestd/base/enc.h"
#include "attestd/base/io.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NAME                                                                                       \
    {                                                                                              \
        CTL_POSITIONAL, "NAME", "name", true                                                       \
    }
#define MUST(n)                                                                                    \
    {                                                                                              \
        CTL_OPTION, n, NULL, true                                                                  \
    }
#define OPT(n)                                                                                     \
    {                                                                                              \
        CTL_OPTION, n, NULL, false                                                                 \
    }

const struct ctl_command ctl_host_commands[] = {
    {.noun = "status",
     .help = "TPM, enrolment, last verdict, agents with time left and last error",
     .op = "status",
     .show = ctl_status_show},
    {.noun = "enrol",
     .help = "enrols this host; asks for the ticket, or reads it from standard input",
     .show = ctl_enrol_run},
    {.noun = "agent",
     .verb = "list",
     .help = "the agents of this host",
     .op = "agent.list",
     .list = "agents",
     .columns = {{"NAME", "name"},
                 {"STATE", "state"},
                 {"KEY", "key"},
                 {"BOOT", "boot"},
                 {"SERIAL", "serial"},
                 {"LEFT", "leftS"},
                 {"RENEWAL", "renewalInS"},
                 {"ERROR", "lastError.reason"}}},
    {.noun = "agent", .verb = "show", .help = "one agent", .op = "agent.show", .params = {NAME}},
    {.noun = "agent",
     .verb = "rotate",
     .help = "a new key and certificate now; waits for them",
     .op = "agent.rotate",
     .params = {NAME}},
    {.noun = "agent",
     .verb = "freeze",
     .help = "stops every signature of an agent's key",
     .op = "agent.freeze",
     .params = {NAME}},
    {.noun = "agent",
     .verb = "thaw",
     .help = "ends a freeze",
     .op = "agent.thaw",
     .params = {NAME}},
    {.noun = "cert",
     .verb = "show",
     .help = "an agent's certificate; --pem prints the chain alone",
     .op = "cert.show",
     .params = {NAME, {CTL_FLAG, "pem", NULL, false}},
     .show = ctl_cert_show},
    {.noun = "token",
     .help = "a JWT-SVID of an agent for --audience, or the token that --exchange PROFILE gets for "
             "one or for the agent's key; --out FILE writes it there, mode 0600, --refresh keeps "
             "that fresh; --cache FILE keeps it for the next call",
     .params = {NAME,
                OPT("audience"),
                OPT("exchange"),
                OPT("out"),
                OPT("cache"),
                {CTL_FLAG, "refresh", NULL, false}},
     .show = ctl_token_run},
    {.noun = "quote",
     .help = "a quote by the AK with logs, as raw TPM structures in --out DIR",
     .op = "quote",
     .params = {MUST("nonce"), OPT("pcrs"), MUST("out")},
     .show = ctl_quote_write},
    {.noun = "verify",
     .help =
         "the issuer's checks over stored evidence, without a TPM; --policy adds the boot policy",
     .params = {{CTL_POSITIONAL, "DIR", NULL, true},
                MUST("nonce"),
                MUST("ak-roots"),
                MUST("ek-roots"),
                OPT("policy"),
                OPT("policy-signer"),
                OPT("cert"),
                OPT("id")},
     .show = ctl_verify_run},
    {.noun = "measure",
     .help =
         "a reference policy of this host's boot, or of --from FOLDER or LOG; a draft for review",
     .params = {MUST("out"),
                OPT("name"),
                {CTL_NUMBER, "version", NULL, false},
                OPT("pcrs"),
                OPT("from"),
                OPT("values"),
                OPT("allowlist"),
                OPT("exclude")},
     .show = ctl_measure_run},
    {.noun = "eventlog",
     .verb = "show",
     .help = "a firmware log of any machine, explained",
     .params = {{CTL_POSITIONAL, "FILE", NULL, true}},
     .show = ctl_eventlog_show},
    {.noun = "run",
     .help = "starts CMD with what it needs to use NAME's key; it is attested like any caller",
     .params = {NAME, OPT("run-dir"), OPT("state-dir"), {CTL_NUMBER, "wait", NULL, false}},
     .takes_rest = true,
     .show = ctl_run_run},
    {.noun = "who",
     .help = "which agent a process is here, and why it is none of the others",
     .op = "who",
     .params = {{CTL_POSITIONAL, "PID", "pid", true}},
     .show = ctl_who_show},
    {.noun = "hostlog",
     .verb = "verify",
     .help = "checks a host's own log (its folder), against proofs of decisions that hold its head",
     .params = {{CTL_POSITIONAL, "DIR", "dir", true},
                {CTL_WORDS, "PROOF", "proofs", false},
                OPT("key"),
                OPT("head"),
                {CTL_FLAG, "allow-dropped", "allowDropped", false}},
     .show = ctl_hostlog_verify},
    {.noun = "migrate",
     .verb = "scan",
     .help = "finds static keys in units, files and processes, never their values; says what "
             "replaces each",
     .params = {{CTL_WORDS, "PATH", "paths", false},
                OPT("root"),
                OPT("user"),
                OPT("min-confidence"),
                {CTL_FLAG, "no-units", NULL, false},
                {CTL_FLAG, "no-files", NULL, false},
                {CTL_FLAG, "no-processes", NULL, false},
                {CTL_FLAG, "fail", NULL, false}},
     .show = ctl_migrate_scan},
    {.noun = "doctor",
     .help = "what this host lacks, and how to mend it",
     .op = "doctor",
     .show = ctl_doctor_show},
    {.noun = NULL},
};

static void print_pairs(const json_t *object, const char *const (*rows)[2], size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char cell[400];
        printf("  %-12s %s\n", rows[i][0], ctl_text(object, rows[i][1], cell, sizeof cell));
    }
}

/* One line for each agent with connections. */
static void print_connections(const json_t *agents)
{
    for (size_t i = 0; i < json_array_size(agents); i++) {
        const json_t *agent = json_array_get(agents, i);
        char name[100], connections[32], stale[32], why[64];
        printf("  %-12s %s, stale %s %s\n", ctl_text(agent, "name", name, sizeof name),
               ctl_text(agent, "connections", connections, sizeof connections),
               ctl_text(agent, "stale", stale, sizeof stale),
               ctl_text(agent, "why", why, sizeof why));
    }
}

/* The default first; then modules of whose keys the configuration says nothing. */
static void print_hsms(const json_t *hsm)
{
    static const char *const rows[][2] = {
        {"state", "state"}, {"reason", "reason"}, {"PIN", "pin"},
        {"keys", "keys"},   {"waste", "waste"},
    };
    const json_t *modules = json_object_get(hsm, "modules");
    const json_t *elsewhere = json_object_get(hsm, "elsewhere");
    char name[64], keys[32];
    for (size_t i = 0; i < json_array_size(modules); i++) {
        const json_t *one = json_array_get(modules, i);
        printf("HSM %s\n", ctl_text(one, "name", name, sizeof name));
        print_pairs(one, rows, sizeof rows / sizeof rows[0]);
    }
    for (size_t i = 0; i < json_array_size(elsewhere); i++) {
        const json_t *one = json_array_get(elsewhere, i);
        printf("HSM %s: not configured\n", ctl_text(one, "name", name, sizeof name));
        printf("  %-12s %s\n", "keys", ctl_text(one, "keys", keys, sizeof keys));
    }
}

enum ctl_exit ctl_status_show(const struct ctl_ctx *ctx, const struct ctl_args *args,
                              const json_t *result)
{
    (void)args;
    if (ctx->json) {
        ctl_print_json(result);
        return CTL_OK;
    }
    static const char *const host[][2] = {
        {"issuer", "issuer.url"},        {"kind", "issuer.kind"},
        {"lacks", "issuer.lacks"},       {"reachable", "issuer.reachable"},
        {"TLS", "issuer.tls.version"},   {"group", "issuer.tls.group"},
        {"enrolled", "enrolment.state"}, {"EK id", "enrolment.ekId"},
        {"host", "enrolment.host"},      {"AK expires", "enrolment.akExpires"},
        {"last error", "lastError"},
    };
    static const char *const tpm[][2] = {
        {"state", "tpm.state"},           {"maker", "tpm.manufacturerText"},
        {"firmware", "tpm.firmware"},     {"lockout", "tpm.lockoutCounter"},
        {"operations", "tpm.operations"},
    };
    static const char *const token[][2] = {
        {"state", "token.state"},
        {"version", "token.version"},
        {"connections", "token.connections"},
        {"stale", "token.stale"},
        {"strangers", "token.strangers"},
        {"refused", "token.refused"},
        {"signatures", "token.signatures"},
        {"outdated", "token.outdated"},
    };
    puts("host");
    print_pairs(result, host, sizeof host / sizeof host[0]);
    puts("TPM");
    print_pairs(result, tpm, sizeof tpm / sizeof tpm[0]);
    print_hsms(json_object_get(result, "hsm"));
    puts("token service");
    print_pairs(result, token, sizeof token / sizeof token[0]);
    print_connections(json_object_get(json_object_get(result, "token"), "agents"));
    puts("agents");
    for (const struct ctl_command *c = ctl_host_commands; c->noun; c++) {
        if (c->list) {
            ctl_print_list(json_object_get(result, "agents"), c->columns);
        }
    }
    return CTL_OK;
}

/* PEM (RFC 7468) is ASCII in lines; anything else is not for a terminal or a file. */
static enum ctl_exit print_pem(const char *pem)
{
    bool ok = pem && pem[0];
    for (const char *c = pem; ok && *c; c++) {
        ok = *c == '\n' || (*c >= 0x20 && *c <= 0x7e);
    }
    if (!ok) {
        fputs("attestctl: the daemon's answer holds no PEM\n", stderr);
        return CTL_FAILED;
    }
    fputs(pem, stdout);
    return CTL_OK;
}

enum ctl_exit ctl_cert_show(const struct ctl_ctx *ctx, const struct ctl_args *args,
                            const json_t *result)
{
    if (json_object_get(args->json, "pem")) {
        return print_pem(json_string_value(json_object_get(result, "pem")));
    }
    if (ctx->json) {
        ctl_print_json(result);
        return CTL_OK;
    }
    att_autojson *fields = json_copy((json_t *)(uintptr_t)result);
    json_object_del(fields, "pem");
    ctl_print_object(fields, 0);
    return CTL_OK;
}

enum ctl_exit ctl_doctor_show(const struct ctl_ctx *ctx, const struct ctl_args *args,
                              const json_t *result)
{
    (void)args;
    const json_t *checks = json_object_get(result, "checks");
    bool all = json_array_size(checks) > 0;
    for (size_t i = 0; i < json_array_size(checks); i++) {
        const json_t *check = json_array_get(checks, i);
        bool ok = json_is_true(json_object_get(check, "ok"));
        char name[64], detail[400], mend[400];
        all = all && (ok || json_is_true(json_object_get(check, "optional")));
        if (ctx->json) {
            continue;
        }
        printf("%-7s %-14s %s\n", ok ? "ok" : "MISSING", ctl_text(check, "name", name, sizeof name),
               ctl_text(check, "detail", detail, sizeof detail));
        if (!ok && json_object_get(check, "mend")) {
            printf("                       %s\n", ctl_text(check, "mend", mend, sizeof mend));
        }
    }
    if (ctx->json) {
        ctl_print_json(result);
    }
    return all ? CTL_OK : CTL_FAILED;
}

static enum att_rc write_member(const char *dir, const char *file, const json_t *files,
                                struct att_err *err)
{
    att_autobuf bytes = {0};
    char path[4096];
    enum att_rc rc = att_json_b64u(files, file, (size_t)6 << 20, &bytes, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (strchr(file, '/') || file[0] == '.' ||
        (size_t)snprintf(path, sizeof path, "%s/%s", dir, file) >= sizeof path) {
        return att_fail(err, ATT_E_PROTOCOL, "the daemon names a file \"%.60s\"", file);
    }
    return att_io_write_file(path, att_buf_slice(&bytes), 0644, err);
}

/* What an earlier quote left there, and this one has not got, would be taken for a part of it. */
static enum att_rc clear_folder(const char *dir, const json_t *files, struct att_err *err)
{
    static const char *const optional[] = {"ek.crt",       "eventlog", "systemd",
                                           "systemd.tail", "ima",      "ima.tail"};
    char path[4096];
    if ((size_t)snprintf(path, sizeof path, "%s/evidence.cbor", dir) >= sizeof path) {
        return att_fail(err, ATT_E_INVAL, "--out: the path is too long");
    }
    if (access(path, F_OK) == 0) {
        return att_fail(err, ATT_E_CONFLICT, "--out: %s holds an agent's evidence", dir);
    }
    for (size_t i = 0; i < sizeof optional / sizeof optional[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, optional[i]);
        if (!json_object_get(files, optional[i]) && unlink(path) != 0 && errno != ENOENT) {
            return att_fail_errno(err, ATT_E_IO, "remove %s", path);
        }
    }
    return ATT_OK;
}

enum ctl_exit ctl_quote_write(const struct ctl_ctx *ctx, const struct ctl_args *args,
                              const json_t *result)
{
    const json_t *members = json_object_get(result, "files");
    struct att_err err = {0};
    enum att_rc rc = att_io_mkdirs(args->out, 0755, &err);
    if (rc == ATT_OK) {
        rc = clear_folder(args->out, members, &err);
    }
    const char *file = NULL;
    json_t *value = NULL;
    json_object_foreach((json_t *)(uintptr_t)members, file, value)
    {
        if (rc == ATT_OK) {
            rc = write_member(args->out, file, members, &err);
        }
    }
    if (rc != ATT_OK) {
        return ctl_report(&err);
    }
    if (ctx->json) {
        att_autojson *brief = json_copy((json_t *)(uintptr_t)result);
        json_object_del(brief, "files");
        ctl_print_json(brief);
        return CTL_OK;
    }
    char nonce[160];
    printf("tpm2_checkquote -u %s/ak.pem -m %s/quote -s %s/quote.sig -f %s/pcrs -g sha256 -q %s\n",
           args->out, args->out, args->out, args->out,
           ctl_text(result, "extraData", nonce, sizeof nonce));
    return CTL_OK;
}
