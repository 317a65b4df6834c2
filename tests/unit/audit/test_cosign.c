/* The log with its second signer: what stands on the disk after an end at each step, and what the
 * next start says of it. The signer is a software key with a counter in memory, which judges
 * nothing: what the TPM's process refuses is tests/unit/logtpm's. */
#include "provision/audit/files.h"
#include "provision/audit/log.h"
#include "provision/store/store.h"

#include "attestd/base/io.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ORIGIN "issuer.example/log/1"

#define ok(call)                                                                                   \
    do {                                                                                           \
        struct att_err err = {0};                                                                  \
        enum att_rc got = (call);                                                                  \
        if (got) {                                                                                 \
            print_error("%s:%d: %s: %s %s\n", __FILE__, __LINE__, att_rc_name(got), err.reason,    \
                        err.msg);                                                                  \
        }                                                                                          \
        assert_int_equal(got, ATT_OK);                                                             \
    } while (0)

/* ---- the signer
 * ------------------------------------------------------------------------------------ */

struct signer {
    EVP_PKEY *key;
    struct audit_cosigned now;
    enum { FINE, AWAY_SIGN, LOST_SIGN, AWAY_RAISE, EARLY, LIES } mood;
    int signs, raises;
};

static enum att_rc look(void *user, struct audit_cosigned *ret, struct att_err *err)
{
    const struct signer *s = user;
    (void)err;
    *ret = s->now;
    return ATT_OK;
}

static enum att_rc sign(void *user, struct att_slice text, uint64_t old,
                        const struct audit_proof *proof, uint8_t *ret_der, size_t *ret_len,
                        struct att_err *why)
{
    struct signer *s = user;
    struct audit_checkpoint c;
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    size_t len = AUDIT_ECDSA_SIG_MAX;
    ok(audit_checkpoint_parse(text, &c, &err));
    if (s->mood == AWAY_SIGN) {
        EVP_MD_CTX_free(md);
        return att_fail(why, ATT_E_GONE, "away");
    }
    if (s->mood == EARLY && c.counter > s->now.counter) {
        (void)!att_fail(why, ATT_E_LIMIT, "early");
        att_err_reason(why, "counterEarly");
        EVP_MD_CTX_free(md);
        return ATT_E_LIMIT;
    }
    if (c.counter < s->now.last.counter || c.size < s->now.last.size || old != s->now.last.size) {
        bool older = c.counter < s->now.last.counter || c.size < s->now.last.size;
        EVP_MD_CTX_free(md);
        (void)!att_fail(why, older ? ATT_E_AUTH : ATT_E_CONFLICT, "not what was signed last");
        att_err_reason(why, older ? "logRolledBack" : "logOld");
        return older ? ATT_E_AUTH : ATT_E_CONFLICT;
    }
    if (old) {
        ok(audit_check_consistency(old, &s->now.last.root, c.size, &c.root, proof, &err));
    }
    s->now.last = c;
    s->signs++;
    if (s->mood == LOST_SIGN) {
        EVP_MD_CTX_free(md);
        return att_fail(why, ATT_E_TIMEOUT, "no answer");
    }
    assert_int_equal(EVP_DigestSignInit(md, NULL, EVP_sha256(), NULL, s->key), 1);
    assert_int_equal(EVP_DigestSign(md, ret_der, &len, text.ptr, text.len), 1);
    EVP_MD_CTX_free(md);
    ret_der[len - 1] ^= s->mood == LIES;
    *ret_len = len;
    return ATT_OK;
}

static enum att_rc raise_to(void *user, uint64_t counter, struct att_err *err)
{
    struct signer *s = user;
    if (s->mood == AWAY_RAISE) {
        return att_fail(err, ATT_E_GONE, "away");
    }
    assert_int_equal(counter, s->now.last.counter);
    assert_int_equal(counter, s->now.counter + 1);
    s->now.counter = counter;
    s->now.was = 0;
    s->raises++;
    return ATT_OK;
}

static void signer_key(struct signer *s)
{
    unsigned char *at = s->now.spki;
    EVP_PKEY_free(s->key);
    s->key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
    assert_int_equal(i2d_PUBKEY(s->key, &at), AUDIT_P256_SPKI_LEN);
}

/* ---- a place
 * --------------------------------------------------------------------------------------- */

struct place {
    char dir[64], spec[96];
    struct store *store;
    struct audit_log *log;
    struct signer signer;
};

