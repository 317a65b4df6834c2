/* A keyd in this process, on a swtpm of its own, asked through the real client. */
#ifndef ATT_TESTS_KEYD_COMMON_H
#define ATT_TESTS_KEYD_COMMON_H

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/base/hash.h"
#include "attestd/base/io.h"
#include "attestd/keyd/keyd.h"
#include "attestd/proc/keyd_client.h"
#include "provision/acme/jws.h"
#include "provision/evidence/formula.h"
#include "provision/evidence/statement.h"
#include "tests/support/swtpm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define ISSUER    "https://issuer.example:8443/acme"
#define SELECTION "sha256:0,7,16"
#define NO_LOGS   ATT_SLICE_LIT("\x80") /* the manifest of no logs: an empty CBOR array */
#define TOKEN     "AAAAAAAAAAAAAAAAAAAAAA"
#define SPIFFE(s) "spiffe://bank.example/agent/" s

struct fixture {
    struct swtpm *tpm;
    char base[128], dir[160], sock[160];
    struct keyd *keyd;
    struct proc_keyd *client;
};

/* snprintf that must fit. */
static inline void put(char *ret, size_t room, const char *fmt, ...) ATT_PRINTF(3, 4);
static inline void put(char *ret, size_t room, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int len = vsnprintf(ret, room, fmt, args);
    va_end(args);
    assert_in_range(len, 0, room - 1);
}

static inline void say(const struct att_err *err)
{
    if (err->rc != ATT_OK) {
        fprintf(stderr, "  %s %s: %s\n", att_rc_name(err->rc), err->reason, err->msg);
    }
}

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        enum att_rc got_rc = (call);                                                               \
        say(&err);                                                                                 \
        assert_int_equal(got_rc, ATT_OK);                                                          \
        att_err_clear(&err);                                                                       \
    } while (0)

/* Refused with this code and this reason word. */
#define assert_refused(call, code, word)                                                           \
    do {                                                                                           \
        att_err_clear(&err);                                                                       \
        assert_int_equal((call), (code));                                                          \
        assert_string_equal(err.reason, (word));                                                   \
        assert_true(err.msg[0]);                                                                   \
        att_err_clear(&err);                                                                       \
    } while (0)

static inline void make_folder(struct fixture *f)
{
    snprintf(f->base, sizeof f->base, "/tmp/att-keyd.XXXXXX");
    assert_non_null(mkdtemp(f->base));
    snprintf(f->dir, sizeof f->dir, "%s/keyd", f->base);
    snprintf(f->sock, sizeof f->sock, "%s/run/keyd", f->base);
    assert_int_equal(att_io_mkdirs(f->sock, 0700, NULL), ATT_OK);
    snprintf(f->sock, sizeof f->sock, "%s/run/keyd/keyd.sock", f->base);
}

static inline struct keyd_opts options(const struct fixture *f)
{
    return (struct keyd_opts){.tcti = f->tpm->tcti,
                              .dir = f->dir,
                              .socket_path = f->sock,
                              .issuer_url = ISSUER,
                              .clients = {{getuid()}, 1},
                              .signers = {{getuid()}, 1}};
}

/* The state that INFO names within ten seconds, or the last one seen. */
static inline void wait_state(struct proc_keyd *client, const char *want)
{
    char seen[32] = "", reason[400] = "";
    for (int i = 0; i < 400; i++) {
        att_autojson *info = NULL;
        if (proc_keyd_info(client, &info, NULL) == ATT_OK) {
            snprintf(seen, sizeof seen, "%s", json_string_value(json_object_get(info, "state")));
            if (strcmp(seen, want) == 0) {
                return;
            }
            const char *why = json_string_value(json_object_get(info, "reason"));
            snprintf(reason, sizeof reason, "%s", why ? why : "");
        }
        usleep(50000);
    }
    fprintf(stderr, "  %s: %s\n", seen, reason);
    assert_string_equal(seen, want);
}

