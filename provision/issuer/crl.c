/* The present revocation lists. The store has each as it was last made; a thread that finds it old,
 * or made before the latest revocation, makes the next one in a transaction of its own. */
#include "provision/issuer/revoke.h"

#include "attestd/base/enc.h"
#include "provision/issuer/generations.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STATE_LEN 24 /* be64 made at ‖ be64 revocations then ‖ be64 number */

#define LATER     4  /* lists of later generations that are kept in memory */
#define KEY_ROOM  64 /* "crl.attestation.der.0123456789abcdef" */
#define ID_DIGITS 16
#define AWAY_MS   10000

static const struct kind {
    const char *stem, *file, *cert_kind;
} kinds[ISSUER_CRLS] = {
    [ISSUER_CRL_WORKLOAD] = {"workload", "workload.crl", "agent"},
    [ISSUER_CRL_ATTESTATION] = {"attestation", "attestation.crl", "ak"},
    [ISSUER_CRL_DNS] = {"dns", "dns.crl", "dns"},
};

struct place {
    struct issuer_crl_ref ref;
    struct att_buf der;
    uint64_t number; /* 0: none */
    uint64_t made_at;
};
struct issuer_crls {
    pthread_mutex_t lock;
    bool trying;        /* under lock: a thread asks a key whether it is there */
    int64_t away_until; /* under lock: it was not; by the boot clock, ms */
    struct place of[ISSUER_CRLS + LATER];
    size_t next; /* of the later ones, that is given up for another */
};

struct issuer_crls *issuer_crls_new(void)
{
    struct issuer_crls *crls = calloc(1, sizeof *crls);
    if (crls) {
        pthread_mutex_init(&crls->lock, NULL);
        for (size_t i = 0; i < ISSUER_CRLS; i++) {
            crls->of[i].ref.of = (enum issuer_crl_of)i;
        }
    }
    return crls;
}

void issuer_crls_free(struct issuer_crls *crls)
{
    if (crls) {
        for (size_t i = 0; i < ISSUER_CRLS + LATER; i++) {
            att_buf_done(&crls->of[i].der);
        }
        pthread_mutex_destroy(&crls->lock);
        free(crls);
    }
}

int64_t issuer_crl_made_at(struct issuer *issuer, enum issuer_crl_of of)
{
    pthread_mutex_lock(&issuer->crls->lock);
    uint64_t at = issuer->crls->of[of].number ? issuer->crls->of[of].made_at : 0;
    pthread_mutex_unlock(&issuer->crls->lock);
    return (int64_t)at;
}

const char *issuer_crl_file(enum issuer_crl_of of)
{
    return kinds[of].file;
}

bool issuer_crl_parse(const char *file, struct issuer_crl_ref *ret_ref)
{
    for (size_t i = 0; i < ISSUER_CRLS; i++) {
        size_t stem = strlen(kinds[i].stem);
        struct issuer_crl_ref ref = {.of = (enum issuer_crl_of)i};
        if (strncmp(file, kinds[i].stem, stem) != 0) {
            continue;
        }
        const char *rest = file + stem;
        if (*rest == '-' && strspn(rest + 1, "0123456789abcdef") == ID_DIGITS) {
            memcpy(ref.id, rest + 1, ID_DIGITS);
            rest += 1 + ID_DIGITS;
        }
        if (strcmp(rest, ".crl") == 0) {
            *ret_ref = ref;
            return true;
        }
    }
    return false;
}

/* ---- what the store has -----------------------------------------------------------------------
 */

struct look {
    struct issuer *issuer;
    const struct kind *kind;
    struct issuer_crl_ref ref;
    struct issuer_authority by;
    char state[KEY_ROOM], list[KEY_ROOM], counter[KEY_ROOM]; /* single values of the store */
    int64_t now;
    uint64_t made_at, revocations, number; /* of the stored list; number 0: there is none */
    bool old;
    struct att_buf der; /* filled when it is neither old nor in memory */
    bool from_memory;
};

static enum att_rc meta(struct store_tx *tx, const char *key, struct att_buf *ret,
                        struct att_err *err)
{
    enum att_rc rc = store_meta_get(tx, key, ret, NULL);
    return rc == ATT_E_NOTFOUND ? ATT_OK
           : rc                 ? att_fail(err, rc, "%s cannot be read", key)
                                : ATT_OK;
}

