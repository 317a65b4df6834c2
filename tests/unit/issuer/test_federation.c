/* What an issuer takes for another trust domain's bundle, and what it makes of it: each refusal
 * alone, records, hosts' views, who may forget what was known. */
#include "certs/bundle.h"
#include "provision/issuer/federation_internal.h"
#include "provision/issuer/generations.h"
#include "tests/unit/issuer/admin_stage.h"
#include "tests/unit/issuer/tokens.h"

#include <openssl/x509v3.h>

#define DOMAINS                                                                                    \
    "federation:\n  trust_domains:\n"                                                              \
    "    - { name: partner.example, url: \"https://p.example/bundle\" }\n"                         \
    "    - { name: third.example, url: \"https://t.example/bundle\" }\n"

/* A root of its own with a key of its own, as a bundle that was parsed. */
static struct federation_bundle make(int64_t sequence)
{
    struct federation_bundle b = {.sequence = sequence, .hint_s = -1};
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    char text[24];
    static int n;
    assert_true(key && cert);
    snprintf(text, sizeof text, "root %d", n);
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), ++n);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                               (const unsigned char *)text, -1, -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(cert));
    X509_gmtime_adj(X509_getm_notBefore(cert), -60);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    BASIC_CONSTRAINTS *bc = BASIC_CONSTRAINTS_new();
    bc->ca = 0xff;
    assert_int_equal(X509_add1_ext_i2d(cert, NID_basic_constraints, bc, 1, 0), 1);
    BASIC_CONSTRAINTS_free(bc);
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    b.roots = sk_X509_new_null();
    sk_X509_push(b.roots, cert);
    b.keys = json_pack("[{s:s, s:s, s:s, s:s, s:s}]", "kty", "EC", "crv", "P-256", "x", text, "y",
                       "y", "kid", "k");
    EVP_PKEY_free(key);
    return b;
}

/* reason "": it is taken. */
static bool take(struct stage *s, const char *name, const struct federation_bundle *b,
                 bool from_file, const char *reason)
{
    struct take t = {.issuer = s->rig.issuer,
                     .name = name,
                     .bundle = b,
                     .from_file = from_file,
                     .now = rig_time};
    struct att_err err = {0};
    enum att_rc rc = store_run(s->rig.issuer->store, true, federation_take, &t, &err);
    if (strcmp(err.reason, reason) != 0) {
        print_error("expected \"%s\": %s (%s)\n", reason, err.reason, err.msg);
    }
    assert_string_equal(err.reason, reason);
    assert_int_equal(rc == ATT_OK, reason[0] == 0);
    return t.changed;
}

static json_t *show(struct stage *s, const char *name)
{
    return rig_admin(&s->rig, "federation.show", json_pack("{s:s}", "name", name));
}

static void shown(struct stage *s, const char *name, int64_t sequence, const char *source)
{
    json_t *json = show(s, name);
    assert_int_equal(json_integer_value(json_object_get(json, "sequence")), sequence);
    assert_string_equal(issuer_string(json, "source"), source);
    json_decref(json);
}

static void stage_federation(struct stage *s)
{
    stage_enrolled(s, "none");
    reconfigure(&s->rig, "profiles:\n", DOMAINS "jwt:\n  issuer: " ISS "\nprofiles:\n");
    rig_ok(issuer_jwt_start(s->rig.issuer, &err));
    rig_ok(issuer_federation_sync(s->rig.issuer, &err));
}

static void sequences(void **state)
{
    (void)state;
    struct stage s;
    struct federation_bundle five = make(5), same = make(5), six = make(6), four = make(4),
                             none = make(-1);
    stage_federation(&s);
    assert_true(take(&s, "partner.example", &five, false, ""));
    rig_audited(&s.rig, "updated", "");
    assert_false(take(&s, "partner.example", &five, false, "")); /* unchanged */
    assert_true(take(&s, "partner.example", &same, false, ""));  /* §4.1.1 is no must */
    assert_true(take(&s, "partner.example", &six, false, ""));
    (void)take(&s, "partner.example", &four, false, "bundleSequence");
    (void)take(&s, "partner.example", &none, false, "bundleSequence");
    shown(&s, "partner.example", 6, "endpoint");
    /* Another trust domain's sequence is its own. */
    assert_true(take(&s, "third.example", &four, false, ""));
    /* Until an operator lets it go back: once. */
    rig_admin_done(&s.rig, "federation.reset", json_pack("{s:s}", "name", "partner.example"));
    rig_audited(&s.rig, "reset", "");
    struct federation_bundle file = make(2), back = make(1), sooner = make(0);
    assert_true(take(&s, "partner.example", &file, true, "")); /* the endpoint's comes after it */
    shown(&s, "partner.example", 2, "file");
    assert_true(take(&s, "partner.example", &back, false, ""));
    shown(&s, "partner.example", 1, "endpoint");
    (void)take(&s, "partner.example", &sooner, false, "bundleSequence");
    struct federation_bundle *all[] = {&five, &same, &six, &four, &none, &file, &back, &sooner};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        federation_bundle_done(all[i]);
    }
    stage_free(&s);
}