static inline void start_opts(struct fixture *f, const struct keyd_opts *opts, const char *state)
{
    struct att_err err = {0};
    assert_ok(keyd_new(opts, &f->keyd, &err));
    assert_ok(keyd_start(f->keyd, &err));
    if (!f->client) {
        assert_ok(proc_keyd_new(f->sock, getuid(), 30000, &f->client, &err));
    }
    wait_state(f->client, state);
}

static inline void start(struct fixture *f)
{
    const struct keyd_opts opts = options(f);
    start_opts(f, &opts, "ready");
}

static inline void stop(struct fixture *f)
{
    keyd_free(f->keyd);
    f->keyd = NULL;
}

static inline void remove_folder(const char *path)
{
    char command[256];
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    (void)!system(command);
}

static inline int tpm_setup(void **state)
{
    struct swtpm *tpm = calloc(1, sizeof *tpm);
    struct att_err err = {0};
    if (!swtpm_available()) {
        fprintf(stderr, "no swtpm on this machine\n");
        return -1;
    }
    assert_ok(swtpm_new(tpm, NULL, &err));
    *state = tpm;
    return 0;
}

static inline int tpm_teardown(void **state)
{
    swtpm_done(*state);
    free(*state);
    return 0;
}

static inline int keyd_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->tpm = *state;
    make_folder(f);
    start(f);
    *state = f;
    return 0;
}

static inline int keyd_teardown(void **state)
{
    struct fixture *f = *state;
    proc_keyd_free(f->client);
    stop(f);
    remove_folder(f->base);
    *state = f->tpm;
    free(f);
    return 0;
}

#define WITH_KEYD(test) cmocka_unit_test_setup_teardown(test, keyd_setup, keyd_teardown)

/* "<token>.<thumbprint>" of this keyd's account. */
static inline void key_authorization(struct fixture *f, char ret[128])
{
    struct proc_account account;
    struct att_err err = {0};
    assert_ok(proc_keyd_account(f->client, &account, &err));
    snprintf(ret, 128, "%s.%s", TOKEN, account.thumbprint);
    proc_account_done(&account);
}

static inline void statement(const struct proc_key *key, const char *identifier,
                             struct att_buf *ret_cbor)
{
    struct evidence_statement st = {.level = 1};
    struct att_err err = {0};
    snprintf(st.identifier, sizeof st.identifier, "%s", identifier);
    snprintf(st.key_store, sizeof st.key_store, "%s", key->store);
    if (key->name.len) {
        memcpy(st.key_name, key->name.ptr, key->name.len);
        st.key_name_len = key->name.len;
    } else {
        st.has_key_spki = true;
        att_sha256(st.key_spki, att_buf_slice(&key->spki));
    }
    assert_ok(evidence_statement_encode(&st, ret_cbor, &err));
}

/* ---- files of the state folder, and what the keys are ---- */

static inline void file_path(const struct fixture *f, const char *name, char ret[300])
{
    put(ret, 300, "%s/%s", f->dir, name);
}

static inline bool exists(const struct fixture *f, const char *name)
{
    char path[300];
    file_path(f, name, path);
    return access(path, F_OK) == 0;
}

static inline void overwrite(const struct fixture *f, const char *name, const char *text)
{
    char path[300];
    struct att_err err = {0};
    file_path(f, name, path);
    assert_ok(att_io_write_file(path, att_slice_str(text), 0600, &err));
}

static inline void read_whole(const struct fixture *f, const char *name, struct att_buf *ret)
{
    char path[300];
    struct att_err err = {0};
    file_path(f, name, path);
    assert_ok(att_io_read_file(path, 65536, ret, &err));
}

/* Two keys are listed: this one in one state, the other in another. */
static inline void two_keys(struct fixture *f, const char *id, const char *state,
                            const char *others)
{
    struct proc_key *list = NULL;
    struct att_err err = {0};
    size_t count = 0;
    assert_ok(proc_keyd_key_list(f->client, &list, &count, &err));
    assert_int_equal(count, 2);
    for (size_t i = 0; i < count; i++) {
        assert_string_equal(list[i].state, strcmp(list[i].key_id, id) == 0 ? state : others);
    }
    proc_keys_free(list, count);
}

#endif