static void place_new(struct place *p)
{
    char ca[80];
    *p = (struct place){.dir = "/tmp/cosign-test-XXXXXX", .signer.now.counter = 7};
    assert_non_null(mkdtemp(p->dir));
    snprintf(ca, sizeof ca, "%s/ca", p->dir);
    ok(att_io_mkdirs(ca, 0700, &err));
    snprintf(p->spec, sizeof p->spec, "%s/t.db", p->dir);
    ok(store_open(p->spec, &p->store, &err));
    signer_key(&p->signer);
}

static void place_done(struct place *p)
{
    char command[96];
    audit_log_free(p->log);
    store_free(p->store);
    EVP_PKEY_free(p->signer.key);
    snprintf(command, sizeof command, "rm -rf '%s'", p->dir);
    assert_int_equal(system(command), 0);
}

static enum att_rc append(void *user, struct store_tx *tx, struct att_err *err)
{
    const int *n = user;
    enum att_rc rc = ATT_OK;
    for (int i = 0; !rc && i < *n; i++) {
        rc = store_audit_append(tx, 1000, "{\"kind\":\"test\",\"outcome\":\"done\"}", NULL, err);
    }
    return rc;
}

static enum att_rc start_for(struct place *p, int64_t every_ms, struct att_err *why)
{
    struct audit_cosigned now;
    bool linked = false;
    const struct audit_cosigner cosigner = {look, sign, raise_to, &p->signer, every_ms};
    audit_log_free(p->log);
    p->log = NULL;
    ok(audit_log_open(p->dir, ORIGIN, false, p->store, &p->log, &err));
    enum att_rc rc = audit_log_cosign(p->log, p->store, &cosigner, &now, &linked, why);
    return rc || !linked ? rc : audit_log_save_tpm_vkey(p->log, why);
}

static void start(struct place *p)
{
    ok(start_for(p, 3600000, &err));
}

static void start_refused(struct place *p, const char *reason)
{
    struct att_err why = {0};
    assert_int_equal(start_for(p, 3600000, &why), ATT_E_AUTH);
    assert_string_equal(why.reason, reason);
}

static enum att_rc publish(struct place *p, int decisions, struct att_err *why)
{
    bool behind = true;
    enum att_rc rc = ATT_OK;
    ok(store_run(p->store, true, append, &decisions, &err));
    while (!rc && behind) {
        rc = audit_log_publish(p->log, p->store, &behind, why);
    }
    return rc;
}

static void file_of(const struct place *p, const char *name, char ret[160])
{
    snprintf(ret, 160, "%s/%s", p->dir, name);
}

/* What the newest checkpoint of a file is, with both signatures. */
static struct audit_checkpoint stands(const struct place *p, const char *name)
{
    char path[160];
    att_autobuf bytes = {0};
    struct audit_note note;
    struct audit_checkpoint c;
    file_of(p, name, path);
    ok(att_io_read_file(path, AUDIT_NOTE_MAX, &bytes, &err));
    ok(audit_note_parse(att_buf_slice(&bytes), &note, &err));
    ok(audit_note_verify(&note, audit_log_vkey(p->log), &err));
    ok(audit_p256_verify(&note, audit_log_tpm_vkey(p->log), &err));
    ok(audit_checkpoint_parse(note.text, &c, &err));
    return c;
}

static void is_at(const struct place *p, uint64_t size, uint64_t counter, uint64_t tpm)
{
    struct audit_checkpoint guard = stands(p, "audit.checkpoint"),
                            published = stands(p, "audit-log/checkpoint");
    assert_int_equal(guard.size, size);
    assert_int_equal(published.size, size);
    assert_int_equal(guard.counter, counter);
    assert_int_equal(published.counter, counter);
    assert_int_equal(p->signer.now.counter, tpm);
}

/* A folder in the place of a file: what is written there fails. */
static void block(const struct place *p, const char *name, bool on)
{
    char path[160], inside[170];
    file_of(p, name, path);
    snprintf(inside, sizeof inside, "%s.moved", path);
    if (on) {
        assert_int_equal(rename(path, inside), 0);
        assert_int_equal(mkdir(path, 0700), 0);
    } else {
        assert_int_equal(rmdir(path), 0);
        assert_int_equal(rename(inside, path), 0);
    }
}

/* ---- tests
 * ----------------------------------------------------------------------------------------- */