static void whose(void **state)
{
    (void)state;
    struct stage s;
    struct federation_bundle good = make(1), b = make(2);
    stage_federation(&s);
    assert_true(take(&s, "partner.example", &good, false, ""));
    /* Our root, our key; in whichever place. */
    certs_autostack *roots = NULL;
    rig_ok(certs_bundle_parse(att_slice_str(issuer_generations_now(s.rig.issuer)->bundle), &roots,
                              &err));
    X509_up_ref(sk_X509_value(roots, 0));
    sk_X509_push(b.roots, sk_X509_value(roots, 0));
    (void)take(&s, "partner.example", &b, false, "bundleOwn");
    X509_free(sk_X509_pop(b.roots));
    json_t *keys = rig_admin(&s.rig, "ca.jwt", json_object());
    json_array_append(b.keys, json_array_get(json_object_get(keys, "keys"), 0));
    (void)take(&s, "partner.example", &b, false, "bundleOwn");
    json_array_remove(b.keys, 1);
    json_decref(keys);
    /* A third trust domain's: the wrong URL. */
    struct federation_bundle third = make(1);
    assert_true(take(&s, "third.example", &third, false, ""));
    (void)take(&s, "partner.example", &third, false, "bundleDomain");
    shown(&s, "partner.example", 1, "endpoint");
    assert_true(take(&s, "partner.example", &b, false, ""));
    federation_bundle_done(&good);
    federation_bundle_done(&b);
    federation_bundle_done(&third);
    stage_free(&s);
}

/* A partner who is no friend copies what another one has published and is about to use, and is
 * looked at first: that does not have the other one's bundle refused. It is told. */
static void copied(void **state)
{
    (void)state;
    struct stage s;
    struct federation_bundle third = make(1), next = make(2), thief = make(7);
    stage_federation(&s);
    assert_true(take(&s, "third.example", &third, false, ""));
    json_array_append(thief.keys, json_array_get(next.keys, 0));
    X509_up_ref(sk_X509_value(next.roots, 0));
    sk_X509_push(thief.roots, sk_X509_value(next.roots, 0));
    assert_true(take(&s, "partner.example", &thief, false, ""));
    rig_time += 900;
    assert_true(take(&s, "third.example", &next, false, ""));
    shown(&s, "third.example", 2, "endpoint");
    json_t *list = rig_admin(&s.rig, "audit.list", json_pack("{s:s}", "kind", "federation"));
    att_autobuf text = {0};
    assert_int_equal(att_json_dump(list, true, &text, NULL), ATT_OK);
    assert_non_null(strstr(att_buf_cstr(&text), "\"sharesKeysWith\":\"partner.example\""));
    json_decref(list);
    federation_bundle_done(&third);
    federation_bundle_done(&next);
    federation_bundle_done(&thief);
    stage_free(&s);
}

/* The records "updated", and how many changes without one the last of them tells. */
static size_t updates(struct stage *s, json_int_t *ret_unrecorded)
{
    json_t *list = rig_admin(&s->rig, "audit.list",
                             json_pack("{s:s, s:i}", "kind", "federation", "limit", 500));
    const json_t *records = json_object_get(list, "records"), *one;
    json_int_t newest = -1;
    size_t i, n = 0;
    json_array_foreach(records, i, one)
    {
        const json_t *record = json_object_get(one, "record");
        json_int_t seq = json_integer_value(json_object_get(one, "seq"));
        if (strcmp(issuer_string(record, "outcome"), "updated") != 0) {
            continue;
        }
        n++;
        if (seq > newest) {
            newest = seq;
            *ret_unrecorded = json_integer_value(json_object_get(record, "unrecorded"));
        }
    }
    json_decref(list);
    return n;
}

static json_int_t waiting(struct stage *s)
{
    json_t *json = show(s, "partner.example");
    json_int_t n = json_integer_value(json_object_get(json, "unrecorded"));
    json_decref(json);
    return n;
}

