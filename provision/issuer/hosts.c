/* The inventory: which TPM is which host, and what its state entails. */
#include "provision/issuer/ca.h"
#include "provision/issuer/revoke.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum att_rc issuer_host_new(const char *id, const char *state, const char *ek_source, int64_t now,
                            struct store_host *ret_host, struct att_err *err)
{
    struct store_host h = {.created_at = now, .updated_at = now};
    bool ok = issuer_set(&h.id, id) && issuer_set(&h.label, "") && issuer_set(&h.labels, "{}") &&
              issuer_set(&h.state, state) && issuer_set(&h.account, "") &&
              issuer_set(&h.reason, "") && issuer_set(&h.manufacturer, "") &&
              issuer_set(&h.model, "") && issuer_set(&h.version, "") &&
              issuer_set(&h.ek_source, ek_source) && issuer_set(&h.notes, "{}") &&
              issuer_set(&h.registered_by, "");
    if (!ok) {
        store_record_done(&store_hosts, &h);
        return att_fail(err, ATT_E_NOMEM, "host: no memory");
    }
    *ret_host = h;
    return ATT_OK;
}

enum att_rc issuer_host_by_account(struct store_tx *tx, const char *thumbprint,
                                   struct store_host *ret_host, struct att_err *err)
{
    enum att_rc rc = store_find(tx, &store_hosts, "account", thumbprint, ret_host, NULL);
    if (rc == ATT_E_NOTFOUND) {
        return issuer_refuse(err, ATT_E_DENIED, "hostUnknown",
                             "no host has enrolled with this account");
    }
    return rc ? att_fail(err, rc, "hosts cannot be read") : ATT_OK;
}

enum att_rc issuer_host_check(const struct store_host *host, struct att_err *err)
{
    if (strcmp(host->state, STORE_HOST_APPROVED) == 0) {
        return ATT_OK;
    }
    if (strcmp(host->state, STORE_HOST_BANNED) == 0) {
        return issuer_refuse(err, ATT_E_DENIED, "hostBanned", "host %.12s is banned: %s", host->id,
                             host->reason);
    }
    return issuer_refuse(err, ATT_E_DENIED, "hostUnknown",
                         "host %.12s is pending: an operator has to approve it", host->id);
}

/* ---- one TPM, several EKs
 * --------------------------------------------------------------------------------
 * An EK id belongs to the host that proved it (or that an operator made by it). What a host lists
 * beside its own is a claim: certificates are no secret, so anybody may claim anybody's EK. A claim
 * therefore takes nothing from others; it holds against the one who made it, and the claim of a
 * banned host sends a newcomer to an operator. */

static enum att_rc host_of_ek(struct store_tx *tx, const char *ek, struct store_host *ret_host,
                              bool *ret_found, struct att_err *err)
{
    struct store_host_ek row = {0};
    *ret_found = false;
    enum att_rc rc = store_get(tx, &store_host_eks, ek, &row, NULL);
    if (rc == ATT_E_NOTFOUND) {
        return ATT_OK;
    }
    rc = rc ? att_fail(err, rc, "EK ids cannot be read")
            : store_get(tx, &store_hosts, row.host, ret_host, err);
    store_record_done(&store_host_eks, &row);
    *ret_found = !rc;
    return rc;
}

static enum att_rc banned(const struct store_host *host, const char *ek, struct att_err *err)
{
    return issuer_refuse(err, ATT_E_DENIED, "hostBanned",
                         "EK %.12s belongs to the banned host %.12s", ek, host->id);
}

/* Who lists this EK. */
struct claims {
    struct store_tx *tx;
    const struct store_host *mine;
    const char *ak_name;
    bool by_me;
    char same[VERIFY_ID_HEX];   /* the claiming host with this very AK: it is this TPM */
    char banned[VERIFY_ID_HEX]; /* a banned host that claims it */
};

