/* Replay of an IMA list: PCR 10 of any bank from the template data alone. */
#include "tpm/parse/ima_fields.h"

#include <openssl/evp.h>
#include <string.h>

/* Contexts that are made once: a list has a hundred thousand entries. */
struct hasher {
    EVP_MD *md;
    EVP_MD_CTX *ctx;
};

static void hasher_done(struct hasher *h)
{
    EVP_MD_CTX_free(h->ctx);
    EVP_MD_free(h->md);
}

static enum att_rc hasher_init(struct hasher *h, uint16_t alg, struct att_err *err)
{
    const char *name = parse_alg_openssl_name(alg);
    h->md = name ? EVP_MD_fetch(NULL, name, NULL) : NULL;
    h->ctx = EVP_MD_CTX_new();
    if (!h->md || !h->ctx || EVP_DigestInit_ex2(h->ctx, h->md, NULL) != 1) {
        return att_fail_openssl(err, ATT_E_UNSUPPORTED, "digest %s", name ? name : "unknown");
    }
    return ATT_OK;
}

static bool hash(struct hasher *h, const struct att_slice *parts, size_t n,
                 uint8_t ret[PARSE_DIGEST_MAX])
{
    bool ok = EVP_DigestInit_ex2(h->ctx, NULL, NULL) == 1;
    for (size_t i = 0; ok && i < n; i++) {
        ok = parts[i].len == 0 || EVP_DigestUpdate(h->ctx, parts[i].ptr, parts[i].len) == 1;
    }
    return ok && EVP_DigestFinal_ex(h->ctx, ret, NULL) == 1;
}

struct replay {
    struct hasher bank, shown;
    bool have_shown, same; /* same: the list shows the bank's own hash */
    struct parse_ima_pcrs pcrs;
};

static void replay_done(struct replay *r)
{
    hasher_done(&r->bank);
    hasher_done(&r->shown);
}

static uint16_t alg_of_len(size_t len)
{
    return len == 20   ? PARSE_ALG_SHA1
           : len == 32 ? PARSE_ALG_SHA256
           : len == 48 ? PARSE_ALG_SHA384
                       : PARSE_ALG_SHA512;
}

/* The hash that the list shows: by its length, which the first entry has told by now. */
static enum att_rc need_shown(struct replay *r, const struct parse_ima_entry *entry,
                              struct att_err *err)
{
    if (r->have_shown) {
        return ATT_OK;
    }
    r->have_shown = true;
    r->same = alg_of_len(entry->shown.len) == r->pcrs.bank;
    return r->same ? ATT_OK : hasher_init(&r->shown, alg_of_len(entry->shown.len), err);
}

static enum att_rc extend(struct replay *r, const struct parse_ima_entry *entry,
                          struct att_err *err)
{
    uint8_t digest[PARSE_DIGEST_MAX], shown[PARSE_DIGEST_MAX];
    size_t len = r->pcrs.digest_len;
    enum att_rc rc = need_shown(r, entry, err);
    bool ok = rc == ATT_OK;
    if (entry->violation) {
        memset(digest, 0xff, len);
    } else if (ok) {
        ok = hash(&r->bank, entry->parts, entry->n_parts, digest) &&
             (r->same || hash(&r->shown, entry->parts, entry->n_parts, shown));
        if (ok && memcmp(entry->shown.ptr, r->same ? digest : shown, entry->shown.len) != 0) {
            return parse_ima_bad(entry, err, "template hash does not match its data");
        }
    }
    uint8_t *value = r->pcrs.value[entry->pcr];
    struct att_slice parts[] = {ATT_SLICE(value, len), ATT_SLICE(digest, len)};
    if (!ok || !hash(&r->bank, parts, 2, value)) {
        return rc ? rc : att_fail_openssl(err, ATT_E_CRYPTO, "IMA list: hashing");
    }
    r->pcrs.with_entries |= (uint32_t)1 << entry->pcr;
    r->pcrs.last_entry[entry->pcr] = entry->number;
    r->pcrs.n_entries++;
    if (entry->violation && r->pcrs.n_violations++ == 0) {
        r->pcrs.first_violation = entry->number;
    }
    return ATT_OK;
}

static bool reached(const struct replay *r, const struct parse_ima_replay *how)
{
    return !how->until || memcmp(r->pcrs.value[PARSE_IMA_PCR], how->until, r->pcrs.digest_len) == 0;
}

static enum att_rc replay_all(struct replay *r, struct parse_ima *list,
                              const struct parse_ima_replay *how, struct att_err *err)
{
    struct parse_ima_entry entry;
    size_t at_least = how->at_least == SIZE_MAX ? list->bytes.len : how->at_least;
    if (at_least > list->bytes.len) {
        return att_fail(err, ATT_E_PARSE, "IMA list: its signed part has %zu bytes, it has %zu",
                        at_least, list->bytes.len);
    }
    while (list->pos < at_least || !reached(r, how)) {
        enum att_rc rc = parse_ima_next(list, &entry, err);
        if (rc == ATT_E_NOTFOUND) {
            break;
        }
        if (rc == ATT_OK && entry.offset < at_least && entry.size > at_least - entry.offset) {
            rc = parse_ima_bad(&entry, err, "the signed part of the list ends inside it");
        }
        rc = rc ? rc : extend(r, &entry, err);
        if (rc != ATT_OK) {
            return rc;
        }
    }
    r->pcrs.used = list->pos;
    return ATT_OK;
}

enum att_rc parse_ima_replay(struct att_slice bytes, const struct parse_ima_replay *how,
                             struct parse_ima_pcrs *ret_pcrs, struct att_err *err)
{
    ATT_CLEANUP(parse_ima_done) struct parse_ima list = {0};
    ATT_CLEANUP(replay_done) struct replay r = {0};
    enum att_rc rc = parse_ima_init(&list, bytes, err);
    rc = rc ? rc : hasher_init(&r.bank, how->bank, err);
    if (rc != ATT_OK) {
        return rc;
    }
    r.pcrs.bank = how->bank;
    r.pcrs.digest_len = parse_alg_digest_len(how->bank);
    if (how->start) {
        memcpy(r.pcrs.value, how->start, sizeof r.pcrs.value);
    }
    if (how->after) {
        if (how->after->bank != how->bank || how->after->used > bytes.len) {
            return att_fail(err, ATT_E_INVAL, "IMA list: not the replay to go on from");
        }
        r.pcrs = *how->after;
        list.pos = how->after->used;
        list.number = how->after->n_entries;
    }
    rc = replay_all(&r, &list, how, err);
    if (rc == ATT_OK) {
        *ret_pcrs = r.pcrs;
    }
    return rc;
}
