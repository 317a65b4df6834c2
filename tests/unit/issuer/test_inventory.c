/* TPMs without an EK certificate: nothing but the operator's word says that an EK is a TPM's. */
#include "tests/unit/issuer/stage.h"

/* One host of the inventory that, when it enrolled, listed a certificate for a key on disk; and
 * what has that key as its EK. */
struct pair {
    struct rig rig;
    struct tpm tpm, disk;
    struct client client;
    struct forge_key own;
};

static void pair_new(struct pair *p)
{
    struct enrolment e;
    tpm_new(&p->tpm);
    tpm_new_other(&p->disk);
    p->tpm.no_ek_cert = p->disk.no_ek_cert = true;
    rig_new(&p->rig, p->tpm.base->maker_root, "none");
    reconfigure(&p->rig, "ek: certificate", "ek: inventory");
    client_new(&p->client, &p->rig);
    json_t *ticket = rig_ticket(&p->rig, p->tpm.ek_id, 1);
    assert_int_equal(client_account(&p->client, ticket), 201);
    json_decref(ticket);
    assert_int_equal(rig_m1(&p->client, &p->tpm, &p->disk.base->ek_cert, &e), 201);
    assert_int_equal(rig_m2(&p->client, &p->tpm, &e), 200);
    enrolment_done(&e);
    /* The TPM's AK beside the key on disk, which whoever has both can use. */
    p->own = p->disk.base->ak;
    p->disk.base->ak = p->tpm.base->ak;
    p->disk.clock = p->tpm.clock;
    p->disk.clock.clock_ms += 1000;
}

static void pair_free(struct pair *p)
{
    p->disk.base->ak = p->own;
    client_free(&p->client);
    rig_free(&p->rig);
    tpm_free(&p->tpm);
    tpm_free(&p->disk);
}

static int64_t eks_of(struct rig *r, const char *host)
{
    json_t *shown = rig_admin(r, "host.show", json_pack("{s:s}", "id", host));
    int64_t n = (int64_t)json_array_size(json_object_get(shown, "eks"));
    json_decref(shown);
    return n;
}

/* The host's own account: M1 knows no host by that EK, and its ticket is spent. */
static void listed_key_is_not_the_hosts_ek(void **state)
{
    (void)state;
    struct pair p;
    struct enrolment e;
    pair_new(&p);
    assert_int_equal(rig_m1(&p.client, &p.disk, NULL, &e), 403);
    client_refused(&p.client, "ticketInvalid");
    assert_int_equal(eks_of(&p.rig, p.tpm.ek_id), 1);
    enrolment_done(&e);
    pair_free(&p);
}

/* An account with a ticket that is good, but names no EK: M2 refuses. */
static void listed_key_needs_an_operator(void **state)
{
    (void)state;
    struct pair p;
    struct client other;
    struct enrolment e;
    pair_new(&p);
    client_new(&other, &p.rig);
    json_t *ticket = rig_ticket(&p.rig, NULL, 1);
    assert_int_equal(client_account(&other, ticket), 201);
    json_decref(ticket);
    assert_int_equal(rig_m1(&other, &p.disk, NULL, &e), 201);
    assert_int_equal(rig_m2(&other, &p.disk, &e), 403);
    client_refused(&other, "hostUnknown");
    rig_audited(&p.rig, "refused", "hostUnknown");
    assert_int_equal(eks_of(&p.rig, p.tpm.ek_id), 1);
    assert_int_equal(rig_rows(&p.rig, &store_hosts), 1);
    enrolment_done(&e);
    client_free(&other);
    pair_free(&p);
}

/* Named by a ticket it is a host of its own, and never the one that listed it. */
static void named_key_is_another_host(void **state)
{
    (void)state;
    struct pair p;
    struct client other;
    struct enrolment e;
    pair_new(&p);
    client_new(&other, &p.rig);
    json_t *ticket = rig_ticket(&p.rig, p.disk.ek_id, 1);
    assert_int_equal(client_account(&other, ticket), 201);
    json_decref(ticket);
    assert_int_equal(rig_m1(&other, &p.disk, NULL, &e), 201);
    assert_int_equal(rig_m2(&other, &p.disk, &e), 200);
    assert_string_equal(issuer_string(json_object_get(other.body, "host"), "id"), p.disk.ek_id);
    assert_int_equal(eks_of(&p.rig, p.tpm.ek_id), 1);
    assert_int_equal(eks_of(&p.rig, p.disk.ek_id), 1);
    att_buf_done(&p.disk.ak_cert);
    enrolment_done(&e);
    client_free(&other);
    pair_free(&p);
}

/* The AK of a banned host counts against it, whatever EK comes along. */
static void listed_key_of_a_banned_host(void **state)
{
    (void)state;
    struct pair p;
    struct client other;
    struct enrolment e;
    pair_new(&p);
    rig_admin_done(&p.rig, "host.ban",
                   json_pack("{s:s, s:s}", "id", p.tpm.ek_id, "reason", "stolen"));
    client_new(&other, &p.rig);
    json_t *ticket = rig_ticket(&p.rig, p.disk.ek_id, 1);
    assert_int_equal(client_account(&other, ticket), 201);
    json_decref(ticket);
    assert_int_equal(rig_m1(&other, &p.disk, NULL, &e), 403);
    client_refused(&other, "hostBanned");
    enrolment_done(&e);
    client_free(&other);
    pair_free(&p);
}

/* ---- import
 * ---------------------------------------------------------------------------------------------------
 */

static json_t *import(struct rig *r, const char *ek)
{
    char csv[256];
    snprintf(csv, sizeof csv, "ek,label,labels\n%s,web-17,zone=trading\n", ek);
    return rig_admin(r, "host.import", json_pack("{s:s}", "text", csv));
}

static void assert_state(struct rig *r, const char *ek, const char *state)
{
    json_t *host = rig_admin(r, "host.show", json_pack("{s:s}", "id", ek));
    assert_string_equal(issuer_string(host, "state"), state);
    json_decref(host);
}

/* The same file again does not approve a host whose TPM was cleared; an operator does. */
static void import_after_a_cleared_tpm(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_enrolled(&s, "none");
    json_decref(import(&s.rig, s.tpm.ek_id));
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    s.tpm.clock.reset_count--;
    assert_string_equal(rig_m4(&s.client, &s.tpm, &o, s.ak), "invalid");
    assert_state(&s.rig, s.tpm.ek_id, "pending");
    json_t *result = import(&s.rig, s.tpm.ek_id);
    const json_t *pending = json_array_get(json_object_get(result, "pending"), 0);
    assert_string_equal(issuer_string(pending, "id"), s.tpm.ek_id);
    assert_string_equal(issuer_string(pending, "reason"), "tpmCleared");
    json_decref(result);
    assert_state(&s.rig, s.tpm.ek_id, "pending");
    rig_admin_done(&s.rig, "host.approve", json_pack("{s:s}", "id", s.tpm.ek_id));
    result = import(&s.rig, s.tpm.ek_id);
    assert_int_equal(json_array_size(json_object_get(result, "pending")), 0);
    json_decref(result);
    assert_state(&s.rig, s.tpm.ek_id, "approved");
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(listed_key_is_not_the_hosts_ek),
        cmocka_unit_test(listed_key_needs_an_operator),
        cmocka_unit_test(named_key_is_another_host),
        cmocka_unit_test(listed_key_of_a_banned_host),
        cmocka_unit_test(import_after_a_cleared_tpm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
