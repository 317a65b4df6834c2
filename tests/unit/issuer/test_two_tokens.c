/* Two issuers on one PostgreSQL and the keys that sign tokens: who has not got a key says so, signs
 * nothing, publishes nothing of its own, and is waited for. */
#include "tests/unit/issuer/pair.h"
#include "tests/unit/issuer/tokens.h"

#include "provision/issuer/generations.h"
#include "provision/issuer/jwt_internal.h"

struct two {
    struct pair p;
    struct held held;
};

static void start_b(struct two *t)
{
    reconfigure(&t->p.b, "profiles:\n", "jwt:\n  issuer: " ISS "\nprofiles:\n");
    rig_ok(issuer_jwt_start(t->p.b.issuer, &err));
}

/* The main loop's turn, whenever the last one was. */
static void turn(struct rig *r)
{
    r->issuer->ca->look_ms = 0;
    r->issuer->ca->tell_ms = 0;
    if (r->issuer->jwt) {
        r->issuer->jwt->look_ms = 0;
    }
    issuer_generations_tick(r->issuer);
    issuer_jwt_tick(r->issuer);
}

static void both(struct two *t)
{
    turn(&t->p.a.rig);
    turn(&t->p.b);
    turn(&t->p.a.rig);
    turn(&t->p.b);
}

/* with_files: ca/ is copied when the first key is in it. */
static void two_new(struct two *t, bool with_files)
{
    if (with_files) {
        stage_tokens(&t->p.a, &t->held);
        join(&t->p.b, &t->p.a.rig, "forge");
    } else {
        stage_enrolled(&t->p.a, "forge");
        join(&t->p.b, &t->p.a.rig, "forge");
        reconfigure(&t->p.a.rig, "profiles:\n", "jwt:\n  issuer: " ISS "\nprofiles:\n");
        rig_ok(issuer_jwt_start(t->p.a.rig.issuer, &err));
        token_entries(&t->p.a, "    audiences: [ \"" AUD "\" ]\n");
        issue(&t->p.a, &t->held);
    }
    start_b(t);
    both(t);
}

static size_t keys(struct rig *r, json_t **ret)
{
    json_t *got = rig_admin(r, "ca.jwt", json_object());
    size_t n = json_array_size(json_object_get(got, "keys"));
    *ret = json_incref(json_object_get(got, "keys"));
    json_decref(got);
    return n;
}

static size_t published(struct rig *r)
{
    json_t *list = NULL;
    size_t n = keys(r, &list);
    json_decref(list);
    return n;
}

/* Of the i-th key: what keeps this issuer from using it, and who cannot. */
static void told(struct rig *r, size_t i, bool lacks, bool other_lacks)
{
    json_t *list = NULL;
    (void)keys(r, &list);
    const json_t *one = json_array_get(list, i);
    assert_int_equal(issuer_string(one, "lacks")[0] != 0, lacks);
    assert_int_equal(issuer_string(one, "issuerBehind")[0] != 0, other_lacks);
    json_decref(list);
}

static void copy_keys(const struct rig *from, const struct rig *to)
{
    char command[700];
    snprintf(command, sizeof command,
             "mkdir -p -m 700 '%s/state/ca/jwt' && cp -a '%s'/state/ca/jwt/* '%s/state/ca/jwt/'",
             to->dir, from->dir, to->dir);
    assert_int_equal(system(command), 0);
}

static void checked(struct rig *r, const char *reason)
{
    char path[192];
    struct att_err why = {0};
    snprintf(path, sizeof path, "%s/issuer.yaml", r->dir);
    enum att_rc rc = issuer_check(path, &why);
    if (strcmp(why.reason, reason) != 0) {
        print_error("expected \"%s\": %s (%s)\n", reason, why.reason, why.msg);
    }
    assert_string_equal(why.reason, reason);
    assert_int_equal(rc == ATT_OK, reason[0] == 0);
}