/* A bundle that is another one at each look: taken each time, eight
 * records at once and one more each 15 minutes. */
static void many_changes(void **state)
{
    (void)state;
    struct stage s;
    struct federation_bundle two[] = {make(1), make(1)};
    json_int_t unrecorded = -1;
    stage_federation(&s);
    for (size_t i = 0; i < 20;
         i++) { /* the first eight have a record, the last is of the 19th second */
        assert_true(take(&s, "partner.example", &two[i % 2], false, ""));
        rig_time++;
    }
    assert_int_equal(updates(&s, &unrecorded), 8);
    assert_int_equal(unrecorded, 0);
    assert_int_equal(waiting(&s), 12);
    /* Nothing changes any more: the log comes to say what is in force all the same. */
    rig_time += 900 - 21;
    assert_false(take(&s, "partner.example", &two[1], false, ""));
    assert_int_equal(updates(&s, &unrecorded), 8);
    rig_time += 1;
    assert_false(take(&s, "partner.example", &two[1], false, ""));
    assert_int_equal(updates(&s, &unrecorded), 9);
    assert_int_equal(unrecorded, 12);
    assert_int_equal(waiting(&s), 0);
    rig_time += 900;
    assert_false(take(&s, "partner.example", &two[1], false, ""));
    assert_int_equal(updates(&s, &unrecorded), 9);
    /* Another trust domain's record does not wait for it, nor what an operator asked for. */
    struct federation_bundle third = make(1);
    assert_true(take(&s, "partner.example", &two[0], false, ""));
    assert_int_equal(updates(&s, &unrecorded), 10);
    assert_int_equal(unrecorded, 0);
    assert_true(take(&s, "third.example", &third, false, ""));
    assert_int_equal(updates(&s, &unrecorded), 11);
    assert_true(take(&s, "partner.example", &two[1], false, ""));
    rig_admin_done(&s.rig, "federation.reset", json_pack("{s:s}", "name", "partner.example"));
    assert_false(take(&s, "partner.example", &two[1], false, ""));
    assert_int_equal(updates(&s, &unrecorded), 12);
    assert_int_equal(unrecorded, 1);
    /* A clock that went back does not silence the log. */
    rig_time -= 5000;
    assert_true(take(&s, "partner.example", &two[0], false, ""));
    assert_int_equal(updates(&s, &unrecorded), 13);
    federation_bundle_done(&two[0]);
    federation_bundle_done(&two[1]);
    federation_bundle_done(&third);
    stage_free(&s);
}

/* The endpoint stays away after a reset: the file is taken at each look, and is no news each time.
 */
static void file_again(void **state)
{
    (void)state;
    struct stage s;
    struct federation_bundle file = make(1), theirs = make(1);
    json_int_t unrecorded = -1;
    stage_federation(&s);
    assert_true(take(&s, "partner.example", &theirs, false, ""));
    rig_admin_done(&s.rig, "federation.reset", json_pack("{s:s}", "name", "partner.example"));
    assert_true(take(&s, "partner.example", &file, true, ""));
    for (size_t i = 0; i < 30; i++) {
        assert_false(take(&s, "partner.example", &file, true, ""));
        rig_time++;
    }
    assert_int_equal(updates(&s, &unrecorded), 8);
    assert_true(take(&s, "partner.example", &theirs, false, "")); /* what was asked for */
    assert_int_equal(updates(&s, &unrecorded), 9);
    assert_int_equal(unrecorded, 0);
    federation_bundle_done(&file);
    federation_bundle_done(&theirs);
    stage_free(&s);
}

static bool take_claimed(struct stage *s, const struct federation_bundle *b, int64_t claimed_at,
                         int64_t fetched_at, bool *ret_overtaken)
{
    struct take t = {.issuer = s->rig.issuer,
                     .name = "partner.example",
                     .bundle = b,
                     .now = rig_time,
                     .claimed_at = claimed_at,
                     .fetched_at = fetched_at};
    rig_ok(store_run(s->rig.issuer->store, true, federation_take, &t, &err));
    *ret_overtaken = t.overtaken;
    return t.changed;
}

/* Another issuer's look began after this one and has ended: what this one brings is older, and its
 * sequence does not tell. */
