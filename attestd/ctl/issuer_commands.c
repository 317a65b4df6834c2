/* The commands that talk to the issuer's admin socket (docs/ADMIN.md). */
#include "attestd/ctl/ctl.h"

#include "attestd/base/io.h"

#include <stdio.h>

#define POS(n)                                                                                     \
    {                                                                                              \
        CTL_POSITIONAL, n, NULL, true                                                              \
    }
#define POS_OPT(n)                                                                                 \
    {                                                                                              \
        CTL_POSITIONAL, n, NULL, false                                                             \
    }
#define OPT(n, key)                                                                                \
    {                                                                                              \
        CTL_OPTION, n, key, false                                                                  \
    }
#define NUM(n, key)                                                                                \
    {                                                                                              \
        CTL_NUMBER, n, key, false                                                                  \
    }
#define FLAG(n, key)                                                                               \
    {                                                                                              \
        CTL_FLAG, n, key, false                                                                    \
    }
#define FILE_ARG                                                                                   \
    {                                                                                              \
        CTL_FILE, "FILE", NULL, true                                                               \
    }

const struct ctl_command ctl_issuer_commands[] = {
    {.noun = "host",
     .verb = "list",
     .help = "the hosts that the issuer knows, with their last verdict",
     .at_issuer = true,
     .op = "host.list",
     .params = {OPT("state", NULL), NUM("limit", NULL), OPT("after", NULL)},
     .paged = true,
     .list = "hosts",
     .columns = {{"ID", "id"},
                 {"LABEL", "label"},
                 {"STATE", "state"},
                 {"LABELS", "labels"},
                 {"SEEN", "seenAt"},
                 {"VERDICT", "lastVerdict.outcome"},
                 {"REASON", "lastVerdict.reason"}}},
    {.noun = "host",
     .verb = "show",
     .help = "one host: TPM, attestation keys, certificates",
     .at_issuer = true,
     .op = "host.show",
     .params = {POS("id")}},
    {.noun = "host",
     .verb = "import",
     .help = "adds hosts from a CSV file (ek,label,labels) to the inventory, as approved",
     .at_issuer = true,
     .op = "host.import",
     .params = {FILE_ARG, FLAG("dry-run", "dryRun")}},
    {.noun = "host",
     .verb = "approve",
     .help = "approves a pending host",
     .at_issuer = true,
     .op = "host.approve",
     .params = {POS("id"), OPT("label", NULL), {CTL_LABELS, "labels", NULL, false}}},
    {.noun = "host",
     .verb = "ban",
     .help = "bans a host and all EKs of its TPM; its certificates are revoked",
     .at_issuer = true,
     .op = "host.ban",
     .params = {POS("id"), {CTL_OPTION, "reason", NULL, true}}},
    {.noun = "host",
     .verb = "evict",
     .help = "forgets a host; it must enrol anew",
     .at_issuer = true,
     .op = "host.evict",
     .params = {POS("id")}},
    {.noun = "host",
     .verb = "rebind",
     .help = "lets another account take this TPM over at its next enrolment",
     .at_issuer = true,
     .op = "host.rebind",
     .params = {POS("id")}},
    {.noun = "ticket",
     .verb = "create",
     .help = "an enrolment ticket; --out writes the ticket file (mode 0600)",
     .at_issuer = true,
     .op = "ticket.create",
     .params = {OPT("ek", NULL), OPT("host", NULL), NUM("uses", NULL), OPT("for", "lifetime"),
                OPT("out", NULL)},
     .show = ctl_ticket_show},
    {.noun = "entry",
     .verb = "apply",
     .help = "applies a file of agents; --dry-run prints the difference",
     .at_issuer = true,
     .op = "entry.apply",
     .params = {FILE_ARG, FLAG("dry-run", "dryRun")},
     .show = ctl_apply_show},
    {.noun = "entry",
     .verb = "list",
     .help = "the agents and the hosts that may run them",
     .at_issuer = true,
     .op = "entry.list",
     .params = {NUM("limit", NULL), OPT("after", NULL)},
     .paged = true,
     .list = "entries",
     .columns = {{"NAME", "name"},
                 {"OWNER", "owner"},
                 {"HOSTS", "hosts"},
                 {"KEY", "key"},
                 {"PROFILE", "profile"},
                 {"VERSION", "version"}}},
    {.noun = "entry",
     .verb = "show",
     .help = "one agent's entry; of the hosts that it selects 200, or --limit N",
     .at_issuer = true,
     .op = "entry.show",
     .params = {POS("name"), NUM("limit", NULL), OPT("after", NULL)}},
    {.noun = "entry",
     .verb = "delete",
     .help = "removes an agent; its certificates are revoked",
     .at_issuer = true,
     .op = "entry.delete",
     .params = {POS("name")}},
    {.noun = "proposal",
     .verb = "list",
     .help = "what waits for a second person, and what was decided",
     .at_issuer = true,
     .op = "proposal.list",
     .params = {OPT("state", NULL), NUM("limit", NULL), OPT("after", NULL)},
     .paged = true,
     .list = "proposals",
     .columns = {{"ID", "id"},
                 {"OPERATION", "op"},
                 {"STATE", "state"},
                 {"BY", "by"},
                 {"DECIDED BY", "decidedBy"},
                 {"EXPIRES", "expiresAt"}}},
    {.noun = "proposal",
     .verb = "show",
     .help = "one proposal, and what it would do now",
     .at_issuer = true,
     .op = "proposal.show",
     .params = {POS("id")}},
    {.noun = "proposal",
     .verb = "approve",
     .help = "carries out what somebody else proposed",
     .at_issuer = true,
     .op = "proposal.approve",
     .params = {POS("id")}},
    {.noun = "proposal",
     .verb = "reject",
     .help = "closes a proposal",
     .at_issuer = true,
     .op = "proposal.reject",
     .params = {POS("id"), {CTL_OPTION, "reason", NULL, true}}},
    {.noun = "allowlist",
     .verb = "draft",
     .help =
         "an allow list for IMA: of --from FOLDER (evidence, a quote) or LOG, of folders with a "
         "system's files (--merged-usr: /bin is /usr/bin); a draft for review",
     .params = {{CTL_WORDS, "TREE", "trees", false},
                OPT("from", NULL),
                OPT("exclude", NULL),
                FLAG("merged-usr", NULL),
                {CTL_OPTION, "out", NULL, true}},
     .show = ctl_allowlist_draft},
    {.noun = "allowlist",
     .verb = "diff",
     .help = "what changed from one allow list's file to another's; exit 1 where something did",
     .params = {POS("old"), POS("new")},
     .show = ctl_allowlist_diff},
    {.noun = "allowlist",
     .verb = "apply",
     .help = "gives the issuer an allow list; it does nothing until a policy names its SHA-256",
     .at_issuer = true,
     .params = {POS("list"), OPT("label", NULL), FLAG("dry-run", "dryRun")},
     .show = ctl_allowlist_apply},
    {.noun = "allowlist",
     .verb = "list",
     .help = "the issuer's allow lists, and the policies that name them",
     .at_issuer = true,
     .op = "allowlist.list",
     .list = "allowlists",
     .columns = {{"SHA256", "sha256"},
                 {"LABEL", "label"},
                 {"ENTRIES", "entries"},
                 {"BYTES", "bytes"},
                 {"CREATED", "createdAt"},
                 {"POLICIES", "policies"}}},
    {.noun = "allowlist",
     .verb = "delete",
     .help = "removes an allow list that no policy names",
     .at_issuer = true,
     .op = "allowlist.delete",
     .params = {POS("sha256")}},
    {.noun = "policy",
     .verb = "apply",
     .help = "applies a boot policy (JSON, signed where a profile demands it)",
     .at_issuer = true,
     .op = "policy.apply",
     .params = {FILE_ARG, FLAG("dry-run", "dryRun")}},
    {.noun = "policy",
     .verb = "list",
     .help = "the boot policies",
     .at_issuer = true,
     .op = "policy.list",
     .list = "policies",
     .columns = {{"NAME", "name"},
                 {"VERSION", "version"},
                 {"SHA256", "sha256"},
                 {"SIGNED", "signed"},
                 {"FROM", "notBefore"},
                 {"UNTIL", "notAfter"},
                 {"CANNOT BE USED", "error"}}},
    {.noun = "policy",
     .verb = "show",
     .help = "one boot policy: the issuer's by name, or a file (PATH/FILE, or FILE.json)",
     .at_issuer = true,
     .params = {POS("name")},
     .show = ctl_policy_show},
    {.noun = "policy",
     .verb = "sign",
     .help = "signs a policy's file with a P-256 or P-384 key (PEM)",
     .params = {POS("policy"), {CTL_OPTION, "key", NULL, true}, {CTL_OPTION, "out", NULL, true}},
     .show = ctl_policy_sign},
    {.noun = "policy",
     .verb = "test",
     .help = "judges a folder of evidence, or a log (with --values PCRS.json), by a policy's file",
     .params = {POS("policy"), POS("source"), OPT("values", NULL), OPT("pcrs", NULL),
                OPT("at", NULL), OPT("policy-signer", NULL)},
     .show = ctl_policy_test},
    {.noun = "policy",
     .verb = "diff",
     .help = "what changed from one policy's file to another's",
     .params = {POS("old"), POS("new")},
     .show = ctl_policy_diff},
    {.noun = "policy",
     .verb = "mode",
     .help =
         "what a profile (or \"enrolment\") does with findings: enforce, warn, observe, default",
     .at_issuer = true,
     .op = "policy.mode",
     .params = {POS("profile"), POS("mode")}},
    {.noun = "policy",
     .verb = "dryrun",
     .help = "would the hosts' last evidence pass this policy? exit 1 where one would not",
     .at_issuer = true,
     .params = {FILE_ARG, OPT("host", "id"), FLAG("all", NULL)},
     .show = ctl_policy_dryrun},
    {.noun = "cert",
     .verb = "renew",
     .help = "has certificates made up to now renewed, with new evidence (RFC 9773): of one host, "
             "of a profile, one by its serial number, or all",
     .at_issuer = true,
     .op = "cert.renew",
     .params = {FLAG("all", "all"),
                OPT("host", NULL),
                OPT("profile", NULL),
                OPT("serial", NULL),
                {CTL_OPTION, "reason", NULL, true}}},
    {.noun = "cert",
     .verb = "list",
     .help = "certificates that were issued, newest first; 200, or --limit N",
     .at_issuer = true,
     .op = "cert.list",
     .params = {OPT("host", NULL), OPT("name", NULL), OPT("status", NULL), OPT("kind", NULL),
                NUM("limit", NULL), OPT("after", NULL)},
     .paged = true,
     .most = 200,
     .list = "certificates",
     .columns = {{"SERIAL", "serial"},
                 {"KIND", "kind"},
                 {"STATUS", "status"},
                 {"SUBJECT", "subject"},
                 {"PROFILE", "profile"},
                 {"EXPIRES", "notAfter"}}},
    {.noun = "cert",
     .verb = "revoke",
     .help = "revokes a certificate; its host destroys the key",
     .at_issuer = true,
     .op = "cert.revoke",
     .params = {POS("serial"), OPT("reason", NULL)}},
    {.noun = "ca",
     .verb = "status",
     .help = "the issuer's authorities",
     .at_issuer = true,
     .op = "ca.status"},
    {.noun = "issuer",
     .verb = "status",
     .help = "the issuer itself: TLS, hosts, counters",
     .at_issuer = true,
     .op = "status"},
    {.noun = "audit",
     .verb = "list",
     .help = "decision records",
     .at_issuer = true,
     .op = "audit.list",
     .params = {NUM("after", NULL), NUM("limit", NULL), OPT("kind", NULL), OPT("subject", NULL)},
     .list = "records",
     .columns = {{"SEQ", "seq"},
                 {"AT", "at"},
                 {"KIND", "record.kind"},
                 {"OUTCOME", "record.outcome"},
                 {"REASON", "record.reason"},
                 {"SUBJECT", "record.subject"},
                 {"DETAIL", "record.detail"}}},
    {.noun = "audit",
     .verb = "why",
     .help = "why something was granted or refused: by audit number, serial, order, host or agent",
     .at_issuer = true,
     .op = "audit.why",
     .params = {POS("id")},
     .show = ctl_why_show},
    {.noun = "audit",
     .verb = "verify",
     .help = "checks the issuer's records; or a published log (folder, https address), by its key",
     .at_issuer = true,
     .params = {POS_OPT("source"), OPT("key", NULL), OPT("tpm-key", NULL), OPT("since", NULL),
                OPT("save", NULL), OPT("ca", NULL)},
     .show = ctl_audit_verify},
    {.noun = "audit",
     .verb = "prove",
     .help = "the proof, as JSON, that a decision is in the log; ids as of `audit why`",
     .at_issuer = true,
     .op = "audit.prove",
     .params = {POS("id")},
     .show = ctl_json_show},
    {.noun = "audit",
     .verb = "export",
     .help = "decisions with their proofs into a folder, a line each; goes on where it ended",
     .at_issuer = true,
     .params = {{CTL_OPTION, "out", NULL, true},
                OPT("profile", NULL),
                OPT("before", NULL),
                NUM("limit", NULL)},
     .show = ctl_audit_export},
    {.noun = "audit",
     .verb = "check",
     .help = "checks such a proof, or each line of an export's file; needs no issuer",
     .params = {FILE_ARG, {CTL_OPTION, "key", NULL, true}, OPT("tpm-key", NULL)},
     .show = ctl_audit_check},
    {.noun = "audit",
     .verb = "erase",
     .help = "empties a record; its place in the log stays, and who erased it is recorded",
     .at_issuer = true,
     .op = "audit.erase",
     .params = {{CTL_NUMBER, "seq", NULL, true}, {CTL_OPTION, "reason", NULL, true}}},
    {.noun = NULL},
};