struct asked {
    struct issuer *issuer;
    char kid[ACME_THUMBPRINT_LEN];
};

static enum att_rc ask_signer(void *user, struct store_tx *tx, struct att_err *err)
{
    struct asked *a = user;
    EVP_PKEY *key = NULL;
    enum att_rc rc = issuer_jwt_signer(a->issuer, tx, rig_time, a->kid, &key, err);
    EVP_PKEY_free(key);
    return rc;
}

/* The key by which this issuer would sign now. */
static void signs(struct rig *r, char ret_kid[ACME_THUMBPRINT_LEN])
{
    struct asked a = {.issuer = r->issuer};
    rig_ok(store_run(r->issuer->store, false, ask_signer, &a, &err));
    rig_copy(ret_kid, ACME_THUMBPRINT_LEN, a.kid);
}

static void signs_not(struct rig *r)
{
    struct asked a = {.issuer = r->issuer};
    struct att_err why = {0};
    assert_int_equal(store_run(r->issuer->store, false, ask_signer, &a, &why), ATT_E_RETRY);
    assert_string_equal(why.reason, "jwtKeyMissing");
}

static void two_free(struct two *t)
{
    pair_free(&t->p);
}

static void key_of_the_other(void **state)
{
    (void)state;
    struct two t;
    char first[ACME_THUMBPRINT_LEN], kid[ACME_THUMBPRINT_LEN];
    two_new(&t, false);
    told(&t.p.a.rig, 0, false, true);
    told(&t.p.b, 0, true, false);
    signs(&t.p.a.rig, first);
    signs_not(&t.p.b);
    at(&t.p, true); /* over the wire: again, at another one */
    assert_int_equal(ask(&t.p.a, &t.held, &right), 429);
    at(&t.p, false);
    assert_int_equal(ask(&t.p.a, &t.held, &right), 200);
    assert_false(issuer_jwt_elsewhere(t.p.a.rig.issuer));
    assert_true(issuer_jwt_elsewhere(t.p.b.issuer));
    checked(&t.p.a.rig, "");
    checked(&t.p.b, "jwtKeyMissing");
    /* However long that lasts: no key against the one that is in use. */
    rig_time += ISSUER_JWT_LINGER_S + 10;
    both(&t);
    assert_int_equal(published(&t.p.b), 1);
    /* Another key under its name. */
    char command[700];
    copy_keys(&t.p.a.rig, &t.p.b);
    snprintf(command, sizeof command,
             "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 2>/dev/null > "
             "\"$(ls '%s'/state/ca/jwt/*.key)\"",
             t.p.b.dir);
    assert_int_equal(system(command), 0);
    both(&t);
    told(&t.p.b, 0, true, false);
    signs_not(&t.p.b);
    checked(&t.p.b, "jwtKeyMissing");
    /* And the right one. */
    copy_keys(&t.p.a.rig, &t.p.b);
    both(&t);
    told(&t.p.a.rig, 0, false, false);
    told(&t.p.b, 0, false, false);
    assert_false(issuer_jwt_elsewhere(t.p.b.issuer));
    checked(&t.p.b, "");
    signs(&t.p.b, kid);
    assert_string_equal(kid, first);
    two_free(&t);
}