static enum att_rc look_at_claim(void *user, const void *record, struct att_err *err)
{
    struct claims *c = user;
    const struct store_ek_claim *claim = record;
    struct store_host host = {0};
    enum att_rc rc = store_get(c->tx, &store_hosts, claim->host, &host, err);
    if (rc) {
        return rc;
    }
    /* The AK is a primary of the endorsement hierarchy: one Name, one TPM. */
    att_autojson *notes = issuer_json(host.notes);
    if (strcmp(issuer_string(notes, "akName"), c->ak_name) == 0) {
        snprintf(c->same, sizeof c->same, "%s", host.id);
    }
    if (strcmp(host.state, STORE_HOST_BANNED) == 0) {
        snprintf(c->banned, sizeof c->banned, "%s", host.id);
    }
    c->by_me = c->by_me || (c->mine && strcmp(host.id, c->mine->id) == 0);
    store_record_done(&store_hosts, &host);
    return ATT_OK;
}

/* One EK that the TPM listed beside its own. mine: the host it is, or NULL for a new one. */
static enum att_rc check_other(struct store_tx *tx, const char *ek, const struct issuer_tpm *tpm,
                               const struct store_host *mine, char disputed[VERIFY_ID_HEX],
                               struct att_err *err)
{
    struct store_host owner = {0};
    struct claims claims = {.tx = tx, .mine = mine, .ak_name = tpm->ak_name};
    bool found = false;
    enum att_rc rc = host_of_ek(tx, ek, &owner, &found, err);
    bool own = found && mine && strcmp(owner.id, mine->id) == 0;
    if (!rc && found && strcmp(owner.state, STORE_HOST_BANNED) == 0) {
        rc = banned(&owner, ek, err);
    } else if (!rc && found && !own) {
        rc = issuer_refuse(err, ATT_E_DENIED, "hostUnknown",
                           "the TPM lists EK %.12s, which host %.12s has proved to be its own", ek,
                           owner.id);
    }
    store_record_done(&store_hosts, &owner);
    if (rc || own) {
        return rc;
    }
    rc = store_each(tx, &store_ek_claims, "ek", ek, look_at_claim, &claims, err);
    if (rc || claims.by_me) {
        return rc;
    }
    if (mine && mine->account[0]) {
        return issuer_refuse(err, ATT_E_DENIED, "hostUnknown",
                             "host %.12s lists EK %.12s, which it did not have when it enrolled",
                             mine->id, ek);
    }
    if (claims.banned[0]) {
        memcpy(disputed, claims.banned, VERIFY_ID_HEX);
    }
    return ATT_OK;
}

/* The host that has the TPM's own EK, or that is the same TPM by its AK. The AK proves that only
 * beside an EK which is a TPM's: a key on disk "activates" credentials for any AK. Against a banned
 * host's AK it counts all the same. */
static enum att_rc find_own(struct store_tx *tx, const struct issuer_tpm *tpm,
                            struct store_host *ret_host, bool *ret_found,
                            char disputed[VERIFY_ID_HEX], struct att_err *err)
{
    enum att_rc rc = host_of_ek(tx, tpm->ek, ret_host, ret_found, err);
    if (rc || *ret_found) {
        return rc;
    }
    struct claims claims = {.tx = tx, .ak_name = tpm->ak_name};
    rc = store_each(tx, &store_ek_claims, "ek", tpm->ek, look_at_claim, &claims, err);
    if (!rc && claims.same[0] && (tpm->certified || strcmp(claims.same, claims.banned) == 0)) {
        rc = store_get(tx, &store_hosts, claims.same, ret_host, err);
        *ret_found = !rc;
    } else if (!rc && claims.banned[0]) {
        memcpy(disputed, claims.banned, VERIFY_ID_HEX);
    }
    return rc;
}

enum att_rc issuer_host_resolve(struct store_tx *tx, struct issuer_tpm *tpm,
                                struct store_host *ret_host, bool *ret_found, struct att_err *err)
{
    struct store_host host = {0};
    bool found = false;
    tpm->disputed[0] = 0;
    enum att_rc rc = find_own(tx, tpm, &host, &found, tpm->disputed, err);
    if (!rc && found && strcmp(host.state, STORE_HOST_BANNED) == 0) {
        rc = banned(&host, tpm->ek, err);
    }
    size_t i;
    json_t *other;
    json_array_foreach(tpm->others, i, other)
    {
        if (!rc && strcmp(json_string_value(other), tpm->ek) != 0) {
            rc = check_other(tx, json_string_value(other), tpm, found ? &host : NULL, tpm->disputed,
                             err);
        }
    }
    if (rc || !found) {
        store_record_done(&store_hosts, &host);
    }
    if (!rc) {
        *ret_found = found;
        if (found) {
            *ret_host = host;
        }
    }
    return rc;
}