static enum att_rc revocations(struct store_tx *tx, uint64_t *ret, struct att_err *err)
{
    att_autobuf value = {0};
    enum att_rc rc = meta(tx, "revocations", &value, err);
    struct att_cur cur = att_cur_init(att_buf_slice(&value));
    *ret = value.len ? att_cur_be64(&cur) : 0;
    return rc;
}

static enum att_rc read_state(struct look *look, struct store_tx *tx, struct att_err *err)
{
    att_autobuf state = {0};
    uint64_t present = 0;
    enum att_rc rc = meta(tx, look->state, &state, err);
    if (!rc) {
        rc = revocations(tx, &present, err);
    }
    struct att_cur cur = att_cur_init(att_buf_slice(&state));
    look->made_at = att_cur_be64(&cur);
    look->revocations = att_cur_be64(&cur);
    look->number = att_cur_be64(&cur);
    if (state.len != STATE_LEN) {
        look->number = 0;
    }
    /* A clock that was set back makes a new list, too: thisUpdate would lie in the future. Issuers
     * on one store differ by a little, and do not replace each other's list for that. */
    int64_t age = look->now - (int64_t)look->made_at;
    look->old = look->number == 0 || look->revocations != present || age < -ISSUER_CRL_SKEW_S ||
                age >= ISSUER_CRL_FRESH_S;
    return rc;
}

/* lock is held. NULL where add is false and there is none. */
static struct place *place_of(struct issuer_crls *crls, const struct issuer_crl_ref *ref, bool add)
{
    for (size_t i = 0; i < ISSUER_CRLS + LATER; i++) {
        if (crls->of[i].ref.of == ref->of && strcmp(crls->of[i].ref.id, ref->id) == 0) {
            return &crls->of[i];
        }
    }
    if (!add) {
        return NULL;
    }
    struct place *place = &crls->of[ISSUER_CRLS + crls->next];
    crls->next = (crls->next + 1) % LATER;
    att_buf_reset(&place->der);
    place->number = 0;
    place->ref = *ref;
    return place;
}

static bool in_memory(struct look *look)
{
    struct issuer_crls *crls = look->issuer->crls;
    pthread_mutex_lock(&crls->lock);
    const struct place *place = place_of(crls, &look->ref, false);
    /* By both: a store that was put back from a copy gives a number again. */
    bool same = place && place->number == look->number && place->made_at == look->made_at;
    if (same) {
        att_buf_put_slice(&look->der, att_buf_slice(&place->der));
    }
    pthread_mutex_unlock(&crls->lock);
    return same;
}

static enum att_rc read_list(void *user, struct store_tx *tx, struct att_err *err)
{
    struct look *look = user;
    enum att_rc rc = read_state(look, tx, err);
    if (rc || look->old) {
        return rc;
    }
    look->from_memory = in_memory(look);
    return look->from_memory ? att_buf_ok(&look->der, err)
                             : store_meta_get(tx, look->list, &look->der, err);
}

/* ---- a new one --------------------------------------------------------------------------------
 */

struct gather {
    struct certs_crl_entry *entries;
    size_t n, room;
};

static enum att_rc add(void *user, const void *record, struct att_err *err)
{
    struct gather *g = user;
    const struct store_cert *cert = record;
    size_t digits = strlen(cert->serial);
    if (g->n == g->room) {
        size_t room = g->room ? 2 * g->room : 64;
        void *more = realloc(g->entries, room * sizeof *g->entries);
        if (!more) {
            return att_fail(err, ATT_E_NOMEM, "CRL: no memory");
        }
        g->entries = more;
        g->room = room;
    }
    struct certs_crl_entry *entry = &g->entries[g->n];
    *entry = (struct certs_crl_entry){.serial_len = digits / 2,
                                      .revoked_at = cert->ended_at,
                                      .reason = issuer_crl_reason(cert->reason)};
    if (digits == 0 || digits % 2 || digits / 2 > sizeof entry->serial) {
        return att_fail(err, ATT_E_INTERNAL, "CRL: serial number \"%s\"", cert->serial);
    }
    g->n++;
    return att_unhex_exact(entry->serial, entry->serial_len, cert->serial, err);
}