static void overtaken(void **state)
{
    (void)state;
    struct stage s;
    struct federation_bundle old = make(1), later = make(1);
    bool was = true;
    stage_federation(&s);
    assert_true(take(&s, "partner.example", &later, false, ""));
    /* In the row: claimed at 0 (no look of a thread), fetched at rig_time. */
    assert_false(take_claimed(&s, &old, rig_time - 9, rig_time - 60, &was));
    assert_true(was);
    /* One that began after this one and has not ended, or has failed, is no reason. */
    assert_true(take_claimed(&s, &old, rig_time - 9, rig_time, &was));
    assert_false(was);
    federation_bundle_done(&old);
    federation_bundle_done(&later);
    stage_free(&s);
}

static enum att_rc read_anew(void *user, struct store_tx *tx, struct att_err *err)
{
    struct store_federated row = {0};
    enum att_rc rc = federation_row(tx, "partner.example", &row, err);
    *(int64_t *)user = row.anew;
    store_record_done(&store_federated, &row);
    return rc;
}

/* A look that is under way when an operator takes the bundle out of force was believed by that very
 * bundle: what it brings is not the new one, whatever its sequence. */
static void reset_meanwhile(void **state)
{
    (void)state;
    struct stage s;
    struct federation_bundle known = make(5), forged = make(1), file = make(1), fresh = make(2);
    bool was = false;
    int64_t anew = -1;
    stage_federation(&s);
    assert_true(take(&s, "partner.example", &known, false, ""));
    for (int64_t resets = 1; resets <= 2; resets++) { /* the second: a look by the first file */
        rig_admin_done(&s.rig, "federation.reset", json_pack("{s:s}", "name", "partner.example"));
        struct take t = {.issuer = s.rig.issuer,
                         .name = "partner.example",
                         .bundle = &forged,
                         .now = rig_time,
                         .claimed_at = rig_time,
                         .fetched_at = rig_time,
                         .anew = resets - 1};
        rig_ok(store_run(s.rig.issuer->store, true, federation_take, &t, &err));
        assert_true(t.overtaken && !t.changed);
        rig_ok(store_run(s.rig.issuer->store, false, read_anew, &anew, &err));
        assert_int_equal(anew, resets);
        shown(&s, "partner.example", resets == 1 ? 5 : 1, resets == 1 ? "endpoint" : "file");
        if (resets == 1) {
            assert_true(take(&s, "partner.example", &file, true, ""));
        }
    }
    assert_true(take(&s, "partner.example", &fresh, false, ""));
    rig_ok(store_run(s.rig.issuer->store, false, read_anew, &anew, &err));
    assert_int_equal(anew, 0);
    assert_false(take_claimed(&s, &fresh, rig_time, rig_time, &was));
    assert_false(was);
    federation_bundle_done(&known);
    federation_bundle_done(&forged);
    federation_bundle_done(&file);
    federation_bundle_done(&fresh);
    stage_free(&s);
}

struct seen {
    struct issuer *issuer;
    const char *name;
    json_t *list;
};

static enum att_rc see(void *user, struct store_tx *tx, struct att_err *err)
{
    struct seen *seen = user;
    att_autojson *names = json_pack("{s:b}", seen->name, 1);
    return issuer_federation_view(seen->issuer->settings->conf->federation, tx, names, &seen->list,
                                  err);
}

static size_t view_has(struct stage *s, const char *name)
{
    struct seen seen = {.issuer = s->rig.issuer, .name = name};
    rig_ok(store_run(s->rig.issuer->store, false, see, &seen, &err));
    size_t n = json_array_size(seen.list);
    if (n) {
        const json_t *one = json_array_get(seen.list, 0);
        assert_string_equal(issuer_string(one, "trustDomain"), name);
        assert_non_null(strstr(issuer_string(one, "roots"), "BEGIN CERTIFICATE"));
        assert_int_equal(json_array_size(json_object_get(one, "keys")), 1);
    }
    json_decref(seen.list);
    return n;
}

/* Of what is asked for that which is configured and known; what is configured no more is
 * forgotten, and begins anew when it is again. */
