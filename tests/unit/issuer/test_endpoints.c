/* TLS certificate and view signer are renewed while the issuer runs, by a clock that the test
 * moves; what fails is told and tried again; and nothing outlives what signed it. */
#include "tests/unit/issuer/rig.h"

#include <signal.h>
#include <sys/resource.h>

#define DAY 86400

static void open_rig(struct rig *r, struct tpm *t)
{
    tpm_new(t);
    rig_new(r, t->base->maker_root, "none");
    rig_time = att_now_utc_s();
}

static void close_rig(struct rig *r, struct tpm *t)
{
    rig_free(r);
    tpm_free(t);
}

struct ends {
    char tls[2 * 20 + 1], view[2 * 20 + 1];
    int64_t tls_end, tls_begin, view_end;
};

static struct ends now_in_use(struct rig *r)
{
    issuer_autoendpoints *e = issuer_endpoints_get(r->issuer->ca);
    struct certs_cert_info info;
    struct ends ret = {0};
    rig_ok(certs_cert_info(e->tls, &info, &err));
    rig_copy(ret.tls, sizeof ret.tls, info.serial_hex);
    ret.tls_end = info.not_after;
    ret.tls_begin = info.not_before;
    rig_ok(certs_cert_info(e->view, &info, &err));
    rig_copy(ret.view, sizeof ret.view, info.serial_hex);
    ret.view_end = info.not_after;
    /* What is served is what it says it is. */
    assert_int_equal(X509_cmp(SSL_CTX_get0_certificate(e->ssl), e->tls), 0);
    rig_ok(certs_cert_matches_key(e->tls, e->tls_key, &err));
    rig_ok(certs_cert_matches_key(e->view, e->view_key, &err));
    assert_int_equal(X509_verify(e->tls, X509_get0_pubkey(r->issuer->ca->tls_root)), 1);
    assert_int_equal(X509_verify(e->view, X509_get0_pubkey(r->issuer->ca->tls_root)), 1);
    return ret;
}

static size_t warnings(struct rig *r, const char *op, const char *word)
{
    json_t *status = rig_admin(r, op, json_object());
    const json_t *list = json_object_get(status, "warnings");
    assert_true(json_is_array(list));
    size_t n = 0, i;
    json_t *text;
    json_array_foreach((json_t *)(uintptr_t)list, i, text)
    {
        n += strstr(json_string_value(text), word) != NULL;
    }
    json_decref(status);
    return n;
}

static void file(struct rig *r, char ret[256], const char *name)
{
    snprintf(ret, 256, "%s/state/ca/%s", r->dir, name);
}

static void rename_file(struct rig *r, const char *from, const char *to)
{
    char old[256], new[256];
    file(r, old, from);
    file(r, new, to);
    assert_int_equal(rename(old, new), 0);
}

static void renewed_at_two_thirds(void **state)
{
    (void)state;
    struct rig r;
    struct tpm t;
    open_rig(&r, &t);
    struct ends first = now_in_use(&r);
    issuer_autoendpoints *old = issuer_endpoints_get(r.issuer->ca); /* as a connection keeps it */
    json_t *ca = rig_admin(&r, "ca.status", json_object());
    size_t i;
    json_t *one;
    int renewed = 0;
    json_array_foreach(json_object_get(ca, "authorities"), i, one)
    {
        assert_true(json_integer_value(json_object_get(one, "endsInS")) > 300 * DAY);
        renewed += json_is_string(json_object_get(one, "renewAt"));
    }
    assert_int_equal(renewed, 2);
    json_decref(ca);
    int64_t at = issuer_endpoint_renew_at(old->tls);
    assert_true(at > rig_time + 264 * DAY && at < rig_time + 265 * DAY);
    rig_time = at - 1;
    issuer_ca_tick(r.issuer, false);
    assert_string_equal(now_in_use(&r).tls, first.tls);
    rig_time = at + 60;
    issuer_ca_tick(r.issuer, false);
    struct ends second = now_in_use(&r);
    assert_string_not_equal(second.tls, first.tls);
    assert_string_not_equal(second.view, first.view);
    assert_true(second.tls_end >= rig_time + 396 * DAY && second.view_end == second.tls_end);
    assert_int_equal(warnings(&r, "ca.status", "failed"), 0);
    /* The files are those in use, and the old ones live as long as somebody has them. */
    issuer_ca_tick(r.issuer, false);
    assert_string_equal(now_in_use(&r).tls, second.tls);
    assert_non_null(SSL_CTX_get0_certificate(old->ssl));
    char path[256];
    file(&r, path, "tls.key.new");
    assert_int_equal(access(path, F_OK), -1);
    close_rig(&r, &t);
}