/* Grows, also beyond what a database had that this one was put back in place of: a verifier refuses
 * a number that is less than one it has seen (RFC 5280, 5.2.3). So it is the time, or one more. */
static enum att_rc next_number(const struct look *look, struct store_tx *tx, uint64_t *ret_number,
                               struct att_err *err)
{
    att_autobuf value = {0};
    int64_t counted = 0;
    enum att_rc rc = store_meta_count(tx, look->counter, &counted, err);
    *ret_number = (uint64_t)counted;
    if (rc || look->now <= counted) {
        return rc;
    }
    *ret_number = (uint64_t)look->now;
    att_buf_be64(&value, *ret_number);
    rc = att_buf_ok(&value, err);
    return rc ? rc : store_meta_set(tx, look->counter, att_buf_slice(&value), err);
}

static enum att_rc sign(const struct look *look, const struct gather *g, uint64_t number,
                        struct att_buf *ret_der, struct att_err *err)
{
    issuer_autosettings *settings = issuer_settings_get(look->issuer);
    struct certs_crl_spec spec = {.this_update = look->now,
                                  .next_update = look->now + settings->conf->crl_lifetime_s,
                                  .number = number,
                                  .entries = g->entries,
                                  .n_entries = g->n};
    return certs_crl_create(&spec, look->by.ca, look->by.key, ret_der, err);
}

static enum att_rc put_list(const struct look *look, struct store_tx *tx, struct att_err *err)
{
    att_autobuf state = {0};
    uint64_t present = 0;
    enum att_rc rc = revocations(tx, &present, err);
    att_buf_be64(&state, (uint64_t)look->now);
    att_buf_be64(&state, present);
    att_buf_be64(&state, look->number);
    if (!rc) {
        rc = att_buf_ok(&state, err);
    }
    if (!rc) {
        rc = store_meta_set(tx, look->state, att_buf_slice(&state), err);
    }
    return rc ? rc : store_meta_set(tx, look->list, att_buf_slice(&look->der), err);
}

static enum att_rc make_list(void *user, struct store_tx *tx, struct att_err *err)
{
    struct look *look = user;
    att_buf_reset(&look->der);
    look->now = look->issuer->clock(); /* it may have waited for its turn */
    enum att_rc rc = read_state(look, tx, err);
    if (rc) {
        return rc;
    }
    if (!look->old) { /* somebody was faster */
        return store_meta_get(tx, look->list, &look->der, err);
    }
    struct gather g = {0};
    uint64_t number = 0;
    rc = store_cert_revoked(tx, look->kind->cert_kind, look->now, CERTS_CRL_ENTRIES_MAX + 1, add,
                            &g, err);
    if (!rc) {
        rc = next_number(look, tx, &number, err);
    }
    if (!rc) {
        look->number = number;
        look->made_at = (uint64_t)look->now;
        rc = sign(look, &g, number, &look->der, err);
    }
    free(g.entries);
    return rc ? rc : put_list(look, tx, err);
}

static void remember(struct look *look)
{
    struct issuer_crls *crls = look->issuer->crls;
    pthread_mutex_lock(&crls->lock);
    struct place *place = place_of(crls, &look->ref, true);
    if (place->number != look->number || place->made_at != look->made_at) {
        struct att_buf *der = &place->der;
        att_buf_reset(der);
        der->max = CERTS_CRL_MAX;
        att_buf_put_slice(der, att_buf_slice(&look->der));
        place->number = att_buf_ok(der, NULL) ? 0 : look->number;
        place->made_at = look->made_at;
    }
    pthread_mutex_unlock(&crls->lock);
}

/* The one whose list it is; those of before are where they were before there were several. */
static bool find_authority(struct look *look)
{
    struct issuer_authority all[ISSUER_GENERATIONS_MAX + 1];
    size_t n = issuer_authorities_all(look->issuer, look->kind->cert_kind, all);
    const char *dot = look->ref.id[0] ? "." : "";
    snprintf(look->state, KEY_ROOM, "crl.%s%s%s", look->kind->stem, dot, look->ref.id);
    snprintf(look->list, KEY_ROOM, "crl.%s.der%s%s", look->kind->stem, dot, look->ref.id);
    snprintf(look->counter, KEY_ROOM, "crl.%s.number%s%s", look->kind->stem, dot, look->ref.id);
    for (size_t i = 0; i < n; i++) {
        if (all[i].ca && strcmp(all[i].id, look->ref.id) == 0) {
            look->by = all[i];
            return true;
        }
    }
    return false;
}

