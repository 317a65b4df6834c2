/* What is committed while a request is judged counts; and of two answers to one challenge one
 * does. */
#include "provision/store/store_internal.h"
#include "tests/unit/issuer/stage.h"

#include <pthread.h>
#include <stdatomic.h>

/* Somebody who holds the writer's lock: what comes meanwhile reads and judges, but cannot commit.
 */
struct holder {
    struct rig *rig;
    const char *sql;
    pthread_t thread;
    atomic_int holding, enough;
    enum att_rc rc;
};

static enum att_rc hold_tx(void *user, struct store_tx *tx, struct att_err *err)
{
    struct holder *h = user;
    atomic_store(&h->holding, 1);
    while (!atomic_load(&h->enough)) {
        usleep(1000);
    }
    return h->sql ? store_exec(tx, h->sql, NULL, 0, NULL, NULL, NULL, err) : ATT_OK;
}

static void *hold(void *user)
{
    struct holder *h = user;
    struct att_err err = {0};
    h->rc = store_run(h->rig->issuer->store, true, hold_tx, h, &err);
    return NULL;
}

static void hold_on(struct holder *h, struct rig *r, const char *sql)
{
    *h = (struct holder){.rig = r, .sql = sql};
    assert_int_equal(pthread_create(&h->thread, NULL, hold, h), 0);
    while (!atomic_load(&h->holding)) {
        usleep(1000);
    }
}

static void let_go(struct holder *h)
{
    usleep(500000); /* long enough to judge; if it is not, nothing is lost but the overlap */
    atomic_store(&h->enough, 1);
    pthread_join(h->thread, NULL);
    assert_int_equal(h->rc, ATT_OK);
}

/* A request under way in a thread of its own; the client is a copy with the same account. */
struct poster {
    struct client client;
    char url[256];
    const struct att_buf *payload;
    pthread_t thread;
    int status;
};

static void *post(void *user)
{
    struct poster *p = user;
    p->status = client_post(&p->client, p->url, false, att_buf_slice(p->payload));
    return NULL;
}

static void post_begin(struct poster *p, const struct client *c, const char *url,
                       const struct att_buf *payload)
{
    *p = (struct poster){.client = *c, .payload = payload};
    p->client.last = (struct issuer_response){0};
    p->client.body = NULL;
    EVP_PKEY_up_ref(p->client.key);
    rig_copy(p->url, sizeof p->url, url);
    assert_int_equal(pthread_create(&p->thread, NULL, post, p), 0);
}

static int post_end(struct poster *p)
{
    pthread_join(p->thread, NULL);
    return p->status;
}

/* Two answers at once: gives the one that was not accepted. */
static struct poster *post_twice(struct poster p[2], struct rig *r, const struct client *c,
                                 const char *url, const struct att_buf *payload)
{
    struct holder holder;
    hold_on(&holder, r, NULL);
    for (int i = 0; i < 2; i++) {
        post_begin(&p[i], c, url, payload);
    }
    let_go(&holder);
    int first = post_end(&p[0]), second = post_end(&p[1]);
    assert_true((first == 200) != (second == 200));
    return first == 200 ? &p[1] : &p[0];
}

static void posters_done(struct poster p[2])
{
    client_free(&p[0].client);
    client_free(&p[1].client);
}

static void assert_host(struct stage *s, const char *state, const char *reason)
{
    json_t *host = rig_admin(&s->rig, "host.show", json_pack("{s:s}", "id", s->tpm.ek_id));
    assert_string_equal(issuer_string(host, "state"), state);
    assert_string_equal(issuer_string(host, "reason"), reason);
    json_decref(host);
}

/* ---- an operator's word while a verdict is made
 * ------------------------------------------------------------------ */

static const char banned_sql[] =
    "UPDATE hosts SET state = 'banned', reason = 'stolen', label = 'meanwhile'";