/* The head that the signer before has signed still counts, and is written anew by the new one. */
static void audit_head_survives(void **state)
{
    (void)state;
    struct rig r;
    struct tpm t;
    open_rig(&r, &t);
    json_decref(rig_ticket(&r, NULL, 1));
    rig_ok(issuer_audit_save_head(r.issuer, &err));
    rig_time += 300 * DAY;
    issuer_ca_tick(r.issuer, false);
    rig_admin_done(&r, "audit.verify", json_object());
    assert_true(r.issuer->head_missing);
    rig_ok(issuer_audit_save_head(r.issuer, &err));
    assert_false(r.issuer->head_missing);
    rig_admin_done(&r, "audit.verify", json_object());
    /* A start that renews (the rig opens by the true time, before which these begin). */
    struct ends before = now_in_use(&r);
    issuer_free(r.issuer);
    rig_open(&r);
    assert_string_not_equal(now_in_use(&r).view, before.view);
    assert_true(r.issuer->head_missing);
    json_t *audit = rig_admin(&r, "audit.list", json_pack("{s:s}", "kind", "config"));
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(audit, "records"), i, row)
    {
        assert_string_not_equal(issuer_string(json_object_get(row, "record"), "reason"),
                                "auditHead");
    }
    json_decref(audit);
    rig_ok(issuer_audit_save_head(r.issuer, &err));
    rig_admin_done(&r, "audit.verify", json_object());
    /* Somebody else's signature is none. */
    char path[256];
    file(&r, path, "view.before.crt");
    assert_int_equal(unlink(path), 0);
    snprintf(path, sizeof path, "%s/state/audit.head", r.dir);
    att_autobuf text = {0};
    rig_ok(att_io_read_file(path, 4096, &text, &err));
    char *sig = strstr((char *)text.ptr, "\"sig\"");
    assert_non_null(sig);
    sig[20] = sig[20] == 'A' ? 'B' : 'A';
    rig_ok(att_io_write_file(path, att_buf_slice(&text), 0600, &err));
    rig_admin_refused(&r, "audit.verify", json_object(), "auditHead");
    close_rig(&r, &t);
}

static void ca_key_away(void **state)
{
    (void)state;
    struct rig r;
    struct tpm t;
    open_rig(&r, &t);
    struct issuer_ca *ca = r.issuer->ca;
    struct ends first = now_in_use(&r);
    rename_file(&r, "tls-root.key", "elsewhere");
    rig_time += 300 * DAY;
    for (int64_t pause = 60000; pause <= 7200000; pause *= 2) {
        ca->try_ms = 0;
        issuer_ca_tick(r.issuer, false);
        assert_int_equal(ca->pause_ms, pause < 3600000 ? pause : 3600000);
        assert_int_equal(ca->failed_at, rig_time);
        int64_t next = ca->try_ms;
        issuer_ca_tick(r.issuer, false); /* not before its time */
        assert_int_equal(ca->try_ms, next);
        assert_string_equal(now_in_use(&r).tls, first.tls);
        assert_int_equal(warnings(&r, "ca.status", "tls-root.key"), 1);
        assert_int_equal(warnings(&r, "status", "the old ones stay in use"), 1);
    }
    rename_file(&r, "elsewhere", "tls-root.key");
    issuer_ca_tick(r.issuer, true); /* SIGHUP does not wait */
    assert_string_not_equal(now_in_use(&r).tls, first.tls);
    assert_int_equal(warnings(&r, "ca.status", "failed"), 0);
    assert_int_equal(ca->pause_ms, 0);
    close_rig(&r, &t);
}

/* Not a byte can be written: the pair on the disk is still the old one, whole. */
static void disk_full(void **state)
{
    (void)state;
    struct rig r;
    struct tpm t;
    open_rig(&r, &t);
    struct ends first = now_in_use(&r);
    struct rlimit was, none;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    none = was;
    none.rlim_cur = 0;
    signal(SIGXFSZ, SIG_IGN);
    rig_time += 300 * DAY;
    fflush(NULL);
    setrlimit(RLIMIT_FSIZE, &none);
    issuer_ca_tick(r.issuer, false);
    setrlimit(RLIMIT_FSIZE, &was);
    assert_true(r.issuer->ca->failed_at != 0);
    assert_string_equal(now_in_use(&r).tls, first.tls);
    issuer_ca_tick(r.issuer, true);
    assert_string_not_equal(now_in_use(&r).tls, first.tls);
    close_rig(&r, &t);
}

/* Power fails after the first of the two renames. */
static void crash_between_renames(void **state)
{
    (void)state;
    struct rig r;
    struct tpm t;
    open_rig(&r, &t);
    char path[256];
    att_autobuf old = {0};
    file(&r, path, "tls.crt");
    rig_ok(att_io_read_file(path, 65536, &old, &err));
    rig_time += 300 * DAY;
    issuer_ca_tick(r.issuer, false);
    struct ends second = now_in_use(&r);
    rename_file(&r, "tls.crt", "tls.crt.new");
    rig_ok(att_io_write_file(path, att_buf_slice(&old), 0644, &err));
    issuer_ca_tick(r.issuer, true);
    assert_string_equal(now_in_use(&r).tls, second.tls);
    /* A leaked key is done away with by removing it. */
    assert_int_equal(unlink(path), 0);
    file(&r, path, "tls.key");
    assert_int_equal(unlink(path), 0);
    issuer_ca_tick(r.issuer, true);
    assert_string_not_equal(now_in_use(&r).tls, second.tls);
    assert_string_equal(now_in_use(&r).view, second.view);
    close_rig(&r, &t);
}

