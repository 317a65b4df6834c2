/* The hash chain of decisions. */
#include "provision/store/store_internal.h"

#include "attestd/base/hash.h"

#include <stdlib.h>
#include <string.h>

#define AUDIT_COLUMNS "SELECT seq, at, prev, hash, record FROM audit"

static void chain_hash(uint8_t ret[STORE_HASH_LEN], int64_t seq, int64_t at,
                       const uint8_t prev[STORE_HASH_LEN], const char *record)
{
    uint8_t numbers[16];
    for (unsigned i = 0; i < 8; i++) {
        numbers[i] = (uint8_t)((uint64_t)seq >> (56 - 8 * i));
        numbers[8 + i] = (uint8_t)((uint64_t)at >> (56 - 8 * i));
    }
    const struct att_slice parts[] = {ATT_SLICE_LIT("attestd-audit/1"), ATT_SLICE_ARRAY(numbers),
                                      ATT_SLICE(prev, STORE_HASH_LEN), att_slice_str(record)};
    att_sha256_v(ret, parts, sizeof parts / sizeof parts[0]);
}

struct reader {
    struct store *store;
    store_audit_fn each;
    void *user;
    int64_t next, seen; /* while reading in parts */
};

static enum att_rc read_row(void *user, const struct store_row *row, struct att_err *err)
{
    struct reader *r = user;
    const struct store_db_ops *ops = r->store->ops;
    struct store_audit a = {.seq = ops->row_int(row, 0), .at = ops->row_int(row, 1)};
    r->seen = a.seq < INT64_MAX ? r->seen + 1 : 0;
    r->next = a.seq < INT64_MAX ? a.seq + 1 : a.seq;
    struct att_slice prev = ops->row_bytes(row, 2), hash = ops->row_bytes(row, 3);
    if (prev.len != STORE_HASH_LEN || hash.len != STORE_HASH_LEN) {
        enum att_rc rc =
            att_fail(err, ATT_E_AUTH, "audit record %lld: its hashes do not have 32 bytes",
                     (long long)a.seq);
        att_err_reason(err, "auditEdited");
        return rc;
    }
    memcpy(a.prev, prev.ptr, STORE_HASH_LEN);
    memcpy(a.hash, hash.ptr, STORE_HASH_LEN);
    struct att_slice text = ops->row_bytes(row, 4);
    char *record = strndup(text.ptr ? (const char *)text.ptr : "", text.len);
    if (!record) {
        return att_fail(err, ATT_E_NOMEM, "audit: no memory");
    }
    a.record = record;
    enum att_rc rc = r->each(r->user, &a, err);
    free(record);
    return rc;
}

static enum att_rc take_head(void *user, const struct store_audit *a, struct att_err *err)
{
    (void)err;
    struct store_audit *head = user;
    *head = *a;
    head->record = NULL;
    return ATT_OK;
}

enum att_rc store_audit_head(struct store_tx *tx, struct store_audit *ret_head, struct att_err *err)
{
    struct store_audit head = {0};
    struct reader r = {.store = tx->store, .each = take_head, .user = &head};
    enum att_rc rc = store_exec(tx, AUDIT_COLUMNS " ORDER BY seq DESC LIMIT 1", NULL, 0, read_row,
                                &r, NULL, err);
    if (!rc) {
        *ret_head = head;
    }
    return rc;
}

enum att_rc store_audit_append(struct store_tx *tx, int64_t at, const char *record,
                               struct store_audit *ret_head, struct att_err *err)
{
    struct store_audit head = {0};
    enum att_rc rc = store_audit_head(tx, &head, err);
    if (rc) {
        return rc;
    }
    struct store_audit next = {.seq = head.seq + 1, .at = at};
    memcpy(next.prev, head.hash, STORE_HASH_LEN);
    chain_hash(next.hash, next.seq, at, next.prev, record);
    const struct store_value values[] = {
        STORE_VINT(next.seq), STORE_VINT(at), STORE_VBLOB(ATT_SLICE_ARRAY(next.prev)),
        STORE_VBLOB(ATT_SLICE_ARRAY(next.hash)), STORE_VTEXT(record)};
    rc = store_exec(tx,
                    "INSERT INTO audit (seq, at, prev, hash, record) VALUES (?1, ?2, ?3, ?4, ?5)",
                    values, 5, NULL, NULL, NULL, err);
    if (!rc && ret_head) {
        *ret_head = next;
    }
    return rc;
}

