/* What crosses the bus: a relay between us and the TPM keeps every byte (an interposer on the LPC
 * or SPI bus sees as much), and may act in between. */
#include "attestd/base/io.h"
#include "tests/unit/att_tpm/sealing.h"
#include "tpm/ak.h"
#include "tpm/certify.h"
#include "tpm/ek.h"
#include "tpm/parse/makecred.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PAIRS 4

/* The relay's thread alone touches what is not atomic, until it has been joined. */
static struct {
    int listeners[2]; /* data, control */
    char paths[2][SWTPM_PATH + 16], upstream[2][SWTPM_PATH + 16];
    int client[PAIRS], server[PAIRS];
    struct att_buf seen;
    atomic_bool stop;
    atomic_int extends_left; /* PCR_Extend to slip in before a Quote */
    atomic_int extends_done;
    atomic_int policy_extends; /* PCR_Extend(10) to slip in between PolicyAuthorize and Load */
    bool authorized;
    atomic_int flip_response; /* alter the answer to this many Sign commands */
    atomic_int refuse_saves;  /* answer this many ContextSave commands with TPM_RC_OBJECT_MEMORY */
    atomic_int saves_refused;
    bool sign_pending;
    atomic_bool no_rsa; /* a TPM that knows no RSA: who asks for such a key hears TPM_RC_TYPE */
    atomic_int rsa_refused;
    pthread_t thread;
} relay;

static int unix_socket(const char *path, bool listening)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memcpy(addr.sun_path, path, strlen(path));
    if (listening) {
        (void)unlink(path);
        if (bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) != 0 || listen(fd, 4) != 0) {
            abort();
        }
    } else if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) != 0) {
        abort();
    }
    return fd;
}

static void put_all(int fd, const uint8_t *bytes, size_t len)
{
    if (att_io_write_all(fd, ATT_SLICE(bytes, len), NULL) != ATT_OK) {
        abort();
    }
}

/* TPM2_PCR_Extend with a password session, as anybody on the host can send it. */
static void slip_in_extend(int server, uint8_t pcr)
{
    static const uint8_t head[] = {0x80, 2,    0, 0, 0, 65, 0, 0, 1, 0x82, 0, 0, 0, 16, 0, 0,   0,
                                   9,    0x40, 0, 0, 9, 0,  0, 0, 0, 0,    0, 0, 0, 1,  0, 0x0b};
    uint8_t command[65] = {0}, answer[4096];
    memcpy(command, head, sizeof(head));
    command[13] = pcr;
    put_all(server, command, sizeof(command));
    ssize_t n = read(server, answer, sizeof(answer));
    if (n < 10 || answer[6] || answer[7] || answer[8] || answer[9]) {
        abort();
    }
    relay.extends_done++;
}

static uint32_t command_code(const uint8_t *bytes, size_t len)
{
    return len >= 10 ? (uint32_t)bytes[6] << 24 | (uint32_t)bytes[7] << 16 |
                           (uint32_t)bytes[8] << 8 | bytes[9]
                     : 0;
}

/* CreatePrimary, Create, CreateLoaded: the type in their inPublic is RSA's. */
static bool asks_for_rsa(uint32_t code, const uint8_t *bytes, size_t len)
{
    if ((code != 0x131 && code != 0x153 && code != 0x191) || len < 18) {
        return false;
    }
    size_t at =
        14 + 4 +
        ((size_t)bytes[14] << 24 | (size_t)bytes[15] << 16 | (size_t)bytes[16] << 8 | bytes[17]);
    if (at + 2 <= len) {
        at += 2 + ((size_t)bytes[at] << 8 | bytes[at + 1]); /* inSensitive */
    }
    return at + 4 <= len && bytes[at + 2] == 0 && bytes[at + 3] == 1;
}