static void test_counts_once_a_process(void **state)
{
    struct place p;
    (void)state;
    place_new(&p);
    start(&p);
    ok(publish(&p, 3, &err));
    is_at(&p, 3, 8, 8);
    ok(publish(&p, 300, &err));
    ok(publish(&p, 1, &err));
    is_at(&p, 304, 8, 8);
    ok(audit_log_seal(p.log, &err));
    is_at(&p, 304, 9, 9);
    ok(audit_log_seal(p.log, &err)); /* nothing since */
    is_at(&p, 304, 9, 9);
    start(&p);
    ok(audit_log_seal(p.log, &err));
    is_at(&p, 304, 9, 9);
    ok(publish(&p, 1, &err));
    is_at(&p, 305, 10, 10);
    place_done(&p);
}

static void test_counts_by_time(void **state)
{
    struct place p;
    (void)state;
    place_new(&p);
    ok(start_for(&p, 0, &err));
    ok(publish(&p, 1, &err));
    ok(publish(&p, 1, &err));
    is_at(&p, 2, 9, 9);
    p.signer.mood = EARLY; /* then without a new number */
    ok(publish(&p, 1, &err));
    is_at(&p, 3, 9, 9);
    p.signer.mood = FINE;
    ok(publish(&p, 0, &err)); /* idle: what was published with an old number gets a new one */
    is_at(&p, 3, 10, 10);
    int signs = p.signer.signs;
    ok(publish(&p, 0, &err));
    assert_int_equal(p.signer.signs, signs);
    place_done(&p);
}

/* Away before the signature: nothing is published, everything later. */
static void test_away_at_sign(void **state)
{
    struct place p;
    struct att_err why = {0};
    (void)state;
    place_new(&p);
    start(&p);
    ok(publish(&p, 3, &err));
    p.signer.mood = AWAY_SIGN;
    assert_int_equal(publish(&p, 2, &why), ATT_E_GONE);
    is_at(&p, 3, 8, 8);
    start(&p);
    p.signer.mood = FINE;
    ok(publish(&p, 0, &err));
    is_at(&p, 5, 9, 9);
    place_done(&p);
}

/* Signed, and the answer was lost: the issuer that goes on finds out what the other side knows. */
static void test_answer_lost(void **state)
{
    struct place p;
    struct att_err why = {0};
    (void)state;
    place_new(&p);
    start(&p);
    ok(publish(&p, 3, &err));
    p.signer.mood = LOST_SIGN;
    assert_int_equal(publish(&p, 2, &why), ATT_E_TIMEOUT);
    is_at(&p, 3, 8, 8);
    assert_int_equal(p.signer.now.last.size, 5);
    p.signer.mood = FINE;
    ok(publish(&p, 1, &err));
    is_at(&p, 6, 8, 8);
    start(&p); /* the next one counts */
    p.signer.mood = LOST_SIGN;
    att_err_clear(&why);
    assert_int_equal(publish(&p, 1, &why), ATT_E_TIMEOUT);
    p.signer.mood = FINE;
    ok(publish(&p, 1, &err));
    is_at(&p, 8, 9, 9);
    place_done(&p);
}

/* Lost, and the other side is another one by then, or was told something else. */
static void test_answer_lost_and_another(void **state)
{
    static const char *const reasons[] = {"logTpmKey", "logOrigin", "logRolledBack"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct place p;
        struct att_err why = {0};
        place_new(&p);
        start(&p);
        ok(publish(&p, 3, &err));
        p.signer.mood = LOST_SIGN;
        assert_int_equal(publish(&p, 2, &why), ATT_E_TIMEOUT);
        p.signer.mood = FINE;
        if (i == 0) {
            p.signer.now.spki[90] ^= 1;
        } else if (i == 1) {
            p.signer.now.last.origin[0] ^= 1;
        } else {
            p.signer.now.last.size = 2;
        }
        att_err_clear(&why);
        assert_int_equal(publish(&p, 1, &why), ATT_E_AUTH);
        assert_string_equal(why.reason, reasons[i]);
        place_done(&p);
    }
}

/* Signed, and ended before it was written: the number was signed, and is taken again. */
static void test_end_after_sign(void **state)
{
    struct place p;
    struct att_err why = {0};
    (void)state;
    place_new(&p);
    start(&p);
    ok(publish(&p, 3, &err));
    start(&p); /* so that the next one counts */
    block(&p, "audit.checkpoint", true);
    assert_int_not_equal(publish(&p, 2, &why), ATT_OK);
    assert_int_equal(p.signer.now.last.counter, 9);
    assert_int_equal(p.signer.now.last.size, 5);
    assert_int_equal(p.signer.now.counter, 8);
    block(&p, "audit.checkpoint", false);
    is_at(&p, 3, 8, 8);
    start(&p);
    is_at(&p, 3, 8, 8);
    ok(publish(&p, 1, &err));
    is_at(&p, 6, 9, 9);
    place_done(&p);
}