#define SEARCH_PART 10000 /* records that one statement of a search looks at */
#define PART        1000  /* records: a database client may hold a whole answer in memory */

enum att_rc store_audit_each(struct store_tx *tx, int64_t from, int64_t limit, store_audit_fn each,
                             void *user, struct att_err *err)
{
    struct reader r = {.store = tx->store, .each = each, .user = user, .next = from};
    int64_t left = limit > 0 ? limit : INT64_MAX, part;
    enum att_rc rc;
    do {
        part = left < PART ? left : PART;
        left -= part;
        r.seen = 0;
        const struct store_value values[] = {STORE_VINT(r.next), STORE_VINT(part)};
        rc = store_exec(tx, AUDIT_COLUMNS " WHERE seq >= ?1 ORDER BY seq LIMIT ?2", values, 2,
                        read_row, &r, NULL, err);
    } while (!rc && r.seen == part && left > 0);
    return rc;
}

enum att_rc store_audit_search(struct store_tx *tx, const char *text, const char *or_text,
                               store_audit_fn each, void *user, struct att_err *err)
{
    struct reader r = {.store = tx->store, .each = each, .user = user};
    struct store_audit head = {0};
    enum att_rc rc = store_audit_head(tx, &head, err);
    for (int64_t from = 1; !rc && from <= head.seq; from += SEARCH_PART) {
        const struct store_value values[] = {STORE_VTEXT(text), STORE_VTEXT(or_text),
                                             STORE_VINT(from), STORE_VINT(from + SEARCH_PART)};
        rc = store_exec(tx,
                        AUDIT_COLUMNS " WHERE seq >= ?3 AND seq < ?4"
                                      " AND (instr(record, ?1) > 0 OR instr(record, ?2) > 0)"
                                      " ORDER BY seq",
                        values, 4, read_row, &r, NULL, err);
    }
    return rc;
}

#define ERASED_MAX ((int64_t)1 << 31) /* numbers: 256 MiB */

/* Records whose text is gone, until the record that says so was seen: a bit for each number. */
struct erased {
    uint64_t *bits;
    size_t words, n;
};

struct checker {
    struct store_audit last;
    const struct store_audit *expect;
    bool expect_seen;
    struct erased erased;
};

static enum att_rc bad(struct att_err *err, const char *reason, int64_t seq, const char *what)
{
    enum att_rc rc = att_fail(err, ATT_E_AUTH, "audit record %lld: %s", (long long)seq, what);
    att_err_reason(err, reason);
    return rc;
}

static enum att_rc add_erased(struct erased *e, int64_t seq, struct att_err *err)
{
    if (seq < 0 || seq >= ERASED_MAX) {
        return att_fail(err, ATT_E_LIMIT, "audit: an erased record beyond %lld",
                        (long long)ERASED_MAX);
    }
    size_t word = (size_t)seq / 64;
    if (word >= e->words) {
        size_t words = word + 1 + e->words / 2;
        uint64_t *bits = realloc(e->bits, words * sizeof *bits);
        if (!bits) {
            return att_fail(err, ATT_E_NOMEM, "audit: no memory");
        }
        memset(bits + e->words, 0, (words - e->words) * sizeof *bits);
        e->bits = bits;
        e->words = words;
    }
    e->bits[word] |= (uint64_t)1 << (seq % 64);
    e->n++;
    return ATT_OK;
}

static void forget_erased(struct erased *e, long long seq)
{
    uint64_t bit = (uint64_t)1 << ((uint64_t)seq % 64);
    if (seq >= 0 && (uint64_t)seq / 64 < e->words && (e->bits[seq / 64] & bit)) {
        e->bits[seq / 64] &= ~bit;
        e->n--;
    }
}