static bool forward(size_t i, bool from_client)
{
    uint8_t bytes[8192];
    int from = from_client ? relay.client[i] : relay.server[i];
    int to = from_client ? relay.server[i] : relay.client[i];
    ssize_t n = read(from, bytes, sizeof(bytes));
    if (n <= 0) {
        att_close(&relay.client[i]);
        att_close(&relay.server[i]);
        return false;
    }
    att_buf_put(&relay.seen, bytes, (size_t)n);
    uint32_t code = from_client ? command_code(bytes, (size_t)n) : 0;
    if (relay.no_rsa && asks_for_rsa(code, bytes, (size_t)n)) {
        static const uint8_t rc_type[] = {0x80, 1, 0, 0, 0, 10, 0, 0, 0x02, 0xca};
        relay.rsa_refused++;
        put_all(from, rc_type, sizeof(rc_type));
        return true;
    }
    if (code == 0x158 && relay.extends_left > 0) {
        relay.extends_left--;
        slip_in_extend(to, 16);
    }
    relay.authorized = relay.authorized || code == 0x16a;
    if (code == 0x157 && relay.authorized) {
        relay.authorized = false;
        if (relay.policy_extends > 0) {
            relay.policy_extends--;
            slip_in_extend(to, 10);
        }
    }
    if (code == 0x162 && relay.refuse_saves > 0) {
        static const uint8_t no_room[] = {0x80, 1, 0, 0, 0, 10, 0, 0, 9, 2};
        relay.refuse_saves--;
        relay.saves_refused++;
        put_all(from, no_room, sizeof(no_room));
        return true;
    }
    if (code == 0x15d) {
        relay.sign_pending = true;
    } else if (!from_client && relay.sign_pending) {
        relay.sign_pending = false;
        if (relay.flip_response > 0) {
            relay.flip_response--;
            bytes[30] ^= 1; /* within the signature's r */
        }
    }
    put_all(to, bytes, (size_t)n);
    return true;
}

static void accept_pair(size_t which)
{
    for (size_t i = 0; i < PAIRS; i++) {
        if (relay.client[i] < 0) {
            relay.client[i] = accept4(relay.listeners[which], NULL, NULL, SOCK_CLOEXEC);
            relay.server[i] = unix_socket(relay.upstream[which], false);
            return;
        }
    }
    abort();
}

static void *relay_thread(void *arg)
{
    (void)arg;
    while (!relay.stop) {
        struct pollfd fds[2 + 2 * PAIRS];
        for (size_t i = 0; i < 2; i++) {
            fds[i] = (struct pollfd){.fd = relay.listeners[i], .events = POLLIN};
        }
        for (size_t i = 0; i < PAIRS; i++) {
            fds[2 + 2 * i] = (struct pollfd){.fd = relay.client[i], .events = POLLIN};
            fds[3 + 2 * i] = (struct pollfd){.fd = relay.server[i], .events = POLLIN};
        }
        if (poll(fds, 2 + 2 * PAIRS, 20) <= 0) {
            continue;
        }
        for (size_t i = 0; i < PAIRS; i++) {
            bool open = true;
            if (fds[2 + 2 * i].revents != 0) {
                open = forward(i, true);
            }
            if (open && fds[3 + 2 * i].revents != 0) {
                (void)forward(i, false);
            }
        }
        for (size_t i = 0; i < 2; i++) {
            if (fds[i].revents & POLLIN) {
                accept_pair(i);
            }
        }
    }
    return NULL;
}

static struct tpm_context *open_through_relay(void)
{
    struct tpm_context *ctx = NULL;
    char tcti[SWTPM_PATH + 40];
    static const char *const suffix[] = {"", ".ctrl"};
    for (size_t i = 0; i < 2; i++) {
        (void)snprintf(relay.paths[i], sizeof(relay.paths[i]), "%s/bus%s", the_tpm.dir, suffix[i]);
        (void)snprintf(relay.upstream[i], sizeof(relay.upstream[i]), "%s/sock%s", the_tpm.dir,
                       suffix[i]);
        relay.listeners[i] = unix_socket(relay.paths[i], true);
    }
    for (size_t i = 0; i < PAIRS; i++) {
        relay.client[i] = relay.server[i] = -1;
    }
    relay.stop = false;
    relay.extends_left = relay.extends_done = relay.flip_response = relay.policy_extends = 0;
    relay.refuse_saves = relay.saves_refused = 0;
    assert_int_equal(pthread_create(&relay.thread, NULL, relay_thread, NULL), 0);
    (void)snprintf(tcti, sizeof(tcti), "swtpm:path=%s", relay.paths[0]);
    struct tpm_options options = {.tcti = tcti};
    assert_ok(tpm_context_open(&options, &ctx, err));
    return ctx;
}

