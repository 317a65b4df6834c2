/* An audit log over a store: what a crash leaves, rotations, a database that is taken back while
 * the log is open, who joins, what is served of partial tiles. */
#include "provision/audit/files.h"
#include "provision/audit/log.h"
#include "provision/store/store_internal.h"

#include "attestd/base/io.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
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
            print_error("%s:%d: %s: %s\n", __FILE__, __LINE__, att_rc_name(got), err.msg);         \
        }                                                                                          \
        assert_int_equal(got, ATT_OK);                                                             \
    } while (0)

struct place {
    char dir[64], spec[96];
    struct store *store;
};

static void place_new(struct place *p)
{
    char ca[80];
    *p = (struct place){.dir = "/tmp/log-test-XXXXXX"};
    assert_non_null(mkdtemp(p->dir));
    snprintf(ca, sizeof ca, "%s/ca", p->dir);
    ok(att_io_mkdirs(ca, 0700, &err));
    snprintf(p->spec, sizeof p->spec, "%s/t.db", p->dir);
    ok(store_open(p->spec, &p->store, &err));
}

static void place_done(struct place *p)
{
    char command[96];
    store_free(p->store);
    snprintf(command, sizeof command, "rm -rf '%s'", p->dir);
    assert_int_equal(system(command), 0);
}

static void in(const struct place *p, const char *name, char ret[160])
{
    snprintf(ret, 160, "%s/%s", p->dir, name);
}

static void drop(const struct place *p, const char *name)
{
    char path[160];
    in(p, name, path);
    assert_int_equal(unlink(path), 0);
}

static void move(const struct place *p, const char *from, const char *to)
{
    char a[160], b[160];
    in(p, from, a);
    in(p, to, b);
    assert_int_equal(rename(a, b), 0);
}