struct rival {
    struct store_tx *tx;
    const struct store_host *host;
    const char *ek;
    int64_t approved_at; /* 0: by no operator since claims are looked at */
};

static enum att_rc look_at_rival(void *user, const void *record, struct att_err *err)
{
    struct rival *r = user;
    const struct store_ek_claim *claim = record;
    struct store_host other = {0};
    if (strcmp(claim->host, r->host->id) == 0) {
        return ATT_OK;
    }
    enum att_rc rc = store_get(r->tx, &store_hosts, claim->host, &other, err);
    if (!rc && strcmp(other.state, STORE_HOST_BANNED) == 0 && r->approved_at <= other.updated_at) {
        rc = issuer_refuse(err, ATT_E_DENIED, "hostBanned",
                           "the banned host %.12s lists EK %.12s: if host %.12s is another TPM, "
                           "approve it again",
                           other.id, r->ek, r->host->id);
    }
    store_record_done(&store_hosts, &other);
    return rc;
}

enum att_rc issuer_host_check_claims(struct store_tx *tx, const struct store_host *host,
                                     const char *ek, struct att_err *err)
{
    att_autojson *notes = issuer_json(host->notes);
    struct rival r = {tx, host, ek, json_integer_value(json_object_get(notes, "approvedAt"))};
    return store_each(tx, &store_ek_claims, "ek", ek, look_at_rival, &r, err);
}

static enum att_rc put_claim(struct store_tx *tx, const char *ek, const char *host,
                             struct att_err *err)
{
    struct store_ek_claim claim = {0};
    char id[2 * VERIFY_ID_HEX];
    snprintf(id, sizeof id, "%s@%s", ek, host);
    enum att_rc rc =
        issuer_set(&claim.id, id) && issuer_set(&claim.ek, ek) && issuer_set(&claim.host, host)
            ? store_put(tx, &store_ek_claims, &claim, err)
            : att_fail(err, ATT_E_NOMEM, "host: no memory");
    store_record_done(&store_ek_claims, &claim);
    return rc;
}

enum att_rc issuer_host_record_eks(struct store_tx *tx, const char *host,
                                   const struct issuer_tpm *tpm, struct att_err *err)
{
    struct store_host_ek row = {.proven = 1};
    enum att_rc rc = issuer_set(&row.ek, tpm->ek) && issuer_set(&row.host, host)
                         ? store_put(tx, &store_host_eks, &row, err)
                         : att_fail(err, ATT_E_NOMEM, "host: no memory");
    store_record_done(&store_host_eks, &row);
    size_t i;
    json_t *other;
    json_array_foreach(tpm->others, i, other)
    {
        if (!rc && strcmp(json_string_value(other), tpm->ek) != 0) {
            rc = put_claim(tx, json_string_value(other), host, err);
        }
    }
    return rc;
}

/* ---- endings
 * ------------------------------------------------------------------------------------------------
 */

struct ending {
    char (*keys)[72];
    size_t n, room;
};

static enum att_rc add_key(struct ending *e, const char *key, struct att_err *err)
{
    if (e->n == e->room) {
        size_t room = e->room ? 2 * e->room : 64;
        void *more = realloc(e->keys, room * sizeof *e->keys);
        if (!more) {
            return att_fail(err, ATT_E_NOMEM, "host: no memory");
        }
        e->keys = more;
        e->room = room;
    }
    size_t len = strnlen(key, sizeof e->keys[0] - 1);
    memcpy(e->keys[e->n], key, len);
    e->keys[e->n++][len] = 0;
    return ATT_OK;
}

static enum att_rc collect_ak(void *user, const void *record, struct att_err *err)
{
    const struct store_ak *ak = record;
    return strcmp(ak->state, STORE_AK_ENDED) == 0 ? ATT_OK : add_key(user, ak->id, err);
}

static enum att_rc collect_cert(void *user, const void *record, struct att_err *err)
{
    return add_key(user, ((const struct store_cert *)record)->serial, err);
}

