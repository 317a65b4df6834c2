/* Where keyd knows the issuer's URL from, under which alone the account key signs. */
#include "tests/unit/keyd/common.h"

#define HEADER(base)                                                                               \
    ATT_SLICE_LIT("{\"alg\":\"ES256\",\"nonce\":\"bg\",\"url\":\"" base "/x\",\"kid\":\"" base     \
                  "/a/1\"}")

static void the_ticket_names_the_issuer(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    uint8_t sig[64];
    char ticket[200];
    stop(f);
    struct keyd_opts opts = options(f);
    put(ticket, sizeof ticket, "%s/ticket.json", f->base);
    opts.issuer_url = NULL;
    opts.ticket_path = ticket;
    start_opts(f, &opts, "ready");
    assert_refused(proc_keyd_account_sign(f->client, HEADER("https://one.example/acme"),
                                          (struct att_slice){0}, sig, &err),
                   ATT_E_CONFLICT, "issuerUnknown");
    assert_ok(att_io_write_file(
        ticket,
        ATT_SLICE_LIT("{\"url\":\"https://one.example/acme\",\"kid\":\"k\",\"macKey\":\"AA\"}"),
        0600, &err));
    assert_ok(proc_keyd_account_sign(f->client, HEADER("https://one.example/acme"),
                                     (struct att_slice){0}, sig, &err));
    assert_refused(proc_keyd_account_sign(f->client, HEADER("https://two.example/acme"),
                                          (struct att_slice){0}, sig, &err),
                   ATT_E_DENIED, "jwsUrl");
    /* The ticket is spent and removed: the URL stays. */
    stop(f);
    assert_int_equal(unlink(ticket), 0);
    start_opts(f, &opts, "ready");
    assert_ok(proc_keyd_account_sign(f->client, HEADER("https://one.example/acme"),
                                     (struct att_slice){0}, sig, &err));
    /* A configured one wins over it. */
    assert_ok(keyd_set_issuer(f->keyd, "https://two.example/acme", &err));
    assert_refused(proc_keyd_account_sign(f->client, HEADER("https://one.example/acme"),
                                          (struct att_slice){0}, sig, &err),
                   ATT_E_DENIED, "jwsUrl");
    assert_ok(proc_keyd_account_sign(f->client, HEADER("https://two.example/acme"),
                                     (struct att_slice){0}, sig, &err));
}

/* The daemon says once which issuer a ticket named that it was given; no daemon changes that. */
static void the_daemon_names_the_issuer_once(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    uint8_t sig[64];
    stop(f);
    struct keyd_opts opts = options(f);
    opts.issuer_url = NULL;
    start_opts(f, &opts, "ready");
    assert_int_equal(proc_keyd_issuer(f->client, "http://one.example/acme", NULL), ATT_E_PARSE);
    assert_refused(proc_keyd_account_sign(f->client, HEADER("https://one.example/acme"),
                                          (struct att_slice){0}, sig, &err),
                   ATT_E_CONFLICT, "issuerUnknown");
    assert_ok(proc_keyd_issuer(f->client, "https://one.example/acme", &err));
    assert_ok(proc_keyd_issuer(f->client, "https://one.example/acme", &err));
    assert_refused(proc_keyd_issuer(f->client, "https://two.example/acme", &err), ATT_E_CONFLICT,
                   "issuerOther");
    stop(f);
    start_opts(f, &opts, "ready");
    assert_refused(proc_keyd_issuer(f->client, "https://two.example/acme", &err), ATT_E_CONFLICT,
                   "issuerOther");
    assert_ok(proc_keyd_account_sign(f->client, HEADER("https://one.example/acme"),
                                     (struct att_slice){0}, sig, &err));
    assert_refused(proc_keyd_account_sign(f->client, HEADER("https://two.example/acme"),
                                          (struct att_slice){0}, sig, &err),
                   ATT_E_DENIED, "jwsUrl");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_KEYD(the_ticket_names_the_issuer),
        WITH_KEYD(the_daemon_names_the_issuer_once),
    };
    return cmocka_run_group_tests(tests, tpm_setup, tpm_teardown);
}
