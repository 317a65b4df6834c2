/* Files of sealing: the record of the storage parent, the folder of signed PCR policies, tickets.
 */
#include "attestd/keyd/internal.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/base/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RECORD_FILE "parent.json"
#define RECORD_MAX  4096
#define TICKET_FILE "tickets.json"
#define TICKETS_MAX ((size_t)256 << 10)

static const char *const mode_names[] = {"none", "7", "signed"};

/* ---- parent.json --------------------------------------------------------------------------- */

static enum att_rc read_json(struct keyd *keyd, const char *name, size_t max, json_t **ret,
                             struct att_err *err)
{
    char path[KEYD_PATH_MAX];
    att_autobuf text = ATT_BUF_INIT(max);
    struct att_err why = {0};
    enum att_rc rc = keyd_path(keyd, name, path, err);
    if (rc == ATT_OK) {
        rc = att_io_read_file(path, max, &text, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    rc = att_json_parse(att_buf_slice(&text), max, ret, &why);
    if (rc == ATT_OK && !json_is_object(*ret)) {
        rc = att_fail(&why, ATT_E_PARSE, "expected an object");
    }
    return rc == ATT_OK ? rc : att_fail(err, ATT_E_PARSE, "%s: %s", name, why.msg);
}

static enum att_rc take_counter(const json_t *record, uint32_t *ret, struct att_err *err)
{
    const json_t *counter = json_object_get(record, "counter");
    json_int_t index = json_integer_value(json_object_get(counter, "index"));
    const char *name = json_string_value(json_object_get(counter, "name"));
    struct parse_name want;
    char hex[2 * sizeof want.bytes + 1];
    if (!counter) {
        return ATT_OK;
    }
    if (index < 0 || index > UINT32_MAX || !parse_seal_counter_ok((uint32_t)index) || !name) {
        return att_fail(err, ATT_E_PARSE, "counter: expected index and name");
    }
    parse_seal_counter_name((uint32_t)index, &want);
    att_hex(hex, parse_name_slice(&want));
    if (strcmp(hex, name) != 0) {
        return att_fail(err, ATT_E_PARSE, "counter: the name is not that of a policy counter");
    }
    *ret = (uint32_t)index;
    return ATT_OK;
}

static enum att_rc take_record(struct keyd *keyd, const json_t *record, struct att_err *err)
{
    struct keyd_seal *seal = &keyd->seal;
    const char *mode = json_string_value(json_object_get(record, "pcr"));
    const json_t *pcrs = json_object_get(record, "pcrs");
    size_t members = 2u + (json_object_get(record, "counter") != NULL) + (pcrs != NULL);
    if (json_integer_value(json_object_get(record, "version")) != 1 || !mode ||
        json_object_size(record) != members) {
        return att_fail(err, ATT_E_PARSE, "expected version 1, pcr, and perhaps counter and pcrs");
    }
    if (strcmp(mode, mode_names[seal->mode]) != 0) {
        enum att_rc rc = att_fail(err, ATT_E_CONFLICT,
                                  "tpm.pcr is %s, but this host's keys were sealed with pcr: %s "
                                  "(another mode needs a new enrolment: docs/OPERATIONS.md)",
                                  mode_names[seal->mode], mode);
        att_err_reason(err, "sealingMode");
        return rc;
    }
    uint32_t counter = seal->counter;
    enum att_rc rc = take_counter(record, &counter, err);
    if (rc == ATT_OK) {
        pthread_mutex_lock(&keyd->lock);
        seal->counter = counter;
        pthread_mutex_unlock(&keyd->lock);
    }
    if (rc == ATT_OK && seal->mode == KEYD_PCR_7) {
        rc = parse_pcr_set_from_json(pcrs, NULL, &seal->own, err);
    }
    return rc;
}

enum att_rc keyd_seal_read_record(struct keyd *keyd, struct att_err *err)
{
    att_autojson *record = NULL;
    struct att_err why = {0};
    enum att_rc rc = read_json(keyd, RECORD_FILE, RECORD_MAX, &record, &why);
    if (rc == ATT_OK) {
        rc = take_record(keyd, record, &why);
    }
    if (rc == ATT_E_PARSE || rc == ATT_E_LIMIT) {
        rc = keyd_state_bad(keyd, RECORD_FILE, err);
        return rc == ATT_OK ? att_fail(err, ATT_E_CONFLICT, "%s: %s (set aside as .bad)",
                                       RECORD_FILE, why.msg)
                            : rc;
    }
    if (rc != ATT_OK && err) {
        *err = why;
    }
    return rc;
}

enum att_rc keyd_seal_record(struct keyd *keyd, struct att_err *err)
{
    const struct keyd_seal *seal = &keyd->seal;
    char path[KEYD_PATH_MAX];
    if (seal->mode == KEYD_PCR_NONE) {
        return ATT_OK;
    }
    att_autobuf text = ATT_BUF_INIT(RECORD_MAX);
    att_autojson *record = json_pack("{s:i, s:s}", "version", 1, "pcr", mode_names[seal->mode]);
    enum att_rc rc = record ? ATT_OK : att_fail(err, ATT_E_NOMEM, RECORD_FILE);
    if (rc == ATT_OK && seal->counter) {
        struct parse_name name;
        char hex[2 * sizeof name.bytes + 1];
        parse_seal_counter_name(seal->counter, &name);
        att_hex(hex, parse_name_slice(&name));
        json_object_set_new(
            record, "counter",
            json_pack("{s:I, s:s}", "index", (json_int_t)seal->counter, "name", hex));
    }
    if (rc == ATT_OK && seal->mode == KEYD_PCR_7) {
        json_t *pcrs = NULL;
        rc = parse_pcr_set_json(&seal->own, &pcrs, err);
        json_object_set_new(record, "pcrs", pcrs);
    }
    if (rc == ATT_OK) {
        rc = att_json_dump(record, false, &text, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_path(keyd, RECORD_FILE, path, err);
    }
    return rc == ATT_OK ? att_io_write_file(path, att_buf_slice(&text), 0600, err) : rc;
}

/* ---- the policies' folder ------------------------------------------------------------------ */

static int is_policy_file(const struct dirent *entry)
{
    size_t len = strlen(entry->d_name);
    return entry->d_name[0] != '.' && len > 5 && strcmp(entry->d_name + len - 5, ".json") == 0;
}

static enum att_rc read_policy(const struct keyd_seal *seal, const char *file,
                               struct parse_pcr_policy **ret, struct att_err *err)
{
    char path[KEYD_PATH_MAX];
    att_autobuf text = ATT_BUF_INIT(PARSE_PCR_POLICY_MAX);
    int len = snprintf(path, sizeof path, "%s/%s", seal->policies_dir, file);
    if (len < 0 || (size_t)len >= sizeof path) {
        return att_fail(err, ATT_E_INVAL, "path too long");
    }
    enum att_rc rc = att_io_read_file(path, PARSE_PCR_POLICY_MAX, &text, err);
    if (rc == ATT_OK) {
        rc = parse_pcr_policy_parse(att_buf_slice(&text), ret, err);
    }
    return rc;
}

/* One whose boots are all of banks that this TPM lacks can open nothing here. */
static enum att_rc check_bank(struct keyd *keyd, const struct parse_pcr_policy *policy,
                              struct att_err *err)
{
    pthread_mutex_lock(&keyd->lock);
    const struct tpm_info info = keyd->info;
    pthread_mutex_unlock(&keyd->lock);
    for (size_t i = 0; i < policy->n_boots; i++) {
        if (tpm_info_has_bank(&info, policy->boots[i].pcrs.sel.bank)) {
            return ATT_OK;
        }
    }
    enum att_rc rc =
        att_fail(err, ATT_E_UNSUPPORTED, "for PCRs of bank 0x%04x, which this TPM does not have",
                 policy->boots[0].pcrs.sel.bank);
    att_err_reason(err, "policyBank");
    return rc;
}

static enum att_rc check_policy(struct keyd *keyd, const struct parse_pcr_policy *policy,
                                struct att_err *err)
{
    const struct keyd_seal *seal = &keyd->seal;
    enum att_rc rc = parse_pcr_policy_verify(policy, &seal->key, seal->policy_ref, err);
    if (rc == ATT_OK) {
        rc = parse_pcr_policy_check_time(policy, att_now_utc_s(), err);
    }
    if (rc == ATT_OK) {
        rc = check_bank(keyd, policy, err);
    }
    if (rc == ATT_OK && policy->counter && seal->counter && policy->counter != seal->counter) {
        rc = att_fail(err, ATT_E_CONFLICT,
                      "names counter 0x%08" PRIx32 ", this host has 0x%08" PRIx32, policy->counter,
                      seal->counter);
        att_err_reason(err, "policyCounterIndex");
    }
    /* A host that counts takes no policy that does not: it could be as old as can be. */
    if (rc == ATT_OK && !policy->counter && !policy->recovery && seal->counter) {
        rc = att_fail(err, ATT_E_CONFLICT, "names no counter, and this host has one");
        att_err_reason(err, "policyCounterNone");
    }
    if (rc == ATT_OK && !policy->recovery && seal->counter_missing) {
        rc = att_fail(err, ATT_E_DENIED, "the policy counter is missing: only a recovery helps");
        att_err_reason(err, "counterMissing");
    }
    return rc;
}

/* What one look at the folder finds. Of policies that are good only as many are held as can be in
 * force, so that a full folder takes neither memory nor the newest ones' place. */
struct look {
    struct keyd_policy_file *files; /* KEYD_POLICY_FILES_MAX */
    struct att_err *why;            /* of each; {0}: none */
    size_t n;
    struct held {
        struct parse_pcr_policy *policy;
        size_t file;
        bool taken;
    } held[2 * KEYD_POLICIES_MAX]; /* at most KEYD_POLICIES_MAX recoveries, and as many others */
    size_t n_held;
};

static void look_done(struct look *look)
{
    for (size_t i = 0; i < look->n_held; i++) {
        parse_pcr_policy_free(look->held[i].policy);
    }
    free(look->files);
    free(look->why);
}

static enum att_rc look_new(struct look *ret, struct att_err *err)
{
    ret->files = calloc(KEYD_POLICY_FILES_MAX, sizeof *ret->files);
    ret->why = calloc(KEYD_POLICY_FILES_MAX, sizeof *ret->why);
    return ret->files && ret->why ? ATT_OK : att_fail(err, ATT_E_NOMEM, "no memory for policies");
}

static void leave_out(struct look *look, size_t file)
{
    struct att_err *why = &look->why[file];
    (void)!att_fail(why, ATT_E_LIMIT,
                    "left out: there are newer ones, and room for %d policies of "
                    "%d boots",
                    KEYD_POLICIES_MAX, TPM_APPROVALS_MAX);
    att_err_reason(why, "policyLeftOut");
}

/* Takes over *policy. */
static void hold(struct look *look, struct parse_pcr_policy **policy, size_t file)
{
    struct held *worst = NULL;
    size_t n = 0;
    for (size_t i = 0; i < look->n_held; i++) {
        struct held *held = &look->held[i];
        if (held->policy->recovery == (*policy)->recovery) {
            n++;
            worst = !worst || held->policy->version < worst->policy->version ? held : worst;
        }
    }
    if (n < KEYD_POLICIES_MAX) {
        worst = &look->held[look->n_held++];
    } else if (worst->policy->version >= (*policy)->version) {
        leave_out(look, file);
        return;
    } else {
        leave_out(look, worst->file);
        parse_pcr_policy_free(worst->policy);
    }
    *worst = (struct held){.policy = *policy, .file = file};
    *policy = NULL;
}

static void look_at(struct keyd *keyd, const char *file, struct look *look)
{
    parse_autopcrpolicy *policy = NULL;
    size_t at = look->n++;
    struct keyd_policy_file *now = &look->files[at];
    enum att_rc rc = read_policy(&keyd->seal, file, &policy, &look->why[at]);
    if (rc == ATT_OK) {
        rc = check_policy(keyd, policy, &look->why[at]);
    }
    snprintf(now->file, sizeof now->file, "%.*s", (int)sizeof now->file - 1, file);
    if (policy) {
        snprintf(now->name, sizeof now->name, "%s", policy->name);
        now->version = policy->version;
        now->recovery = policy->recovery;
    }
    if (rc == ATT_OK) {
        hold(look, &policy, at);
    }
}

static int by_version(const void *a, const void *b)
{
    const struct held *one = a, *other = b;
    const struct parse_pcr_policy *x = one->policy, *y = other->policy;
    if (x->recovery != y->recovery) {
        return x->recovery ? 1 : -1; /* what needs no recovery does not use one */
    }
    return x->version < y->version ? 1 : x->version > y->version ? -1 : 0;
}

/* Newest first as many as fit; recovery approvals have a share of their own that others cannot
 * take, nor they more while others wait. */
static void choose(struct look *look)
{
    static const struct {
        bool recovery;
        size_t policies, boots;
    } rounds[] = {
        {true, KEYD_POLICIES_MAX / 4, PARSE_PCR_POLICY_BOOTS_MAX},
        {false, KEYD_POLICIES_MAX, TPM_APPROVALS_MAX},
        {true, KEYD_POLICIES_MAX, TPM_APPROVALS_MAX},
    };
    size_t policies = 0, boots = 0;
    qsort(look->held, look->n_held, sizeof look->held[0], by_version);
    for (size_t r = 0; r < sizeof rounds / sizeof rounds[0]; r++) {
        for (size_t i = 0; i < look->n_held; i++) {
            struct held *held = &look->held[i];
            if (!held->taken && held->policy->recovery == rounds[r].recovery &&
                policies < rounds[r].policies && boots + held->policy->n_boots <= rounds[r].boots) {
                held->taken = true;
                policies++;
                boots += held->policy->n_boots;
            }
        }
    }
    for (size_t i = 0; i < look->n_held; i++) {
        if (!look->held[i].taken) {
            leave_out(look, look->held[i].file);
        }
    }
}

static bool is_news(const struct keyd_seal *seal, const struct keyd_policy_file *now)
{
    for (size_t i = 0; i < seal->n_files; i++) {
        if (strcmp(seal->files[i].file, now->file) == 0) {
            return strcmp(seal->files[i].state, now->state) != 0;
        }
    }
    return true;
}

/* For INFO; said once of each file that is of no use. */
static void publish(struct keyd *keyd, struct look *look)
{
    bool news[KEYD_POLICY_FILES_MAX] = {false};
    for (size_t i = 0; i < look->n; i++) {
        const struct att_err *why = &look->why[i];
        snprintf(look->files[i].state, sizeof look->files[i].state, "%s",
                 why->rc == ATT_OK     ? "ok"
                 : why->reason[0] != 0 ? why->reason
                                       : att_rc_name(why->rc));
    }
    pthread_mutex_lock(&keyd->lock);
    for (size_t i = 0; i < look->n; i++) {
        news[i] = look->why[i].rc != ATT_OK && is_news(&keyd->seal, &look->files[i]);
    }
    memcpy(keyd->seal.files, look->files, look->n * sizeof look->files[0]);
    keyd->seal.n_files = look->n;
    pthread_mutex_unlock(&keyd->lock);
    for (size_t i = 0; i < look->n; i++) {
        if (news[i]) {
            keyd_tell(keyd, KEYD_EVENT_POLICY, look->files[i].file, &look->why[i]);
        }
    }
}

static enum att_rc add_all(struct keyd *keyd, const struct look *look,
                           struct tpm_parent_policy *policy, struct att_err *err)
{
    enum att_rc rc = ATT_OK;
    keyd->seal.counter_wanted = 0;
    for (size_t i = 0; rc == ATT_OK && i < look->n_held; i++) {
        const struct held *held = &look->held[i];
        if (!held->taken) {
            continue;
        }
        rc = tpm_parent_policy_add(policy, held->policy, err);
        if (!keyd->seal.counter_wanted) {
            keyd->seal.counter_wanted = held->policy->counter;
        }
    }
    return rc;
}

static void look_through(struct keyd *keyd, struct look *look)
{
    struct dirent **names = NULL;
    int count = scandir(keyd->seal.policies_dir, &names, is_policy_file, alphasort);
    size_t n = count > 0 ? (size_t)count : 0;
    for (size_t i = 0; i < n; i++) {
        if (i < KEYD_POLICY_FILES_MAX) {
            look_at(keyd, names[i]->d_name, look);
        }
        free(names[i]);
    }
    free(names);
    if (n > KEYD_POLICY_FILES_MAX) {
        struct att_err many = {0};
        (void)!att_fail(&many, ATT_E_LIMIT, "%zu policies: the first %d are looked at", n,
                        KEYD_POLICY_FILES_MAX);
        keyd_tell(keyd, KEYD_EVENT_POLICY, keyd->seal.policies_dir, &many);
    }
}

enum att_rc keyd_seal_read_policies(struct keyd *keyd, struct tpm_parent_policy *ret_policy,
                                    struct att_err *err)
{
    ATT_CLEANUP(look_done) struct look look = {0};
    tpm_autoparentpolicy policy = {0};
    enum att_rc rc = look_new(&look, err);
    if (rc == ATT_OK) {
        look_through(keyd, &look);
        choose(&look);
        publish(keyd, &look);
        rc = parse_public_encode(&keyd->seal.key, &policy.key, err);
    }
    if (rc == ATT_OK) {
        snprintf(policy.ref, sizeof policy.ref, "%s", keyd->seal.policy_ref);
        rc = add_all(keyd, &look, &policy, err);
    }
    if (rc == ATT_OK) {
        *ret_policy = policy;
        policy = (struct tpm_parent_policy){0};
    }
    return rc;
}

/* What cannot be opened was not read either; EINVAL, EROFS: a file system without anything to write
 * back. */
static enum att_rc sync_path(const char *path, struct att_err *err)
{
    att_autofd fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    return fd < 0 || fsync(fd) == 0 || errno == EINVAL || errno == EROFS
               ? ATT_OK
               : att_fail_errno(err, ATT_E_IO, "fsync %s", path);
}

enum att_rc keyd_seal_sync_policies(const struct keyd *keyd, struct att_err *err)
{
    const char *dir = keyd->seal.policies_dir;
    struct dirent **names = NULL;
    int count = scandir(dir, &names, is_policy_file, alphasort);
    enum att_rc rc = count < 0 ? att_fail_errno(err, ATT_E_IO, "%s", dir) : ATT_OK;
    for (int i = 0; i < count; i++) {
        char path[KEYD_PATH_MAX];
        int len = snprintf(path, sizeof path, "%s/%s", dir, names[i]->d_name);
        if (rc == ATT_OK && i < KEYD_POLICY_FILES_MAX && len > 0 && (size_t)len < sizeof path) {
            rc = sync_path(path, err);
        }
        free(names[i]);
    }
    free(names);
    return rc == ATT_OK ? sync_path(dir, err) : rc;
}

/* ---- tickets ------------------------------------------------------------------------------- */

void keyd_seal_read_tickets(struct keyd *keyd, struct tpm_parent_policy *policy)
{
    att_autojson *json = NULL;
    struct att_err err = {0};
    enum att_rc rc = read_json(keyd, TICKET_FILE, TICKETS_MAX, &json, &err);
    if (rc == ATT_E_PARSE && keyd_state_bad(keyd, TICKET_FILE, NULL) != ATT_OK) {
        return; /* without them the TPM looks at the signatures again */
    }
    for (size_t i = 0; rc == ATT_OK && i < policy->n; i++) {
        char hex[2 * PARSE_PCR_POLICY_SIG_LEN + 1];
        att_autobuf bytes = ATT_BUF_INIT(TPM_TICKET_MAX);
        att_hex(hex, ATT_SLICE_ARRAY(policy->approvals[i].sig));
        const char *text = json_string_value(json_object_get(json, hex));
        if (text && att_unhex(&bytes, att_slice_str(text), NULL) == ATT_OK && bytes.len) {
            memcpy(policy->approvals[i].ticket.bytes, bytes.ptr, bytes.len);
            policy->approvals[i].ticket.len = bytes.len;
        }
    }
}

void keyd_seal_write_tickets(struct keyd *keyd, const struct tpm_context *ctx)
{
    struct tpm_ticket kept;
    uint8_t by[PARSE_PCR_POLICY_SIG_LEN];
    char path[KEYD_PATH_MAX];
    att_autobuf text = ATT_BUF_INIT(TICKETS_MAX);
    att_autojson *json = json_object();
    for (size_t i = 0; tpm_parent_ticket(ctx, i, by, &kept); i++) {
        char sig[2 * PARSE_PCR_POLICY_SIG_LEN + 1], ticket[2 * TPM_TICKET_MAX + 1];
        if (kept.len) {
            att_hex(sig, ATT_SLICE_ARRAY(by));
            att_hex(ticket, ATT_SLICE(kept.bytes, kept.len));
            json_object_set_new(json, sig, json_string(ticket));
        }
    }
    struct att_err err = {0};
    if (!json || att_json_dump(json, true, &text, &err) != ATT_OK ||
        keyd_path(keyd, TICKET_FILE, path, &err) != ATT_OK ||
        att_io_write_file(path, att_buf_slice(&text), 0600, &err) != ATT_OK) {
        keyd_tell(keyd, KEYD_EVENT_BAD, TICKET_FILE, &err); /* slower the next time, no more */
    }
}