enum att_rc issuer_ak_end(struct store_tx *tx, const char *id, const char *reason,
                          struct att_err *err)
{
    struct store_ak ak = {0};
    enum att_rc rc = store_get(tx, &store_aks, id, &ak, NULL);
    if (rc && rc != ATT_E_NOTFOUND) {
        return att_fail(err, rc, "AK records cannot be read");
    }
    if (rc || strcmp(ak.state, STORE_AK_ENDED) == 0) {
        rc = ATT_OK;
    } else {
        att_buf_reset(&ak.secret);
        rc = issuer_set(&ak.state, STORE_AK_ENDED) && issuer_set(&ak.ended_reason, reason)
                 ? store_put(tx, &store_aks, &ak, err)
                 : att_fail(err, ATT_E_NOMEM, "host: no memory");
    }
    store_record_done(&store_aks, &ak);
    return rc;
}

enum att_rc issuer_host_end(struct store_tx *tx, const char *host, const char *reason, int64_t now,
                            int64_t *ret_revoked, struct att_err *err)
{
    struct ending aks = {0}, certs = {0};
    enum att_rc rc = store_each(tx, &store_aks, "host", host, collect_ak, &aks, err);
    if (!rc) {
        rc = store_cert_live(tx, STORE_CERT_OF_HOST, host, now, -1, collect_cert, &certs, err);
    }
    for (size_t i = 0; i < aks.n && !rc; i++) {
        rc = issuer_ak_end(tx, aks.keys[i], reason, err);
    }
    for (size_t i = 0; i < certs.n && !rc; i++) {
        const struct issuer_revocation what = {
            certs.keys[i], reason, "the host was ended before it was signed", NULL, NULL};
        rc = issuer_revoke(tx, &what, now, err);
    }
    if (!rc && ret_revoked) {
        *ret_revoked = (int64_t)certs.n;
    }
    free(aks.keys);
    free(certs.keys);
    return rc;
}

/* The clock starts again: the next enrolment is judged as a first one, by an operator. */
static enum att_rc put_cleared(struct store_tx *tx, struct store_host *host, int64_t now,
                               struct att_err *err)
{
    att_autojson *notes = issuer_json(host->notes);
    json_object_del(notes, "clock");
    issuer_autofree *text = issuer_json_text(notes);
    bool ok = text && issuer_set(&host->notes, text);
    host->updated_at = now;
    if (ok && strcmp(host->state, STORE_HOST_BANNED) != 0) {
        ok =
            issuer_set(&host->state, STORE_HOST_PENDING) && issuer_set(&host->reason, "tpmCleared");
    }
    return ok ? store_put(tx, &store_hosts, host, err)
              : att_fail(err, ATT_E_NOMEM, "host: no memory");
}

enum att_rc issuer_host_cleared(struct store_tx *tx, const char *host_id, int64_t now,
                                struct att_err *err)
{
    int64_t revoked = 0;
    struct store_host host = {0};
    enum att_rc rc = store_get(tx, &store_hosts, host_id, &host, NULL);
    if (rc) {
        return rc == ATT_E_NOTFOUND ? ATT_OK : att_fail(err, rc, "hosts cannot be read");
    }
    rc = issuer_host_end(tx, host.id, "tpmCleared", now, &revoked, err);
    if (!rc) {
        rc = put_cleared(tx, &host, now, err);
    }
    if (!rc) {
        char what[64];
        snprintf(what, sizeof what, "the TPM was cleared: the host is %s", host.state);
        json_t *record = issuer_record("host", "done", "tpmCleared", what, host.id);
        json_object_set_new(record, "revoked", json_integer(revoked));
        rc = issuer_audit(tx, now, record, NULL, err);
    }
    store_record_done(&store_hosts, &host);
    return rc ? rc : issuer_view_bump(tx, err);
}

/* ---- notes
 * ----------------------------------------------------------------------------------------------------
 */

static bool read_clock(const json_t *c, struct verify_clock *ret_clock)
{
    uint8_t firmware[8];
    if (!json_is_object(c) ||
        att_unhex_exact(firmware, sizeof firmware, issuer_string(c, "firmware"), NULL)) {
        return false;
    }
    struct att_cur cur = att_cur_init(ATT_SLICE_ARRAY(firmware));
    *ret_clock = (struct verify_clock){
        .clock_ms = (uint64_t)json_integer_value(json_object_get(c, "ms")),
        .reset_count = (uint32_t)json_integer_value(json_object_get(c, "reset")),
        .restart_count = (uint32_t)json_integer_value(json_object_get(c, "restart")),
        .safe = json_is_true(json_object_get(c, "safe")),
        .firmware_version = att_cur_be64(&cur),
    };
    return true;
}