static void root_near_its_end(void **state)
{
    (void)state;
    struct rig r;
    struct tpm t;
    open_rig(&r, &t);
    struct issuer_ca *ca = r.issuer->ca;
    assert_int_equal(warnings(&r, "ca.status", "ends in"), 0);
    rig_time = ca->tls_root_end - 100 * DAY;
    issuer_ca_tick(r.issuer, false);
    struct ends last = now_in_use(&r);
    assert_int_equal(last.tls_end, ca->tls_root_end);
    assert_int_equal(last.view_end, ca->tls_root_end);
    assert_int_equal(warnings(&r, "ca.status", "tls-root ends in"), 0);
    assert_int_equal(warnings(&r, "ca.status", "workload-ca has ended"), 1);
    /* A new one would last no longer. */
    rig_time = ca->tls_root_end - 10 * DAY;
    issuer_ca_tick(r.issuer, false);
    assert_string_equal(now_in_use(&r).tls, last.tls);
    assert_int_equal(warnings(&r, "ca.status", "tls-root ends in 10 days"), 1);
    /* Too late: that is said, and asked for no more than the pauses allow. */
    rig_time = ca->tls_root_end + 1;
    issuer_ca_tick(r.issuer, false);
    assert_true(ca->failed_at != 0);
    assert_int_equal(warnings(&r, "ca.status", "tls-root has ended"), 1);
    close_rig(&r, &t);
}

static void warned_from_the_configured_time(void **state)
{
    (void)state;
    struct rig r;
    struct tpm t;
    open_rig(&r, &t);
    int64_t end = r.issuer->ca->workload_end;
    rig_time = end - 91 * DAY;
    assert_int_equal(warnings(&r, "ca.status", "workload-ca ends"), 0);
    rig_time = end - 89 * DAY;
    assert_int_equal(warnings(&r, "ca.status", "workload-ca ends in 89 days"), 1);
    assert_int_equal(warnings(&r, "status", "attest-ca ends"), 1);
    assert_int_equal(warnings(&r, "status", "workload-root"), 0);
    close_rig(&r, &t);
}

/* A leaf never outlives what signed it: it gets shorter, and below the least lifetime there is
 * none. */
static void leaf_within_its_ca(void **state)
{
    (void)state;
    struct rig r;
    struct tpm t;
    struct client c;
    struct order o;
    char ak[256], selector[80], url[256];
    tpm_new(&t);
    rig_new(&r, t.base->maker_root, "none");
    client_new(&c, &r);
    r.issuer->ca->attest_end = rig_time + 3 * DAY;
    rig_enrol(&c, &t, ak);
    certs_autox509 *ak_cert = NULL;
    struct certs_cert_info info;
    rig_ok(certs_cert_parse(att_buf_slice(&t.ak_cert), &ak_cert, &err));
    rig_ok(certs_cert_info(ak_cert, &info, &err));
    assert_int_equal(info.not_after, rig_time + 3 * DAY);
    snprintf(selector, sizeof selector, "ek:%s", t.ek_id);
    rig_entries(&r, selector);
    const int64_t left[] = {1800, 121, 100};
    for (size_t i = 0; i < 3; i++) {
        r.issuer->ca->workload_end = rig_time + left[i];
        assert_int_equal(rig_order(&c, RIG_NAME, &o), 201);
        assert_string_equal(rig_m4(&c, &t, &o, ak), "valid");
        int status = rig_finalize(&c, &o, t.base->agent.pkey, FORGE_IDENTIFIER);
        if (left[i] < 120) {
            assert_int_not_equal(status, 200);
            continue;
        }
        assert_int_equal(status, 200);
        rig_copy(url, sizeof url, client_text(&c, "certificate"));
        assert_int_equal(client_get(&c, url), 200);
        certs_autostack *chain = NULL;
        rig_ok(certs_pem_parse(att_buf_slice(&c.last.body), &chain, &err));
        rig_ok(certs_cert_info(sk_X509_value(chain, 0), &info, &err));
        assert_int_equal(info.not_after, rig_time + left[i]);
    }
    assert_int_equal(rig_rows(&r, &store_certs), 2);
    client_free(&c);
    close_rig(&r, &t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(renewed_at_two_thirds),
        cmocka_unit_test(audit_head_survives),
        cmocka_unit_test(ca_key_away),
        cmocka_unit_test(disk_full),
        cmocka_unit_test(crash_between_renames),
        cmocka_unit_test(root_near_its_end),
        cmocka_unit_test(warned_from_the_configured_time),
        cmocka_unit_test(leaf_within_its_ca),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