/* ---- a key that is away -----------------------------------------------------------------------
 */

static enum att_rc key_missing(const char *why, struct att_err *err)
{
    enum att_rc rc = att_fail(err, ATT_E_RETRY, "the list cannot be signed now: %s", why);
    att_err_reason(err, "caKeyMissing");
    return rc;
}

/* One thread asks, and after a failure nobody does for a while: strangers cause this, and an HSM
 * that hangs holds each that waits for it. */
static bool may_try(struct issuer_crls *crls)
{
    pthread_mutex_lock(&crls->lock);
    bool may = !crls->trying && att_boottime_ms() >= crls->away_until;
    crls->trying = crls->trying || may;
    pthread_mutex_unlock(&crls->lock);
    return may;
}

/* Before the writer's turn is taken, in which everybody else would wait for the key, too. */
static enum att_rc key_answers(struct look *look, struct att_err *err)
{
    struct issuer_crls *crls = look->issuer->crls;
    struct att_err why = {0};
    if (!look->by.key || look->by.lacks[0]) {
        return key_missing(look->by.lacks[0] ? look->by.lacks : "its key is not here", err);
    }
    if (!look->issuer->ca->hsm) { /* in a file, and read */
        return ATT_OK;
    }
    if (!may_try(crls)) {
        return key_missing("its key is being waited for", err);
    }
    enum att_rc rc = issuer_key_try(look->by.key, &why);
    pthread_mutex_lock(&crls->lock);
    crls->trying = false;
    crls->away_until = rc ? att_boottime_ms() + AWAY_MS : 0;
    pthread_mutex_unlock(&crls->lock);
    return rc ? key_missing(why.msg, err) : ATT_OK;
}

static enum att_rc read_last(void *user, struct store_tx *tx, struct att_err *err)
{
    struct look *look = user;
    enum att_rc rc = read_state(look, tx, err);
    att_buf_reset(&look->der);
    return rc || !look->number ? rc : store_meta_get(tx, look->list, &look->der, err);
}

/* The last one, while it is in force; why it is no newer one otherwise. */
static enum att_rc last_list(struct look *look, const struct att_err *why, struct att_err *err)
{
    certs_autocrl *crl = NULL;
    struct certs_crl_info info = {0};
    enum att_rc rc = store_run(look->issuer->store, false, read_last, look, err);
    if (rc) {
        return rc;
    }
    if (look->number && certs_crl_parse(att_buf_slice(&look->der), &crl, NULL) == ATT_OK &&
        certs_crl_info(crl, &info, NULL) == ATT_OK && info.next_update > look->now) {
        return ATT_OK;
    }
    if (err) {
        *err = *why;
    }
    return ATT_E_RETRY;
}

static enum att_rc new_list(struct look *look, struct att_err *err)
{
    struct att_err why = {0};
    return key_answers(look, &why) == ATT_OK
               ? store_run(look->issuer->store, true, make_list, look, err)
               : last_list(look, &why, err);
}

enum att_rc issuer_crl_get(struct issuer *issuer, const struct issuer_crl_ref *ref,
                           struct att_buf *ret_der, uint64_t *ret_number, struct att_err *err)
{
    struct look look = {
        .issuer = issuer, .kind = &kinds[ref->of], .ref = *ref, .now = issuer->clock()};
    look.der.max = CERTS_CRL_MAX;
    /* Before the store: strangers ask, and must not take a writer's turn for nothing. */
    if (!find_authority(&look)) {
        return att_fail(err, ATT_E_NOTFOUND, "there is no such authority");
    }
    enum att_rc rc = store_run(issuer->store, false, read_list, &look, err);
    if (!rc && look.old) {
        rc = new_list(&look, err);
    }
    if (!rc && !look.from_memory) {
        remember(&look);
    }
    if (!rc) {
        att_buf_put_slice(ret_der, att_buf_slice(&look.der));
        *ret_number = look.number;
        rc = att_buf_ok(ret_der, err);
    }
    att_buf_done(&look.der);
    return rc;
}
