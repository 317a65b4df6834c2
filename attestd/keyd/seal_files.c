/* Files of sealing: the record of the storage parent, the folder of signed PCR policies, tickets.
 */
#include "attestd/keyd/internal.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/base/io.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    enum att_rc rc = take_counter(record, &seal->counter, err);
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

static int by_version(const void *a, const void *b)
{
    const struct parse_pcr_policy *const *x = a, *const *y = b;
    if ((*x)->recovery != (*y)->recovery) {
        return (*x)->recovery ? 1 : -1; /* what needs no recovery does not use one */
    }
    return (*x)->version < (*y)->version ? 1 : (*x)->version > (*y)->version ? -1 : 0;
}

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

static enum att_rc check_policy(const struct keyd_seal *seal, const struct parse_pcr_policy *policy,
                                struct att_err *err)
{
    enum att_rc rc = parse_pcr_policy_verify(policy, &seal->key, seal->policy_ref, err);
    if (rc == ATT_OK) {
        rc = parse_pcr_policy_check_time(policy, att_now_utc_s(), err);
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

/* True when the file's state is another one than at the last look. */
static bool note_file(struct keyd *keyd, size_t at, const char *file,
                      const struct parse_pcr_policy *policy, const struct att_err *why)
{
    struct keyd_policy_file now = {.recovery = policy && policy->recovery,
                                   .version = policy ? policy->version : 0};
    snprintf(now.file, sizeof now.file, "%s", file);
    snprintf(now.name, sizeof now.name, "%s", policy ? policy->name : "");
    snprintf(now.state, sizeof now.state, "%s",
             why->rc == ATT_OK     ? "ok"
             : why->reason[0] != 0 ? why->reason
                                   : att_rc_name(why->rc));
    pthread_mutex_lock(&keyd->lock);
    struct keyd_policy_file *old = &keyd->seal.files[at];
    bool news = at >= keyd->seal.n_files || strcmp(old->file, now.file) != 0 ||
                strcmp(old->state, now.state) != 0;
    *old = now;
    if (keyd->seal.n_files <= at) {
        keyd->seal.n_files = at + 1;
    }
    pthread_mutex_unlock(&keyd->lock);
    return news;
}

struct read {
    struct parse_pcr_policy *list[KEYD_POLICIES_MAX];
    size_t n;
};

static void read_done(struct read *read)
{
    for (size_t i = 0; i < read->n; i++) {
        parse_pcr_policy_free(read->list[i]);
    }
}

static void read_file(struct keyd *keyd, size_t at, const char *file, struct read *read)
{
    parse_autopcrpolicy *policy = NULL;
    struct att_err why = {0};
    enum att_rc rc = read_policy(&keyd->seal, file, &policy, &why);
    if (rc == ATT_OK) {
        rc = check_policy(&keyd->seal, policy, &why);
    }
    if (note_file(keyd, at, file, policy, &why) && rc != ATT_OK) {
        keyd_tell(keyd, KEYD_EVENT_POLICY, file, &why);
    }
    if (rc == ATT_OK) {
        read->list[read->n++] = policy;
        policy = NULL;
    }
}

static enum att_rc add_all(struct keyd *keyd, const struct read *read,
                           struct tpm_parent_policy *policy, struct att_err *err)
{
    enum att_rc rc = ATT_OK;
    keyd->seal.counter_wanted = 0;
    for (size_t i = 0; rc == ATT_OK && i < read->n; i++) {
        rc = tpm_parent_policy_add(policy, read->list[i], err);
        if (!keyd->seal.counter_wanted) {
            keyd->seal.counter_wanted = read->list[i]->counter;
        }
    }
    return rc;
}

enum att_rc keyd_seal_read_policies(struct keyd *keyd, struct tpm_parent_policy *ret_policy,
                                    struct att_err *err)
{
    struct dirent **names = NULL;
    ATT_CLEANUP(read_done) struct read read = {0};
    tpm_autoparentpolicy policy = {0};
    int count = scandir(keyd->seal.policies_dir, &names, is_policy_file, alphasort);
    size_t n = count > 0 ? (size_t)count : 0;
    for (size_t i = 0; i < n; i++) {
        if (i < KEYD_POLICIES_MAX) {
            read_file(keyd, i, names[i]->d_name, &read);
        }
        free(names[i]);
    }
    free(names);
    pthread_mutex_lock(&keyd->lock);
    keyd->seal.n_files = n < KEYD_POLICIES_MAX ? n : KEYD_POLICIES_MAX;
    pthread_mutex_unlock(&keyd->lock);
    if (n > KEYD_POLICIES_MAX) {
        struct att_err many = {0};
        (void)!att_fail(&many, ATT_E_LIMIT, "%zu policies: the first %d are looked at", n,
                        KEYD_POLICIES_MAX);
        keyd_tell(keyd, KEYD_EVENT_POLICY, names ? keyd->seal.policies_dir : "", &many);
    }
    qsort(read.list, read.n, sizeof read.list[0], by_version);
    enum att_rc rc = parse_public_encode(&keyd->seal.key, &policy.key, err);
    if (rc == ATT_OK) {
        snprintf(policy.ref, sizeof policy.ref, "%s", keyd->seal.policy_ref);
        rc = add_all(keyd, &read, &policy, err);
    }
    if (rc == ATT_OK) {
        *ret_policy = policy;
        policy = (struct tpm_parent_policy){0};
    }
    return rc;
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