static void close_relay(struct tpm_context *ctx)
{
    tpm_context_free(ctx);
    relay.stop = true;
    assert_int_equal(pthread_join(relay.thread, NULL), 0);
    for (size_t i = 0; i < 2; i++) {
        att_close(&relay.listeners[i]);
    }
    for (size_t i = 0; i < PAIRS; i++) {
        att_close(&relay.client[i]);
        att_close(&relay.server[i]);
    }
}

static bool was_seen(struct att_slice bytes)
{
    return memmem(relay.seen.ptr, relay.seen.len, bytes.ptr, bytes.len) != NULL;
}

static void secrets_never_cross_in_clear(void **state)
{
    struct tpm_context *ctx = open_through_relay();
    uint8_t auth[32], secret[32], digest[32];
    tpm_autoblob key = {0}, sealed = {0};
    att_autosecret data = {0};
    tpm_autocertify certify = {0};
    tpm_autoek ek = {0};
    tpm_autoak ak = {0};
    struct tpm_signature sig;
    struct parse_public pub;
    att_autobuf blob = {0}, enc = {0}, value = {0};
    (void)state;
    assert_ok(att_random(auth, sizeof(auth), err));
    auth[31] = 1;
    assert_ok(att_random(secret, sizeof(secret), err));
    assert_ok(att_random(digest, sizeof(digest), err));
    assert_ok(tpm_key_create(ctx, ATT_SLICE_ARRAY(auth), &key, err));
    assert_ok(tpm_key_sign(ctx, &key, ATT_SLICE_ARRAY(auth), digest, &sig, err));
    assert_ok(
        tpm_certify_create(ctx, &key, ATT_SLICE_ARRAY(auth), ATT_SLICE_LIT("n"), &certify, err));
    assert_ok(tpm_seal_create(ctx, ATT_SLICE_ARRAY(secret), ATT_SLICE_ARRAY(auth), &sealed, err));
    assert_ok(tpm_seal_open(ctx, &sealed, ATT_SLICE_ARRAY(auth), &data, err));
    assert_true(att_slice_eq(att_secret_slice(&data), ATT_SLICE_ARRAY(secret)));
    /* the activated credential */
    assert_ok(find_ek(ctx, PARSE_EK_H3, &ek, err));
    assert_ok(tpm_ak_get(ctx, &ak, err));
    assert_ok(parse_public_parse(att_buf_slice(&ek.pub), &pub, err));
    assert_ok(parse_makecred_create(&pub, ATT_SLICE_ARRAY(secret), &ak.name, &blob, &enc, err));
    assert_ok(tpm_ek_activate(ctx, &ek, att_buf_slice(&blob), att_buf_slice(&enc), &value, err));
    assert_true(att_slice_eq(att_buf_slice(&value), ATT_SLICE_ARRAY(secret)));
    close_relay(ctx);
    /* The relay does see what goes by ... */
    assert_true(was_seen(ATT_SLICE_ARRAY(digest)));
    assert_true(was_seen(att_buf_slice(&certify.attest)));
    /* ... but none of these, nor a half of one. */
    assert_false(was_seen(ATT_SLICE(auth, 16)));
    assert_false(was_seen(ATT_SLICE(auth + 16, 16)));
    assert_false(was_seen(ATT_SLICE(secret, 16)));
    assert_false(was_seen(ATT_SLICE(secret + 16, 16)));
    att_buf_done(&relay.seen);
}