static void ban_during_a_verdict(void **state)
{
    (void)state;
    for (int m4 = 0; m4 < 2; m4++) {
        struct stage s;
        struct enrolment e = {0};
        struct order o;
        struct holder holder;
        struct poster p;
        att_autobuf payload = {0};
        stage_enrolled(&s, "none");
        assert_int_equal(
            m4 ? rig_order(&s.client, RIG_NAME, &o) : rig_m1(&s.client, &s.tpm, NULL, &e), 201);
        s.tpm.clock.reset_count--; /* what a cleared TPM says */
        if (m4) {
            rig_m4_payload(&s.client, &s.tpm, &o, s.ak, &payload);
        } else {
            rig_m2_payload(&s.client, &s.tpm, &e, &payload);
        }
        hold_on(&holder, &s.rig, banned_sql);
        post_begin(&p, &s.client, m4 ? o.challenge : e.url, &payload);
        let_go(&holder);
        post_end(&p);
        client_refused(&p.client, "tpmCleared");
        assert_host(&s, "banned", "stolen");
        json_t *host = rig_admin(&s.rig, "host.show", json_pack("{s:s}", "id", s.tpm.ek_id));
        assert_string_equal(issuer_string(host, "label"), "meanwhile");
        json_decref(host);
        client_free(&p.client);
        enrolment_done(&e);
        stage_free(&s);
    }
}

/* A key that was judged as a memory key, as its entry said then, is not certified as what the entry
 * says by now: the certificate's key store is the entry's. */
static void entry_changes_during_a_verdict(void **state)
{
    (void)state;
    static const char changed_sql[] =
        "UPDATE entries SET json = replace(json, '\"key\":\"memory\"', '\"key\":\"tpm\"'), "
        "version = version + 1 WHERE json LIKE '%\"key\":\"memory\"%'";
    struct stage s;
    struct order o;
    struct holder holder;
    struct poster p;
    char selector[80];
    att_autobuf payload = {0};
    stage_enrolled(&s, "forge");
    reconfigure(&s.rig, "lifetime: 1h\n    keys: [tpm]", "lifetime: 15m\n    keys: [tpm, memory]");
    snprintf(selector, sizeof selector, "ek:%s", s.tpm.ek_id);
    rig_entries_with(&s.rig, selector, "memory");
    s.tpm.memory = true;
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    rig_m4_payload(&s.client, &s.tpm, &o, s.ak, &payload);
    hold_on(&holder, &s.rig, changed_sql);
    post_begin(&p, &s.client, o.challenge, &payload);
    let_go(&holder);
    post_end(&p);
    json_t *entry = rig_admin(&s.rig, "entry.show", json_pack("{s:s}", "name", RIG_NAME));
    char *text = json_dumps(entry, JSON_COMPACT);
    assert_non_null(strstr(text, "\"key\":\"tpm\""));
    free(text);
    json_decref(entry);
    client_refused(&p.client, "notAssigned");
    assert_int_equal(client_get(&s.client, o.url), 200);
    assert_string_equal(client_text(&s.client, "status"), "invalid");
    client_free(&p.client);
    stage_free(&s);
}

static void deactivation_stays(void **state)
{
    (void)state;
    struct stage s;
    struct holder holder;
    struct poster p;
    att_autobuf payload = {0};
    stage_enrolled(&s, "none");
    att_buf_put_str(&payload, "{\"contact\":[\"mailto:a@bank.example\"]}");
    hold_on(&holder, &s.rig, "UPDATE accounts SET status = 'deactivated'");
    post_begin(&p, &s.client, s.client.kid, &payload);
    let_go(&holder);
    assert_int_equal(post_end(&p), 403);
    client_refused(&p.client, "unauthorized");
    assert_int_equal(client_get(&s.client, s.client.kid), 403);
    client_free(&p.client);
    stage_free(&s);
}

/* The enrolment that holds from here on. */
static void take_ak(struct stage *s, const char *url)
{
    certs_autostack *certs = NULL;
    assert_int_equal(client_get(&s->client, url), 200);
    assert_string_equal(client_text(&s->client, "status"), "valid");
    rig_ok(certs_pem_parse(att_slice_str(client_text(&s->client, "akCertificate")), &certs, &err));
    att_buf_reset(&s->tpm.ak_cert);
    rig_ok(certs_cert_der(sk_X509_value(certs, 0), &s->tpm.ak_cert, &err));
    rig_copy(s->ak, sizeof s->ak, url);
}

/* ---- two answers
 * ------------------------------------------------------------------------------------------------
 */

static void two_finalizes_of_one_order(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    struct poster p[2];
    att_autobuf csr = {0}, payload = {0};
    stage_enrolled(&s, "none");
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    assert_string_equal(rig_m4(&s.client, &s.tpm, &o, s.ak), "valid");
    rig_ok(certs_csr_create(s.tpm.base->agent.pkey, "spiffe://bank.example/agent/" RIG_NAME, &csr,
                            &err));
    rig_ok(acme_finalize_request_encode(att_buf_slice(&csr), &payload, &err));
    struct poster *loser = post_twice(p, &s.rig, &s.client, o.finalize, &payload);
    client_refused(&loser->client, "orderNotReady");
    assert_int_equal(rig_rows(&s.rig, &store_certs), 1);
    assert_int_equal(client_get(&s.client, o.url), 200);
    assert_string_equal(client_text(&s.client, "status"), "valid");
    posters_done(p);
    stage_free(&s);
}