static void views(void **state)
{
    (void)state;
    struct stage s;
    struct federation_bundle b = make(9), c = make(3), old = make(1);
    stage_federation(&s);
    assert_int_equal(view_has(&s, "partner.example"), 0);
    assert_true(take(&s, "partner.example", &b, false, ""));
    assert_true(take(&s, "third.example", &c, false, ""));
    assert_int_equal(view_has(&s, "partner.example"), 1);
    assert_int_equal(view_has(&s, "elsewhere.example"), 0);
    reconfigure(&s.rig, "    - { name: partner.example, url: \"https://p.example/bundle\" }\n", "");
    assert_int_equal(view_has(&s, "partner.example"), 0);
    rig_ok(issuer_federation_sync(s.rig.issuer, &err));
    rig_audited(&s.rig, "removed", "");
    rig_admin_refused(&s.rig, "federation.show", json_pack("{s:s}", "name", "partner.example"),
                      "federationUnknown");
    rig_admin_refused(&s.rig, "federation.reset", json_pack("{s:s}", "name", "partner.example"),
                      "federationUnknown");
    rig_admin_refused(&s.rig, "federation.refresh", json_pack("{s:s}", "name", "partner.example"),
                      "federationUnknown");
    assert_int_equal(view_has(&s, "third.example"), 1);
    /* Another issuer of this store, with the configuration of before, looks once more: the next
     * reload forgets that, too. */
    assert_true(take(&s, "partner.example", &b, false, ""));
    rig_ok(issuer_federation_sync(s.rig.issuer, &err));
    reconfigure(&s.rig, "    - { name: third.example",
                "    - { name: partner.example, url: \"https://p.example/bundle\" }\n"
                "    - { name: third.example");
    rig_ok(issuer_federation_sync(s.rig.issuer, &err));
    rig_audited(&s.rig, "configured", "");
    assert_int_equal(view_has(&s, "partner.example"), 0);
    assert_true(take(&s, "partner.example", &old, false, "")); /* its sequence is not known */
    federation_bundle_done(&b);
    federation_bundle_done(&c);
    federation_bundle_done(&old);
    stage_free(&s);
}

static void entries(void **state)
{
    (void)state;
    struct stage s;
    char text[1024];
    stage_federation(&s);
    snprintf(text, sizeof text,
             "trust_domain: bank.example\nagents:\n"
             "  - name: " RIG_NAME "\n    owner: x@bank.example\n    hosts: [ \"ek:%s\" ]\n"
             "    workload: { uid: 1001 }\n    key: tpm\n    profile: trading\n"
             "    federates_with: [ partner.example, fourth.example ]\n",
             s.tpm.ek_id);
    rig_admin_refused(&s.rig, "entry.apply", json_pack("{s:s}", "text", text), "federationUnknown");
    memcpy(strstr(text, "fourth"), " third", 6);
    rig_admin_done(&s.rig, "entry.apply", json_pack("{s:s}", "text", text));
    json_t *entry = rig_admin(&s.rig, "entry.show", json_pack("{s:s}", "name", RIG_NAME));
    assert_int_equal(json_array_size(json_object_get(entry, "federates_with")), 2);
    json_decref(entry);
    stage_free(&s);
}

/* To look is a CA operator's; to forget what was known wants a second one. */
static void roles(void **state)
{
    (void)state;
    struct stage s;
    struct federation_bundle b = make(9), old = make(1);
    json_t *result = NULL;
    stage_enrolled(&s, "none");
    rig_config(&s.rig, "none", DOMAINS ADMIN);
    reload(&s.rig);
    rig_ok(issuer_federation_sync(s.rig.issuer, &err));
    assert_true(take(&s, "partner.example", &b, false, ""));
#define THEM json_pack("{s:s}", "name", "partner.example")
    rig_ok(as(&s, "carol", "federation.list", json_object(), &result, &err));
    assert_int_equal(json_array_size(json_object_get(result, "trustDomains")), 2);
    json_decref(result);
    refused_as(&s, "bob", "federation.refresh", THEM, ATT_E_DENIED, "roleMissing");
    refused_as(&s, "bob", "federation.reset", THEM, ATT_E_DENIED, "roleMissing");
    rig_ok(as(&s, "op", "federation.reset", THEM, &result, &err));
    char id[64];
    rig_copy(id, sizeof id, issuer_string(json_object_get(result, "proposal"), "id"));
    json_decref(result);
    (void)take(&s, "partner.example", &old, false, "bundleSequence"); /* proposed is not done */
    refused_as(&s, "op", "proposal.approve", json_pack("{s:s}", "id", id), ATT_E_CONFLICT,
               "fourEyes");
    rig_ok(as(&s, "op2", "proposal.approve", json_pack("{s:s}", "id", id), NULL, &err));
    assert_true(take(&s, "partner.example", &old, false, ""));
    federation_bundle_done(&b);
    federation_bundle_done(&old);
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequences),       cmocka_unit_test(whose),
        cmocka_unit_test(copied),          cmocka_unit_test(views),
        cmocka_unit_test(entries),         cmocka_unit_test(roles),
        cmocka_unit_test(many_changes),    cmocka_unit_test(overtaken),
        cmocka_unit_test(reset_meanwhile), cmocka_unit_test(file_again)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