enum ctl_exit ctl_ticket_show(const struct ctl_ctx *ctx, const struct ctl_args *args,
                              const json_t *result)
{
    const json_t *ticket = json_object_get(result, "ticket");
    if (!args->out) {
        /* The ticket alone, ready for a file or a pipeline's secret store. */
        ctl_print_json(ctx->json ? result : ticket);
        return CTL_OK;
    }
    att_autobuf text = {0};
    struct att_err err = {0};
    enum att_rc rc = att_json_dump(ticket, false, &text, &err);
    att_buf_u8(&text, '\n');
    if (rc == ATT_OK) {
        rc = att_io_write_file(args->out, att_buf_slice(&text), 0600, &err);
    }
    if (rc != ATT_OK) {
        return ctl_report(&err);
    }
    char kid[64], expires[64];
    printf("ticket %s: written to %s, expires %s\n", ctl_text(ticket, "kid", kid, sizeof kid),
           args->out, ctl_text(result, "expires", expires, sizeof expires));
    return CTL_OK;
}

enum ctl_exit ctl_json_show(const struct ctl_ctx *ctx, const struct ctl_args *args,
                            const json_t *result)
{
    (void)ctx;
    (void)args;
    ctl_print_json(result);
    return CTL_OK;
}

enum ctl_exit ctl_apply_show(const struct ctl_ctx *ctx, const struct ctl_args *args,
                             const json_t *result)
{
    const json_t *warnings = json_object_get(result, "warnings");
    (void)args;
    if (ctx->json) {
        ctl_print_json(result);
        return CTL_OK;
    }
    for (size_t i = 0; i < json_array_size(warnings); i++) {
        att_autojson *one = json_pack("{s:O}", "text", json_array_get(warnings, i));
        char cell[600];
        fprintf(stderr, "attestctl: warning: %s\n", ctl_text(one, "text", cell, sizeof cell));
    }
    att_autojson *rest = json_copy((json_t *)(uintptr_t)result);
    json_object_del(rest, "warnings");
    ctl_print_object(rest, 0);
    return CTL_OK;
}
