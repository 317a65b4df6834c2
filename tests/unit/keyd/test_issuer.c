/* Where keyd knows the issuer's URL from, under which alone the account key signs. */
#include "tests/unit/keyd/common.h"

#include <pthread.h>

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

#define TICKET(base) ATT_SLICE_LIT("{\"url\":\"" base "\",\"kid\":\"k\",\"macKey\":\"AA\"}")
#define NEW_ACCOUNT(f, base)                                                                       \
    new_account((f), "{\"alg\":\"ES256\",\"nonce\":\"bg\",\"url\":\"" base "/x\",\"jwk\":%s}")

/* As for newAccount: by jwk, there is no account yet. */
static enum att_rc new_account(struct fixture *f, const char *form)
{
    struct proc_account account = {0};
    struct att_err err = {0};
    char header[600];
    uint8_t sig[64];
    assert_ok(proc_keyd_account(f->client, &account, &err));
    att_autobuf jwk = {0};
    assert_ok(att_json_dump(account.jwk, true, &jwk, &err));
    const char *text = att_buf_cstr(&jwk);
    assert_non_null(text);
    const char *at = strstr(form, "%s");
    assert_non_null(at);
    put(header, sizeof header, "%.*s%s%s", (int)(at - form), form, text, at + 2);
    proc_account_done(&account);
    return proc_keyd_account_sign(f->client, att_slice_str(header), (struct att_slice){0}, sig,
                                  NULL);
}

/* The daemon says which issuer a ticket named that it was given. A ticket that was wrong binds
 * nothing; once there is an account, no daemon changes the issuer. */
static void the_daemon_names_the_issuer_until_there_is_an_account(void **state)
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
    assert_ok(proc_keyd_issuer(f->client, "https://wrong.example/acme", &err));
    assert_int_equal(NEW_ACCOUNT(f, "https://wrong.example/acme"), ATT_OK);
    assert_int_equal(NEW_ACCOUNT(f, "https://one.example/acme"), ATT_E_DENIED);
    /* Nobody accepted it: the next ticket, here and after a restart. */
    assert_ok(proc_keyd_issuer(f->client, "https://two.example/acme", &err));
    assert_int_equal(NEW_ACCOUNT(f, "https://wrong.example/acme"), ATT_E_DENIED);
    stop(f);
    start_opts(f, &opts, "ready");
    assert_int_equal(NEW_ACCOUNT(f, "https://two.example/acme"), ATT_E_CONFLICT);
    assert_ok(proc_keyd_issuer(f->client, "https://one.example/acme", &err));
    assert_int_equal(NEW_ACCOUNT(f, "https://one.example/acme"), ATT_OK);
    assert_ok(proc_keyd_account_sign(f->client, HEADER("https://one.example/acme"),
                                     (struct att_slice){0}, sig, &err));
    for (int i = 0; i < 2; i++) {
        assert_refused(proc_keyd_issuer(f->client, "https://two.example/acme", &err),
                       ATT_E_CONFLICT, "issuerOther");
        assert_ok(proc_keyd_issuer(f->client, "https://one.example/acme", &err));
        assert_ok(proc_keyd_account_sign(f->client, HEADER("https://one.example/acme"),
                                         (struct att_slice){0}, sig, &err));
        assert_refused(proc_keyd_account_sign(f->client, HEADER("https://two.example/acme"),
                                              (struct att_slice){0}, sig, &err),
                       ATT_E_DENIED, "jwsUrl");
        stop(f);
        start_opts(f, &opts, "ready");
    }
}

struct heard {
    pthread_mutex_t lock;
    char text[8192];
};

static void hear(void *user, enum keyd_event event, const char *what, const struct att_err *err)
{
    struct heard *heard = user;
    (void)event;
    pthread_mutex_lock(&heard->lock);
    size_t len = strlen(heard->text);
    snprintf(heard->text + len, sizeof heard->text - len, "%s|%s|%s\n", what ? what : "",
             err ? err->reason : "", err ? err->msg : "");
    pthread_mutex_unlock(&heard->lock);
}

/* A ticket file can be exchanged while nobody has accepted it; beside an account it is ignored,
 * which is said; the configuration moves the host. */