static void altered_answers_are_refused(void **state)
{
    struct tpm_context *ctx = open_through_relay();
    tpm_autoblob key = {0};
    uint8_t digest[32] = {1};
    struct tpm_signature sig;
    (void)state;
    create_key(ctx, &key);
    assert_true(signs(ctx, &key));
    relay.flip_response = 1;
    assert_refused(tpm_key_sign(ctx, &key, AUTH_A, digest, &sig, err), ATT_E_PROTOCOL, "");
    /* ESYS takes no further call after that; a reopened context does, and nothing was left over. */
    assert_refused(tpm_key_sign(ctx, &key, AUTH_A, digest, &sig, err), ATT_E_GONE, "");
    assert_ok(tpm_context_reopen(ctx, err));
    assert_int_equal(count(ctx, TPM_HANDLES_TRANSIENT), 0);
    assert_int_equal(count(ctx, TPM_HANDLES_LOADED_SESSION), 0);
    assert_true(signs(ctx, &key));
    close_relay(ctx);
    att_buf_done(&relay.seen);
}

/* A TPM that saves no context: each eviction tries once, and every key goes on signing. */
static void contexts_that_cannot_be_saved_are_done_without(void **state)
{
    struct tpm_context *ctx = open_through_relay();
    struct tpm_blob keys[4] = {0};
    struct tpm_cache_stats stats;
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        create_key(ctx, &keys[i]);
    }
    relay.refuse_saves = 1000;
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < 4; i++) {
            assert_true(signs(ctx, &keys[i]));
        }
    }
    tpm_key_cache_stats(ctx, &stats);
    assert_int_equal(stats.restores, 0);
    assert_true(stats.evictions > 0);
    assert_int_equal(relay.saves_refused, stats.evictions);
    relay.refuse_saves = 0;
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < 4; i++) {
            assert_true(signs(ctx, &keys[i]));
        }
    }
    tpm_key_cache_stats(ctx, &stats);
    assert_true(stats.restores > 0);
    close_relay(ctx);
    att_buf_done(&relay.seen);
    for (size_t i = 0; i < 4; i++) {
        tpm_blob_done(&keys[i]);
    }
}

static void quotes_settle_or_give_up(void **state)
{
    struct tpm_context *ctx = open_through_relay();
    struct parse_pcr_sel sel = {PARSE_ALG_SHA256, 1u << 16}, other = {PARSE_ALG_SHA256, 1u << 2};
    tpm_autoquote quote = {0};
    (void)state;
    /* Extended once between our reading and the quote: quoted again. */
    relay.extends_left = 1;
    assert_ok(tpm_quote_create(ctx, &sel, ATT_SLICE_LIT("n"), &quote, err));
    assert_int_equal(relay.extends_done, 1);
    /* A PCR that is not selected does not matter. */
    tpm_quote_done(&quote);
    quote = (struct tpm_quote){0};
    relay.extends_left = 1;
    assert_ok(tpm_quote_create(ctx, &other, ATT_SLICE_LIT("n"), &quote, err));
    assert_int_equal(relay.extends_done, 2);
    /* Each time: bounded, and no quote with values that do not fit it. */
    tpm_quote_done(&quote);
    quote = (struct tpm_quote){0};
    relay.extends_left = 1000;
    assert_refused(tpm_quote_create(ctx, &sel, ATT_SLICE_LIT("n"), &quote, err), ATT_E_RETRY, "");
    assert_int_equal(quote.attest.len, 0);
    assert_int_equal(relay.extends_done, 2 + 5);
    close_relay(ctx);
    att_buf_done(&relay.seen);
}

/* The PCR policy is consumed by any extend in between, IMA's too, also of a PCR that it does not
 * name: tried again, and given up at last. */