/* When nobody that is there has the key, a new one signs; who comes back makes none against it. */
static void key_that_is_gone(void **state)
{
    (void)state;
    struct two t;
    char command[300];
    two_new(&t, false);
    rig_time += ISSUER_JWT_LINGER_S + 10; /* issuer A says nothing meanwhile */
    turn(&t.p.b);
    assert_int_equal(published(&t.p.b), 2);
    both(&t);
    told(&t.p.a.rig, 0, false, true);
    told(&t.p.a.rig, 1, true, false);
    assert_true(issuer_jwt_elsewhere(t.p.a.rig.issuer));
    rig_time += ISSUER_JWT_LINGER_S + 10;
    turn(&t.p.b); /* it never was silent */
    both(&t);
    assert_int_equal(published(&t.p.b), 1); /* the first is over */
    /* One issuer whose folder is lost is as before: alone it makes the next one. */
    snprintf(command, sizeof command, "rm -r '%s/state/ca/jwt'", t.p.b.dir);
    assert_int_equal(system(command), 0);
    issuer_jwt_free(t.p.b.issuer);
    rig_ok(issuer_jwt_start(t.p.b.issuer, &err));
    rig_time += ISSUER_LIVE_S + 1;
    turn(&t.p.b);
    assert_int_equal(published(&t.p.b), 2);
    two_free(&t);
}

static void rotation_waits(void **state)
{
    (void)state;
    struct two t;
    char first[ACME_THUMBPRINT_LEN], kid[ACME_THUMBPRINT_LEN];
    two_new(&t, true);
    told(&t.p.a.rig, 0, false, false);
    signs(&t.p.b, first);
    const struct conf_jwt *conf = t.p.a.rig.issuer->settings->conf->jwt;
    const int64_t wait = conf->publish_wait_s;
    rig_time += conf->rotate_s - wait;
    both(&t);
    assert_int_equal(published(&t.p.a.rig), 2);
    told(&t.p.a.rig, 1, false, true);
    checked(&t.p.b, "jwtKeyMissing");
    /* Its time comes, and it waits. */
    rig_time += wait - 10;
    both(&t);
    rig_audited(&t.p.a.rig, "postponed", "jwtIssuerBehind");
    rig_time += 20;
    both(&t);
    signs(&t.p.a.rig, kid);
    assert_string_equal(kid, first);
    signs(&t.p.b, kid);
    assert_string_equal(kid, first);
    /* Until the other has it. */
    copy_keys(&t.p.a.rig, &t.p.b);
    both(&t);
    told(&t.p.a.rig, 1, false, false);
    for (int i = 0; i < 8; i++) { /* the clock goes on, and with it the turns */
        rig_time += wait / 8;
        both(&t);
    }
    signs(&t.p.b, kid);
    assert_string_not_equal(kid, first);
    two_free(&t);
}

static void by_hand(void **state)
{
    (void)state;
    struct two t;
    char kid[ACME_THUMBPRINT_LEN];
    struct att_err why = {0};
    two_new(&t, true);
    assert_int_equal(issuer_jwt_replace(t.p.a.rig.issuer, false, NULL, kid, &why), ATT_E_CONFLICT);
    assert_string_equal(why.reason, "jwtIssuerBehind");
    assert_int_equal(published(&t.p.a.rig), 1);
    /* A key that was stolen goes, whoever has the next one. */
    rig_ok(issuer_jwt_replace(t.p.a.rig.issuer, true, NULL, kid, &err));
    assert_int_equal(published(&t.p.a.rig), 1);
    both(&t);
    signs_not(&t.p.b);
    assert_true(issuer_jwt_elsewhere(t.p.b.issuer));
    /* An issuer that mints no tokens is not waited for. */
    reconfigure(&t.p.b, "jwt:\n  issuer: " ISS "\n", "");
    both(&t);
    told(&t.p.a.rig, 0, false, false);
    rig_ok(issuer_jwt_replace(t.p.a.rig.issuer, false, NULL, kid, &err));
    two_free(&t);
}

static void mark(const struct rig *r, const char *text)
{
    char dir[160];
    snprintf(dir, sizeof dir, "%s/state", r->dir);
    rig_write(dir, "backup.json", text);
}

/* A folder that was put back while the others serve takes no key of theirs; one whose database was
 * put back with it does. */