static int64_t first_erased(const struct erased *e)
{
    for (size_t i = 0; i < 64 * e->words; i++) {
        if (e->bits[i / 64] >> (i % 64) & 1) {
            return (int64_t)i;
        }
    }
    return 0;
}

/* The member of compact JSON, a number or a list of them: within a string its quotes would be
 * escaped. */
static void see_erasure(struct erased *e, const char *record)
{
    static const char member[] = "\"erases\":";
    const char *at = e->n ? strstr(record, member) : NULL;
    if (!at) {
        return;
    }
    at += sizeof member - 1;
    bool list = *at == '[';
    at += list;
    for (char *end; *at >= '0' && *at <= '9'; at = end + 1) {
        forget_erased(e, strtoll(at, &end, 10));
        if (!list || *end != ',') {
            return;
        }
    }
}

static enum att_rc check(void *user, const struct store_audit *a, struct att_err *err)
{
    struct checker *c = user;
    uint8_t hash[STORE_HASH_LEN];
    enum att_rc rc = ATT_OK;
    if (a->seq != c->last.seq + 1) {
        return bad(err, "auditMissing", c->last.seq + 1, "is not there");
    }
    chain_hash(hash, a->seq, a->at, a->prev, a->record);
    if (a->record[0] == 0) {
        rc = add_erased(&c->erased, a->seq, err);
    } else if (memcmp(hash, a->hash, sizeof hash) != 0) {
        rc = bad(err, "auditEdited", a->seq, "its content does not have its hash");
    } else {
        see_erasure(&c->erased, a->record);
    }
    if (rc) {
        return rc;
    }
    if (memcmp(a->prev, c->last.hash, STORE_HASH_LEN) != 0) {
        return bad(err, "auditReordered", a->seq, "does not follow the record before it");
    }
    if (c->expect && a->seq == c->expect->seq) {
        if (memcmp(a->hash, c->expect->hash, STORE_HASH_LEN) != 0) {
            return bad(err, "auditEdited", a->seq, "is not the record that the head names");
        }
        c->expect_seen = true;
    }
    c->last = *a;
    c->last.record = NULL;
    return ATT_OK;
}

/* After a walk that went well. */
static enum att_rc check_erased(struct checker *c, enum att_rc rc, struct att_err *err)
{
    if (!rc && c->erased.n) {
        rc = bad(err, "auditEdited", first_erased(&c->erased),
                 "is empty and no record says who erased it");
    }
    free(c->erased.bits);
    return rc;
}

/* The first record is the known one: it has to be there, with its content and its hash. */
static enum att_rc check_from(void *user, const struct store_audit *a, struct att_err *err)
{
    struct checker *c = user;
    if (!c->expect || c->expect_seen) {
        return check(c, a, err);
    }
    c->last.seq = c->expect->seq - 1;
    memcpy(c->last.hash, a->prev, STORE_HASH_LEN);
    return check(c, a, err);
}

enum att_rc store_audit_continue(struct store_tx *tx, const struct store_audit *known,
                                 struct store_audit *ret_head, struct att_err *err)
{
    struct checker c = {.expect = known->seq > 0 ? known : NULL};
    enum att_rc rc = store_audit_each(tx, known->seq, 0, check_from, &c, err);
    if (!rc && c.expect && !c.expect_seen) {
        rc = bad(err, "auditTruncated", known->seq, "was there and is no more");
    }
    rc = check_erased(&c, rc, err);
    if (!rc) {
        *ret_head = c.last;
    }
    return rc;
}

enum att_rc store_audit_verify(struct store_tx *tx, const struct store_audit *expect,
                               struct store_audit *ret_head, struct att_err *err)
{
    struct checker c = {.expect = expect && expect->seq > 0 ? expect : NULL};
    enum att_rc rc = store_audit_each(tx, 0, 0, check, &c, err);
    if (!rc && c.expect && !c.expect_seen) {
        rc = bad(err, "auditTruncated", c.expect->seq, "is named by the head and is not there");
    }
    rc = check_erased(&c, rc, err);
    if (!rc && ret_head) {
        *ret_head = c.last;
    }
    return rc;
}