static void pcr_policies_are_tried_again(void **state)
{
    struct tpm_context *ctx = open_through_relay();
    struct policy_key key = {0};
    tpm_autoblob parent = {0}, child = {0};
    const struct policy_spec spec = {.version = 1};
    struct parse_pcr_set pcrs = pcrs_now(ctx, 1u << 7 | 1u << 16);
    (void)state;
    policy_key_new(&key);
    assert_ok(tpm_parent_create(ctx, key.authorize, &parent, err));
    use_parent(ctx, &parent, &key, &spec, &pcrs);
    create_key(ctx, &child);
    relay.authorized = false; /* by the creation */
    relay.policy_extends = 3;
    assert_ok(tpm_key_load(ctx, &child, err));
    assert_int_equal(relay.extends_done, 3);
    assert_int_equal(stats_of(ctx).pcr_changed, 3);
    assert_int_equal(stats_of(ctx).opened, 2);
    /* Each time: bounded, and nothing is left behind. */
    tpm_key_evict(ctx, &child);
    relay.policy_extends = 1000;
    assert_refused(tpm_key_load(ctx, &child, err), ATT_E_RETRY, "");
    assert_int_equal(relay.extends_done, 3 + TPM_PCR_CHANGED_MAX);
    assert_true(count(ctx, TPM_HANDLES_LOADED_SESSION) <= 1);
    assert_true(count(ctx, TPM_HANDLES_TRANSIENT) <= 1);
    relay.policy_extends = 0;
    assert_true(signs(ctx, &child));
    close_relay(ctx);
    att_buf_done(&relay.seen);
    policy_key_done(&key);
}

/* ---- a TPM without RSA ------------------------------------------------------------------------
 */

/* Neither an RSA EK in it nor a certificate of one, and RSA refused on the bus. */
static void an_ecc_only_tpm_does(void **state)
{
    tpm_autoek ek = {0}, none = {0};
    tpm_autoak ak = {0};
    tpm_autoblob blob = {0};
    struct tpm_signature sig;
    uint8_t digest[32] = {7}, value[32] = {9};
    struct parse_public pub;
    att_autobuf credential = {0}, secret = {0}, opened = {0};
    (void)state;
    assert_int_equal(swtpm_sh(&the_tpm, "tpm2_evictcontrol -C p -c 0x81010001 || "
                                        "tpm2_evictcontrol -C o -c 0x81010001"),
                     0);
    struct tpm_context *ctx = open_through_relay();
    relay.no_rsa = true;
    relay.rsa_refused = 0;
    assert_ok(find_ek(ctx, PARSE_EK_NONE, &ek, err));
    assert_int_equal(ek.kind, PARSE_EK_H3);
    assert_ok(tpm_ak_get(ctx, &ak, err));
    assert_ok(parse_public_parse(att_buf_slice(&ek.pub), &pub, err));
    assert_ok(
        parse_makecred_create(&pub, ATT_SLICE_ARRAY(value), &ak.name, &credential, &secret, err));
    assert_ok(tpm_ek_activate(ctx, &ek, att_buf_slice(&credential), att_buf_slice(&secret), &opened,
                              err));
    assert_true(att_slice_eq(att_buf_slice(&opened), ATT_SLICE_ARRAY(value)));
    assert_ok(tpm_key_create(ctx, AUTH_A, &blob, err));
    assert_ok(tpm_key_sign(ctx, &blob, AUTH_A, digest, &sig, err));
    assert_true(verifies(&blob, digest, &sig));
    assert_int_equal(relay.rsa_refused, 0); /* nobody asked for RSA */
    /* The same where no certificate says which EK: P-256 by its template. */
    struct tpm_ek_certs nothing = {0};
    assert_ok(tpm_ek_find(ctx, &nothing, PARSE_EK_NONE, &none, err));
    assert_int_equal(none.kind, PARSE_EK_L2);
    assert_int_equal(relay.rsa_refused, 0);
    /* The relay does refuse. */
    tpm_autoek rsa = {0};
    struct att_err why = {0};
    assert_int_not_equal(tpm_ek_find(ctx, &nothing, PARSE_EK_L1, &rsa, &why), ATT_OK);
    assert_true(relay.rsa_refused > 0);
    relay.no_rsa = false;
    close_relay(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(altered_answers_are_refused),
        cmocka_unit_test(contexts_that_cannot_be_saved_are_done_without),
        cmocka_unit_test(pcr_policies_are_tried_again),
        cmocka_unit_test(quotes_settle_or_give_up),
        cmocka_unit_test(secrets_never_cross_in_clear),
        cmocka_unit_test(an_ecc_only_tpm_does),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