static void restored(void **state)
{
    (void)state;
    struct two t;
    char first[ACME_THUMBPRINT_LEN], at_text[ATT_TIME_TEXT_LEN], text[96];
    two_new(&t, true);
    signs(&t.p.a.rig, first);
    att_time_text(at_text, rig_time + 5);
    snprintf(text, sizeof text, "{\"version\": 1, \"madeAt\": \"%s\"}", at_text);
    mark(&t.p.b, text);
    rig_ok(issuer_restored(t.p.b.issuer, &err));
    assert_int_equal(published(&t.p.b), 1);
    mark(&t.p.b, "{\"version\": 1, \"madeAt\": \"yesterday\"}");
    struct att_err why = {0};
    assert_int_not_equal(issuer_restored(t.p.b.issuer, &why), ATT_OK);
    assert_string_equal(why.reason, "backupMark");
    char command[700]; /* one that is there and cannot be looked at is not none */
    snprintf(command, sizeof command,
             "cd '%s/state' && rm backup.json && ln -s backup.json backup.json", t.p.b.dir);
    assert_int_equal(system(command), 0);
    assert_int_not_equal(issuer_restored(t.p.b.issuer, &why), ATT_OK);
    assert_string_equal(why.reason, "backupMark");
    snprintf(command, sizeof command, "rm '%s/state/backup.json'", t.p.b.dir);
    assert_int_equal(system(command), 0);
    mark(&t.p.b, text);
    rig_time += ISSUER_LIVE_S + 1;
    rig_ok(issuer_restored(t.p.b.issuer, &err));
    assert_int_equal(published(&t.p.b), 0);
    rig_audited(&t.p.b, "removed", "restored");
    /* Once; and what was made after the backup stays. */
    turn(&t.p.b);
    assert_int_equal(published(&t.p.b), 1);
    mark(&t.p.b, text);
    rig_ok(issuer_restored(t.p.b.issuer, &err));
    assert_int_equal(published(&t.p.b), 1);
    two_free(&t);
}

/* An issuer that began with a CA of its own. */
static void other_ca(void **state)
{
    (void)state;
    struct two t;
    char path[192], command[1024];
    struct att_err why = {0};
    two_new(&t, true);
    issuer_free(t.p.b.issuer);
    t.p.b.issuer = NULL;
    snprintf(path, sizeof path, "%s/issuer.yaml", t.p.b.dir);
    snprintf(command, sizeof command, "rm -rf '%s'/state/audit* && mv '%s/state/ca' '%s/copy'",
             t.p.b.dir, t.p.b.dir, t.p.b.dir);
    assert_int_equal(system(command), 0);
    rig_ok(issuer_init(path, &err));
    snprintf(command, sizeof command,
             "cp -a '%s'/copy/log.* '%s/state/ca/' && rm -rf '%s'/state/audit*", t.p.b.dir,
             t.p.b.dir, t.p.b.dir);
    assert_int_equal(system(command), 0);
    assert_int_not_equal(issuer_open(path, &t.p.b.issuer, &why), ATT_OK);
    assert_string_equal(why.reason, "caOther");
    checked(&t.p.b, "caOther");
    snprintf(command, sizeof command, "rm -r '%s/state/ca' && mv '%s/copy' '%s/state/ca'",
             t.p.b.dir, t.p.b.dir, t.p.b.dir);
    assert_int_equal(system(command), 0);
    checked(&t.p.b, "");
    rig_open(&t.p.b);
    /* And a generation whose key only the other one has. */
    at(&t.p, false);
    json_t *got = rig_admin(&t.p.a.rig, "ca.prepare", json_pack("{s:s}", "kind", "workload"));
    json_decref(got);
    checked(&t.p.a.rig, "");
    checked(&t.p.b, "caKeyMissing");
    two_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(key_of_the_other), cmocka_unit_test(key_that_is_gone),
        cmocka_unit_test(rotation_waits),   cmocka_unit_test(by_hand),
        cmocka_unit_test(restored),         cmocka_unit_test(other_ca),
    };
    assert_int_equal(setenv("ATT_TEST_STORE", "postgres", 1), 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
