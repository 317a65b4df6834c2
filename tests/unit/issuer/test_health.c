/* What /ready rests on, and what the metrics count: by the very handlers, without sockets. */
#include "provision/issuer/metrics.h"
#include "tests/unit/issuer/rig.h"

static struct tpm tpm;

static void is(struct rig *r, const char *why)
{
    issuer_health_look(r->issuer);
    const char *now = issuer_health_why(r->issuer);
    if (why) {
        assert_non_null(now);
        assert_string_equal(now, why);
    } else if (now) {
        fail_msg("not ready: %s", now);
    }
}

static void test_starting_and_draining(void **state)
{
    (void)state;
    struct rig r = {0};
    rig_new(&r, tpm.base->maker_root, "none");
    assert_string_equal(issuer_health_why(r.issuer), "starting");
    assert_false(issuer_health_live(r.issuer));
    is(&r, NULL);
    assert_true(issuer_health_live(r.issuer));
    /* A main loop that hangs: what it saw last is not known to hold. */
    atomic_store(&r.issuer->turned_ms, att_boottime_ms() - 20000);
    assert_string_equal(issuer_health_why(r.issuer), "stalled");
    assert_true(issuer_health_live(r.issuer));
    atomic_store(&r.issuer->turned_ms, att_boottime_ms() - 61000);
    assert_false(issuer_health_live(r.issuer));
    issuer_health_drain(r.issuer);
    is(&r, "draining");
    assert_true(issuer_health_live(r.issuer));
    rig_free(&r);
}

static void test_authority_has_ended(void **state)
{
    (void)state;
    struct rig r = {0};
    rig_new(&r, tpm.base->maker_root, "none");
    is(&r, NULL);
    rig_time = r.issuer->ca->workload_end - 1;
    /* TLS ends earlier, and is renewed by the main loop, which does not run here. */
    is(&r, "ca");
    rig_time = FORGE_NOW;
    is(&r, NULL);
    int64_t end = r.issuer->ca->attest_end;
    r.issuer->ca->attest_end = rig_time;
    is(&r, "ca");
    r.issuer->ca->attest_end = end;
    end = r.issuer->ca->workload_end;
    r.issuer->ca->workload_end = rig_time;
    is(&r, "ca");
    r.issuer->ca->workload_end = end;
    EVP_PKEY *key = r.issuer->ca->workload_key;
    r.issuer->ca->workload_key = NULL;
    is(&r, "ca");
    r.issuer->ca->workload_key = key;
    is(&r, NULL);
    rig_free(&r);
}

static void test_log_broken(void **state)
{
    (void)state;
    struct rig r = {0};
    rig_new(&r, tpm.base->maker_root, "none");
    atomic_store(&r.issuer->log_broken, true);
    is(&r, "auditLog");
    atomic_store(&r.issuer->log_broken, false);
    is(&r, NULL);
    rig_free(&r);
}

/* ---- metrics ---- */

static double value_of(struct rig *r, const char *sample)
{
    att_autobuf text = {0};
    rig_ok(issuer_metrics_write(r->issuer, ATT_METRICS_TEXT, &text, &err));
    const char *all = att_buf_cstr(&text), *at = all;
    size_t len = strlen(sample);
    while ((at = strstr(at, sample))) {
        if ((at == all || at[-1] == '\n') && at[len] == ' ') {
            return strtod(at + len, NULL);
        }
        at += len;
    }
    return -1;
}

static void ask(struct rig *r, const char *path, enum issuer_method method, const char *body)
{
    struct issuer_response response;
    const struct issuer_request request = {.method = method,
                                           .path = path,
                                           .content_type = "application/jose+json",
                                           .body = att_slice_str(body)};
    issuer_handle(r->issuer, &request, &response);
    issuer_response_done(&response);
}

static void test_counts(void **state)
{
    (void)state;
    struct rig r = {0};
    rig_new(&r, tpm.base->maker_root, "none");
    static const char got[] = "attest_issuer_requests_total{resource=\"directory\",code=\"2xx\"}";
    double before = value_of(&r, got);
    ask(&r, "/acme/directory", ISSUER_GET, "");
    assert_true(value_of(&r, got) == (before < 0 ? 1 : before + 1));
    ask(&r, "/acme/newOrder", ISSUER_POST, "{}");
    assert_true(value_of(&r, "attest_issuer_requests_total{resource=\"newOrder\",code=\"4xx\"}") >=
                1);
    /* Whatever strangers ask for is one resource. */
    for (int i = 0; i < 200; i++) {
        char path[40];
        snprintf(path, sizeof path, "/acme/order%d", i);
        ask(&r, path, ISSUER_GET, "");
    }
    assert_true(value_of(&r, "attest_issuer_requests_total{resource=\"none\",code=\"4xx\"}") >=
                200);
    assert_true(value_of(&r, "attest_issuer_requests_total{resource=\"other\",code=\"4xx\"}") ==
                -1);
    /* And more reasons than there is room for are "other". */
    for (int i = 0; i < 600; i++) {
        char word[16];
        snprintf(word, sizeof word, "word%d", i);
        issuer_metrics_decision("test", "refused", word);
    }
    static const char word0[] = "attest_issuer_refusals_total{kind=\"test\",reason=\"word0\"}";
    assert_true(value_of(&r, word0) == 1);
    assert_true(value_of(&r, "attest_issuer_refusals_total{kind=\"other\",reason=\"other\"}") >
                300);
    rig_free(&r);
}

static void test_escapes(void **state)
{
    (void)state;
    att_autobuf text = {0};
    struct att_metrics m = {.out = &text, .form = ATT_METRICS_OPEN};
    static struct att_histogram h;
    att_metrics_family(&m, "x", ATT_COUNTER, "Help.");
    att_metrics_value(&m, "l", "a\"b\\c\nd", 1.5);
    att_metrics_family(&m, "y", ATT_HISTOGRAM, "Help.");
    att_histogram_add(&h, 400);
    att_histogram_add(&h, 20000000);
    att_metrics_histogram(&m, NULL, NULL, &h);
    att_metrics_end(&m);
    const char *all = att_buf_cstr(&text);
    assert_non_null(strstr(all, "# TYPE x counter\nx_total{l=\"a\\\"b\\\\c\\nd\"} 1.500000\n"));
    assert_non_null(strstr(all, "y_bucket{le=\"0.0005\"} 1\n"));
    assert_non_null(strstr(all, "y_bucket{le=\"10.0\"} 1\ny_bucket{le=\"+Inf\"} 2\n"));
    assert_non_null(strstr(all, "y_sum 20.000400\ny_count 2\n# EOF\n"));
}

static void test_each_limit_has_its_word(void **state)
{
    (void)state;
    for (int i = 0; i < ISSUER_LIMITS; i++) {
        const char *word = issuer_metrics_limit_word((enum issuer_limit_kind)i);
        assert_non_null(word);
        for (int k = 0; k < i; k++) {
            assert_string_not_equal(word, issuer_metrics_limit_word((enum issuer_limit_kind)k));
        }
    }
}

int main(void)
{
    tpm_new(&tpm);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_starting_and_draining),
        cmocka_unit_test(test_authority_has_ended),
        cmocka_unit_test(test_log_broken),
        cmocka_unit_test(test_each_limit_has_its_word),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_escapes),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    tpm_free(&tpm);
    return failed;
}