static void two_answers_to_one_activation(void **state)
{
    (void)state;
    struct stage s;
    struct enrolment e;
    struct order o;
    struct poster p[2];
    att_autobuf payload = {0};
    stage_enrolled(&s, "none");
    assert_int_equal(rig_m1(&s.client, &s.tpm, NULL, &e), 201);
    s.tpm.clock.clock_ms += 1000;
    rig_m2_payload(&s.client, &s.tpm, &e, &payload);
    struct poster *loser = post_twice(p, &s.rig, &s.client, e.url, &payload);
    client_refused(&loser->client, "activation");
    /* The refusal of the second did not end what the first made. */
    take_ak(&s, e.url);
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    s.tpm.clock.clock_ms += 1000;
    assert_string_equal(rig_m4(&s.client, &s.tpm, &o, s.ak), "valid");
    posters_done(p);
    enrolment_done(&e);
    stage_free(&s);
}

static void two_statements_for_one_token(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    struct poster p[2];
    att_autobuf payload = {0};
    stage_enrolled(&s, "none");
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    rig_m4_payload(&s.client, &s.tpm, &o, s.ak, &payload);
    struct poster *loser = post_twice(p, &s.rig, &s.client, o.challenge, &payload);
    client_refused(&loser->client, "malformed");
    assert_int_equal(client_get(&s.client, o.url), 200);
    assert_string_equal(client_text(&s.client, "status"), "ready");
    posters_done(p);
    stage_free(&s);
}

/* ---- an enrolment overtaken by a renewal
 * ------------------------------------------------------------------------ */

/* Quoted after M1; an agent's renewal, quoted later by ahead_ms, comes first. Gives the status of
 * M2. */
static int overtaken(struct stage *s, uint64_t ahead_ms)
{
    struct enrolment e;
    struct order o;
    att_autobuf payload = {0};
    assert_int_equal(rig_m1(&s->client, &s->tpm, NULL, &e), 201);
    s->tpm.clock.clock_ms += 1000;
    rig_m2_payload(&s->client, &s->tpm, &e, &payload);
    s->tpm.clock.clock_ms += ahead_ms;
    assert_int_equal(rig_order(&s->client, RIG_NAME, &o), 201);
    assert_string_equal(rig_m4(&s->client, &s->tpm, &o, s->ak), "valid");
    int status = client_post(&s->client, e.url, false, att_buf_slice(&payload));
    if (status == 200) {
        take_ak(s, e.url);
    }
    enrolment_done(&e);
    return status;
}

static void renewal_overtakes_an_enrolment(void **state)
{
    (void)state;
    for (int zero = 0; zero < 2; zero++) {
        struct stage s;
        struct order o;
        stage_new(&s, "none");
        if (zero) {
            s.tpm.clock.reset_count = s.tpm.clock.restart_count = 0;
        }
        stage_enrol(&s);
        assert_int_equal(overtaken(&s, 2000), 200);
        assert_host(&s, "approved", "");
        /* The newest clock stays the one to compare with. */
        s.tpm.clock.clock_ms -= 1000;
        assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
        assert_string_equal(rig_m4(&s.client, &s.tpm, &o, s.ak), "invalid");
        client_refused(&s.client, zero ? "tpmCleared" : "clockRollback");
        stage_free(&s);
    }
}

/* Behind by more than the time since M1: a clone that waited for its moment. */
static void clone_cannot_hide_behind_a_challenge(void **state)
{
    (void)state;
    struct stage s;
    stage_enrolled(&s, "none");
    assert_int_equal(overtaken(&s, 60000), 403);
    client_refused(&s.client, "clockRollback");
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ban_during_a_verdict),
        cmocka_unit_test(entry_changes_during_a_verdict),
        cmocka_unit_test(deactivation_stays),
        cmocka_unit_test(two_finalizes_of_one_order),
        cmocka_unit_test(two_answers_to_one_activation),
        cmocka_unit_test(two_statements_for_one_token),
        cmocka_unit_test(renewal_overtakes_an_enrolment),
        cmocka_unit_test(clone_cannot_hide_behind_a_challenge),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