bool issuer_host_clock(const json_t *notes, struct verify_clock *ret_clock)
{
    return read_clock(json_object_get(notes, "clock"), ret_clock);
}

char *issuer_host_clock_text(const struct store_host *host)
{
    att_autojson *notes = issuer_json(host->notes);
    const json_t *clock = json_object_get(notes, "clock");
    return clock ? issuer_json_text(clock) : strdup("");
}

struct verify_clock issuer_ak_clock(const struct store_ak *ak)
{
    struct att_cur cur = att_cur_init(att_buf_slice(&ak->firmware));
    return (struct verify_clock){.clock_ms = (uint64_t)ak->clock_ms,
                                 .reset_count = (uint32_t)ak->reset_count,
                                 .restart_count = (uint32_t)ak->restart_count,
                                 .safe = ak->safe != 0,
                                 .firmware_version = att_cur_be64(&cur)};
}

/* How far a TPM's clock may have come in this time: TPM2_ClockRateAdjust leaves it within a third
 * of the truth, and our own seconds are whole ones. */
static uint64_t clock_room_ms(int64_t seconds)
{
    return (uint64_t)(seconds > 0 ? seconds : 0) * 1500 + 5000;
}

bool issuer_clock_then(const char *text, int64_t elapsed_s, const json_t *notes,
                       struct verify_clock *ret_clock)
{
    struct verify_clock now, then;
    att_autojson *clock = issuer_json(text);
    uint64_t room = clock_room_ms(elapsed_s);
    if (!issuer_host_clock(notes, &now)) {
        return false;
    }
    bool same = read_clock(clock, &then) && then.reset_count == now.reset_count &&
                then.restart_count == now.restart_count &&
                then.firmware_version == now.firmware_version;
    /* Who waited with a quote is behind the newest by no more than the time he waited. */
    if (same && now.clock_ms > room && then.clock_ms < now.clock_ms - room) {
        then.clock_ms = now.clock_ms - room;
    }
    *ret_clock = same ? then : now;
    return true;
}

bool issuer_clock_newer(const struct verify_clock *a, const struct verify_clock *b)
{
    return a->reset_count != b->reset_count ? a->reset_count > b->reset_count
                                            : a->clock_ms >= b->clock_ms;
}

void issuer_host_note(json_t *notes, const struct verify_clock *clock, const char *outcome,
                      const char *reason, const char *what, const json_t *logs,
                      const struct verify_verdict *verdict, int64_t now)
{
    if (clock) {
        json_object_set_new(
            notes, "clock",
            json_pack("{s:I, s:I, s:I, s:b, s:o}", "ms", (json_int_t)clock->clock_ms, "reset",
                      (json_int_t)clock->reset_count, "restart", (json_int_t)clock->restart_count,
                      "safe", clock->safe ? 1 : 0, "firmware",
                      json_sprintf("%016llx", (unsigned long long)clock->firmware_version)));
    }
    if (logs) {
        json_t *known = json_object_get(notes, "logs");
        if (!known) {
            json_object_set_new(notes, "logs", json_object());
            known = json_object_get(notes, "logs");
        }
        json_object_update(known, (json_t *)(uintptr_t)logs);
    }
    json_object_set_new(notes, "lastVerdict",
                        json_pack("{s:o, s:s, s:s, s:s}", "at", issuer_time_json(now), "outcome",
                                  outcome, "reason", reason, "what", what));
    json_t *policy = verdict ? issuer_policy_note(verdict) : NULL;
    if (policy) {
        json_object_set_new(json_object_get(notes, "lastVerdict"), "policy", policy);
    }
}

enum att_rc issuer_host_set_notes(struct store_host *host, const json_t *notes, int64_t now,
                                  struct att_err *err)
{
    issuer_autofree *text = issuer_json_text(notes);
    host->seen_at = now;
    return text && issuer_set(&host->notes, text) ? ATT_OK
                                                  : att_fail(err, ATT_E_NOMEM, "host: no memory");
}