static void a_later_ticket_file_does_not_move_an_account(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct heard heard = {.lock = PTHREAD_MUTEX_INITIALIZER};
    uint8_t sig[64];
    char ticket[200];
    stop(f);
    struct keyd_opts opts = options(f);
    put(ticket, sizeof ticket, "%s/ticket.json", f->base);
    opts.issuer_url = NULL;
    opts.ticket_path = ticket;
    opts.on_event = hear;
    opts.user = &heard;
    assert_ok(att_io_write_file(ticket, TICKET("https://wrong.example/acme"), 0600, &err));
    start_opts(f, &opts, "ready");
    assert_int_equal(NEW_ACCOUNT(f, "https://wrong.example/acme"), ATT_OK);
    assert_ok(att_io_write_file(ticket, TICKET("https://one.example/acme"), 0600, &err));
    assert_int_equal(NEW_ACCOUNT(f, "https://one.example/acme"), ATT_OK);
    assert_ok(proc_keyd_account_sign(f->client, HEADER("https://one.example/acme"),
                                     (struct att_slice){0}, sig, &err));
    assert_ok(att_io_write_file(ticket, TICKET("https://evil.example/acme"), 0600, &err));
    stop(f);
    start_opts(f, &opts, "ready");
    assert_ok(proc_keyd_account_sign(f->client, HEADER("https://one.example/acme"),
                                     (struct att_slice){0}, sig, &err));
    assert_int_equal(NEW_ACCOUNT(f, "https://evil.example/acme"), ATT_E_DENIED);
    assert_ok(keyd_set_issuer(f->keyd, NULL, &err)); /* SIGHUP */
    assert_int_equal(NEW_ACCOUNT(f, "https://evil.example/acme"), ATT_E_DENIED);
    stop(f);
    assert_non_null(strstr(heard.text, "ticket|issuerOther|names https://evil.example/acme"));
    opts.issuer_url = "https://two.example/acme";
    start_opts(f, &opts, "ready");
    assert_ok(proc_keyd_account_sign(f->client, HEADER("https://two.example/acme"),
                                     (struct att_slice){0}, sig, &err));
    stop(f);
    opts.issuer_url = NULL;
    start_opts(f, &opts, "ready");
    assert_ok(proc_keyd_account_sign(f->client, HEADER("https://two.example/acme"),
                                     (struct att_slice){0}, sig, &err));
}

/* What a broken ticket holds is in no event and no reply. */
static void a_broken_ticket_is_not_repeated(void **state)
{
    static const char *const broken[] = {
        "{\"url\":\"https://one.example/acme\",\"kid\":\"k\",\"macKey\":\"SECRETSECRETSECRE",
        "{\"url\":\"https://one.example/acme\",\"macKey\":SECRETSECRETSECRE}",
        "{\"macKey\":\"SECRETSECRETSECRE\" \"SECRET",
        "{\"macKey\":\"x\",\"macKey\":\"SECRETSECRET\"}",
        "SECRETSECRETSECRE",
    };
    struct fixture *f = *state;
    struct att_err err = {0};
    struct heard heard = {.lock = PTHREAD_MUTEX_INITIALIZER};
    uint8_t sig[64];
    char ticket[200];
    stop(f);
    struct keyd_opts opts = options(f);
    put(ticket, sizeof ticket, "%s/ticket.json", f->base);
    opts.issuer_url = NULL;
    opts.ticket_path = ticket;
    opts.on_event = hear;
    opts.user = &heard;
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        assert_ok(att_io_write_file(ticket, att_slice_str(broken[i]), 0600, &err));
        start_opts(f, &opts, "ready");
        assert_int_equal(proc_keyd_account_sign(f->client, HEADER("https://one.example/acme"),
                                                (struct att_slice){0}, sig, &err),
                         ATT_E_CONFLICT);
        assert_non_null(strstr(err.msg, "JSON line 1"));
        assert_null(strstr(err.msg, "SECRET"));
        att_err_clear(&err);
        stop(f);
    }
    assert_non_null(strstr(heard.text, "ticket|"));
    assert_null(strstr(heard.text, "SECRET"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_KEYD(the_ticket_names_the_issuer),
        WITH_KEYD(the_daemon_names_the_issuer_until_there_is_an_account),
        WITH_KEYD(a_later_ticket_file_does_not_move_an_account),
        WITH_KEYD(a_broken_ticket_is_not_repeated),
    };
    return cmocka_run_group_tests(tests, tpm_setup, tpm_teardown);
}