static bool there(const struct place *p, const char *name)
{
    char path[160];
    in(p, name, path);
    return access(path, F_OK) == 0;
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

static void decide(struct place *p, int n)
{
    ok(store_run(p->store, true, append, &n, &err));
}

static enum att_rc script(void *user, struct store_tx *tx, struct att_err *err)
{
    return tx->store->ops->script(tx->con, user, err);
}

static void sql(struct place *p, const char *text)
{
    ok(store_run(p->store, true, script, (void *)(uintptr_t)text, &err));
}

static struct audit_log *opened(struct place *p, bool joins)
{
    struct audit_log *log = NULL;
    ok(audit_log_open(p->dir, ORIGIN, joins, p->store, &log, &err));
    return log;
}

static void open_refused(struct place *p, bool joins, const char *reason)
{
    struct audit_log *log = NULL;
    struct att_err why = {0};
    assert_int_equal(audit_log_open(p->dir, ORIGIN, joins, p->store, &log, &why), ATT_E_AUTH);
    assert_string_equal(why.reason, reason);
    assert_null(log);
}

static void publish(struct place *p, struct audit_log *log)
{
    bool behind = true;
    while (behind) {
        ok(audit_log_publish(log, p->store, &behind, &err));
    }
}

static void publish_refused(struct place *p, struct audit_log *log, const char *reason)
{
    bool behind = false;
    struct att_err why = {0};
    assert_int_equal(audit_log_publish(log, p->store, &behind, &why), ATT_E_AUTH);
    assert_string_equal(why.reason, reason);
}

/* 0: none is published. */
static uint64_t published(const struct place *p)
{
    char path[160];
    att_autobuf note = {0};
    struct audit_note parsed;
    struct audit_checkpoint c;
    in(p, "audit-log/checkpoint", path);
    if (att_io_read_file(path, AUDIT_NOTE_MAX, &note, NULL)) {
        return 0;
    }
    ok(audit_note_parse(att_buf_slice(&note), &parsed, &err));
    ok(audit_checkpoint_parse(parsed.text, &c, &err));
    return c.size;
}

/* ---- the key
 * ---------------------------------------------------------------------------------- */

/* A start that ends where the key would be written. */
static void guard_before_the_key(void **state)
{
    (void)state;
    struct place p;
    char vkey[160];
    place_new(&p);
    in(&p, "ca/log.vkey", vkey);
    assert_int_equal(mkdir(vkey, 0700), 0); /* no file takes its place */
    assert_int_not_equal(audit_log_make_key(p.dir, ORIGIN, NULL), ATT_OK);
    assert_true(there(&p, "audit.checkpoint"));
    assert_false(there(&p, "ca/log.key"));
    assert_int_equal(rmdir(vkey), 0);
    struct audit_log *log = opened(&p, false);
    decide(&p, 3);
    publish(&p, log);
    assert_int_equal(published(&p), 3);
    audit_log_free(log);
    place_done(&p);
}

/* What is left when it ended between guard and key, and between verifier and key. */
static void ended_before_the_key(void **state)
{
    (void)state;
    for (int with_vkey = 0; with_vkey < 2; with_vkey++) {
        struct place p;
        place_new(&p);
        ok(audit_log_make_key(p.dir, ORIGIN, &err));
        drop(&p, "ca/log.key");
        if (!with_vkey) {
            drop(&p, "ca/log.vkey");
        }
        struct audit_log *log = opened(&p, false);
        decide(&p, 1);
        publish(&p, log);
        audit_log_free(log);
        audit_log_free(opened(&p, false));
        drop(&p, "ca/log.key");
        open_refused(&p, false, "logKey"); /* something was published */
        place_done(&p);
    }
}

static void rotation_without_records(void **state)
{
    (void)state;
    struct place p;
    place_new(&p);
    struct audit_log *log = opened(&p, false);
    decide(&p, 2);
    publish(&p, log);
    audit_log_free(log);
    move(&p, "ca/log.key", "ca/log.before.key");
    move(&p, "ca/log.vkey", "ca/log.before.vkey");
    log = opened(&p, false);
    publish(&p, log);
    audit_log_free(log);
    drop(&p, "ca/log.before.key");
    drop(&p, "ca/log.before.vkey");
    log = opened(&p, false);
    assert_int_equal(audit_log_size(log), 2);
    publish(&p, log);
    audit_log_free(log);
    place_done(&p);
}

/* ---- another database
 * ------------------------------------------------------------------------- */

static void forked_while_open(void **state)
{
    (void)state;
    static const struct {
        int n;
        const char *change;
    } cases[] = {
        {3, "UPDATE audit_leaves SET leaf = x'00' WHERE seq = 3"},
        {3, "UPDATE audit_leaves SET leaf = x'00' WHERE seq = 1"},
        {256, "UPDATE audit_leaves SET leaf = x'00' WHERE seq = 256"}, /* a tile that is full */
        {300, "UPDATE audit_leaves SET leaf = x'00' WHERE seq = 257"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct place p;
        place_new(&p);
        struct audit_log *log = opened(&p, false);
        decide(&p, cases[i].n);
        publish(&p, log);
        sql(&p, cases[i].change);
        decide(&p, 1);
        publish_refused(&p, log, "logForked");
        assert_int_equal(published(&p), cases[i].n);
        audit_log_free(log);
        place_done(&p);
    }
}

/* A full tile is gone on from, and the log is whole. */
static void over_a_full_tile(void **state)
{
    (void)state;
    struct place p;
    struct audit_checkpoint c;
    place_new(&p);
    struct audit_log *log = opened(&p, false);
    decide(&p, 256);
    publish(&p, log);
    decide(&p, 256);
    publish(&p, log);
    decide(&p, 1);
    publish(&p, log);
    ok(audit_log_verify(log, p.store, &c, &err));
    assert_int_equal(c.size, 513);
    assert_false(there(&p, "audit-log/tile/0/001.p"));
    audit_log_free(log);
    audit_log_free(opened(&p, false));
    place_done(&p);
}

/* ---- who joins
 * -------------------------------------------------------------------------------- */

static void joins_without_the_key(void **state)
{
    (void)state;
    struct place p;
    place_new(&p);
    audit_log_free(opened(&p, true)); /* the first one */
    drop(&p, "audit.checkpoint");
    drop(&p, "ca/log.key");
    decide(&p, 1);
    open_refused(&p, true, "logKey");
    assert_false(there(&p, "ca/log.key"));
    assert_false(there(&p, "audit.checkpoint"));
    audit_log_free(opened(&p, false)); /* a new log */
    place_done(&p);
}

/* More leaves than are read, or published, at a time. */
static void joins_and_catches_up(void **state)
{
    (void)state;
    struct place p;
    bool behind = false;
    place_new(&p);
    struct audit_log *log = opened(&p, false);
    decide(&p, 2 * AUDIT_STEP + 10);
    publish(&p, log);
    audit_log_free(log);
    audit_log_free(opened(&p, false));
    char command[192];
    snprintf(command, sizeof command, "rm -rf '%s/audit-log' '%s/audit.checkpoint'", p.dir, p.dir);
    assert_int_equal(system(command), 0);
    log = opened(&p, true);
    ok(audit_log_publish(log, p.store, &behind, &err));
    assert_true(behind);
    assert_int_equal(published(&p), 0); /* older than what the others have published */
    publish(&p, log);
    assert_int_equal(published(&p), 2 * AUDIT_STEP + 10);
    struct audit_checkpoint c;
    ok(audit_log_verify(log, p.store, &c, &err));
    audit_log_free(log);
    place_done(&p);
}

/* ---- what is served
 * --------------------------------------------------------------------------- */

static void narrower_than_what_is_there(void **state)
{
    (void)state;
    struct place p;
    place_new(&p);
    struct audit_log *log = opened(&p, false);
    decide(&p, 20);
    publish(&p, log);
    decide(&p, 10);
    publish(&p, log);
    for (unsigned width = 1; width <= 32; width++) {
        att_autobuf hashes = {0}, entries = {0}, whole = {0};
        char path[80];
        bool final = false;
        snprintf(path, sizeof path, "tile/0/000.p/%u", width);
        enum att_rc rc = audit_log_read(p.dir, path, &hashes, &final, NULL);
        assert_int_equal(rc, width <= 30 ? ATT_OK : ATT_E_NOTFOUND);
        snprintf(path, sizeof path, "tile/entries/000.p/%u", width);
        assert_int_equal(audit_log_read(p.dir, path, &entries, &final, NULL), rc);
        if (rc == ATT_OK) {
            struct att_slice rest = att_buf_slice(&entries), entry;
            ok(audit_log_read(p.dir, "tile/0/000.p/30", &whole, &final, &err));
            assert_int_equal(hashes.len, width * AUDIT_HASH_LEN);
            assert_memory_equal(hashes.ptr, whole.ptr, hashes.len);
            for (unsigned i = 0; i < width; i++) {
                ok(audit_bundle_next(&rest, &entry, &err));
            }
            assert_int_equal(rest.len, 0);
        }
    }
    audit_log_free(log);
    place_done(&p);
}

struct proof {
    const struct audit_log *log;
    int64_t seq;
};

static enum att_rc prove(void *user, struct store_tx *tx, struct att_err *err)
{
    const struct proof *proof = user;
    struct audit_inclusion inclusion = {0};
    enum att_rc rc = audit_log_prove(proof->log, tx, proof->seq, &inclusion, err);
    audit_inclusion_done(&inclusion);
    return rc;
}

/* Not published, or not there for a transaction that began before it was. */
static void no_proof_yet(void **state)
{
    (void)state;
    struct place p;
    place_new(&p);
    struct audit_log *log = opened(&p, false);
    decide(&p, 3);
    publish(&p, log);
    ok(store_run(p.store, false, prove, &(struct proof){log, 3}, &err));
    sql(&p, "DELETE FROM audit_leaves WHERE seq = 3");
    for (int64_t seq = 3; seq < 5; seq++) {
        struct att_err why = {0};
        assert_int_equal(store_run(p.store, false, prove, &(struct proof){log, seq}, &why),
                         ATT_E_RETRY);
        assert_string_equal(why.reason, "logBehind");
    }
    audit_log_free(log);
    place_done(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guard_before_the_key),
        cmocka_unit_test(ended_before_the_key),
        cmocka_unit_test(rotation_without_records),
        cmocka_unit_test(forked_while_open),
        cmocka_unit_test(over_a_full_tile),
        cmocka_unit_test(joins_without_the_key),
        cmocka_unit_test(joins_and_catches_up),
        cmocka_unit_test(narrower_than_what_is_there),
        cmocka_unit_test(no_proof_yet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