/* The guard has it, the published file does not. */
static void test_end_after_guard(void **state)
{
    struct place p;
    struct att_err why = {0};
    (void)state;
    place_new(&p);
    start(&p);
    ok(publish(&p, 3, &err));
    start(&p);
    block(&p, "audit-log/checkpoint", true);
    assert_int_not_equal(publish(&p, 2, &why), ATT_OK);
    block(&p, "audit-log/checkpoint", false);
    assert_int_equal(stands(&p, "audit.checkpoint").counter, 9);
    assert_int_equal(p.signer.now.counter, 8);
    start(&p); /* the counter follows the guard */
    ok(publish(&p, 0, &err));
    is_at(&p, 5, 9, 9);
    place_done(&p);
}

/* All written, the counter not raised: the next start or the next step does it. */
static void test_end_before_raise(void **state)
{
    struct place p;
    struct att_err why = {0};
    (void)state;
    place_new(&p);
    start(&p);
    p.signer.mood = AWAY_RAISE;
    assert_int_equal(publish(&p, 3, &why), ATT_E_GONE);
    is_at(&p, 3, 8, 7);
    p.signer.mood = FINE;
    ok(publish(&p, 0, &err));
    is_at(&p, 3, 8, 8);
    start(&p);
    p.signer.mood = AWAY_RAISE;
    att_err_clear(&why);
    assert_int_equal(publish(&p, 1, &why), ATT_E_GONE);
    is_at(&p, 4, 9, 8);
    p.signer.mood = FINE;
    start(&p);
    ok(publish(&p, 0, &err));
    is_at(&p, 4, 9, 9);
    place_done(&p);
}

static void test_start_refused(void **state)
{
    struct place p;
    (void)state;
    place_new(&p);
    start(&p);
    ok(publish(&p, 5, &err));
    is_at(&p, 5, 8, 8);
    struct audit_cosigned good = p.signer.now;
    p.signer.now.counter = 9; /* the disk is older */
    start_refused(&p, "logRolledBack");
    p.signer.now.counter = 6; /* a counter that went back is another one */
    start_refused(&p, "logCounter");
    p.signer.now = good;
    p.signer.now.last.size = 6; /* signed more than there is */
    start_refused(&p, "logRolledBack");
    p.signer.now.last.size = 4; /* its memory is older than its signature */
    start_refused(&p, "logForked");
    p.signer.now = good;
    p.signer.now.last = (struct audit_checkpoint){.origin = ""};
    start_refused(&p, "logRolledBack");
    p.signer.now = good;
    p.signer.now.last.root.bytes[3] ^= 1;
    start_refused(&p, "logForked");
    p.signer.now = good;
    p.signer.now.last.origin[0] = 'x';
    start_refused(&p, "logOrigin");
    p.signer.now = good;
    p.signer.now.counter = 20; /* made anew by an operator */
    p.signer.now.was = 8;
    start(&p);
    p.signer.now.was = 9; /* signed, not raised, then made anew */
    start(&p);
    p.signer.now.was = 10;
    start_refused(&p, "logRolledBack");
    p.signer.now = good;
    signer_key(&p.signer);
    start_refused(&p, "logTpmKey");
    place_done(&p);
}

static void test_a_signature_that_does_not_hold(void **state)
{
    struct place p;
    struct att_err why = {0};
    (void)state;
    place_new(&p);
    start(&p);
    p.signer.mood = LIES;
    assert_int_equal(publish(&p, 1, &why), ATT_E_AUTH);
    assert_string_equal(why.reason, "logTpmSignature");
    place_done(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts_once_a_process),
        cmocka_unit_test(test_counts_by_time),
        cmocka_unit_test(test_away_at_sign),
        cmocka_unit_test(test_answer_lost),
        cmocka_unit_test(test_answer_lost_and_another),
        cmocka_unit_test(test_end_after_sign),
        cmocka_unit_test(test_end_after_guard),
        cmocka_unit_test(test_end_before_raise),
        cmocka_unit_test(test_start_refused),
        cmocka_unit_test(test_a_signature_that_does_not_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
