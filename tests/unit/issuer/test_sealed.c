/* What opens the parent of an agent's key: in the record, in the certificate, and asked for again
 * where the profile demands another since the verdict. */
#include "tests/unit/issuer/stage.h"

#include "certs/oid.h"

#define KEYS   "keys: [tpm]\n    boot: forge"
#define POLICY "5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c"
#define OTHER  "5d5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c"

static void ready(struct stage *s, struct order *o)
{
    s->tpm.clock.clock_ms += 1000;
    assert_int_equal(rig_order(&s->client, RIG_NAME, o), 201);
    assert_string_equal(rig_m4(&s->client, &s->tpm, o, s->ak), "valid");
}

static int finalize(struct stage *s, struct order *o)
{
    return rig_finalize(&s->client, o, s->tpm.base->agent.pkey, FORGE_IDENTIFIER);
}

/* parent_policy of the profile from now on; NULL: none. */
static void demand(struct stage *s, const char *before, const char *now)
{
    char old[200], new[200];
    snprintf(old, sizeof old, "%s%s%s", KEYS, before ? "\n    parent_policy: " : "",
             before ? before : "");
    snprintf(new, sizeof new, "%s%s%s", KEYS, now ? "\n    parent_policy: " : "", now ? now : "");
    reconfigure(&s->rig, old, new);
}

static json_t *record_of(struct stage *s, const char *outcome)
{
    json_t *result = rig_admin(&s->rig, "audit.list", json_pack("{s:i}", "limit", 10)),
           *found = NULL;
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(result, "records"), i, row)
    {
        json_t *record = json_object_get(row, "record");
        if (!found && strcmp(issuer_string(record, "outcome"), outcome) == 0 &&
            strcmp(issuer_string(record, "kind"), "issue") == 0) {
            found = json_incref(record);
        }
    }
    json_decref(result);
    assert_non_null(found);
    return found;
}

static void demanded_since(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_enrolled(&s, "forge");
    ready(&s, &o); /* nothing was demanded, and what is now is what the key has */
    demand(&s, NULL, POLICY);
    assert_int_equal(finalize(&s, &o), 200);
    ready(&s, &o);
    demand(&s, POLICY, OTHER);
    assert_int_equal(finalize(&s, &o), 403);
    client_refused(&s.client, "keyParent");
    assert_int_equal(finalize(&s, &o), 403); /* the order is dead */
    client_refused(&s.client, "orderNotReady");
    demand(&s, OTHER, POLICY);
    ready(&s, &o);
    demand(&s, POLICY, "7"); /* the PCR's value of the quote is not asked for again */
    assert_int_equal(finalize(&s, &o), 403);
    client_refused(&s.client, "keyParent");
    demand(&s, "7", POLICY);
    ready(&s, &o);
    demand(&s, POLICY, NULL);
    assert_int_equal(finalize(&s, &o), 200);
    stage_free(&s);
}

/* The chain of the order that the last answer finished. */
static STACK_OF(X509) * issued(struct stage *s)
{
    char url[400];
    certs_autostack *chain = NULL;
    snprintf(url, sizeof url, "%s", client_text(&s->client, "certificate"));
    assert_int_equal(client_get(&s->client, url), 200);
    rig_ok(certs_pem_parse(att_buf_slice(&s->client.last.body), &chain, &err));
    STACK_OF(X509) *ret = chain;
    chain = NULL;
    return ret;
}

static void under_srk(struct forge *f, enum forge_stage stage)
{
    (void)stage;
    f->no_parent = true;
}

/* A key right under the SRK, and a policy that is demanded since. */
static void not_sealed(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    struct certs_sealed sealed;
    stage_enrolled(&s, "forge");
    s.tpm.mutate = under_srk;
    ready(&s, &o);
    att_autojson *record = record_of(&s, "granted");
    assert_null(json_object_get(record, "sealed"));
    assert_int_equal(finalize(&s, &o), 200);
    certs_autostack *chain = issued(&s);
    assert_int_equal(certs_sealed_get(sk_X509_value(chain, 0), &sealed, NULL), ATT_E_NOTFOUND);
    ready(&s, &o);
    demand(&s, NULL, POLICY);
    assert_int_equal(finalize(&s, &o), 403);
    client_refused(&s.client, "keyParent");
    stage_free(&s);
}

static void in_certificate_and_record(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    struct certs_sealed sealed = {0};
    char hex[2 * ATT_SHA256_LEN + 1];
    stage_enrolled(&s, "forge");
    ready(&s, &o);
    att_autojson *record = record_of(&s, "granted");
    const json_t *said = json_object_get(record, "sealed");
    assert_string_equal(issuer_string(said, "authPolicy"), POLICY);
    assert_true(json_is_null(json_object_get(said, "counter"))); /* none was named: said so */
    assert_int_equal(finalize(&s, &o), 200);
    certs_autostack *chain = issued(&s);
    rig_ok(certs_sealed_get(sk_X509_value(chain, 0), &sealed, &err));
    att_hex(hex, ATT_SLICE_ARRAY(sealed.policy));
    assert_string_equal(hex, POLICY);
    assert_int_equal(sealed.counter, 0);
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(demanded_since),
        cmocka_unit_test(not_sealed),
        cmocka_unit_test(in_certificate_and_record),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
