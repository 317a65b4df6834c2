/* The host's record, tickets, and the lock on the state folder. */
#include "attestd/base/io.h"
#include "attestd/base/json.h"
#include "attestd/host/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static enum att_rc parse_record(const json_t *json, struct host_record *ret)
{
    att_autobuf text = {0};
    assert_int_equal(att_json_dump(json, false, &text, NULL), ATT_OK);
    return host_record_parse(att_buf_slice(&text), ret, NULL);
}

static json_t *record_json(const struct host_record *rec)
{
    att_autobuf text = {0};
    json_t *json = NULL;
    assert_int_equal(host_record_encode(rec, &text, NULL), ATT_OK);
    assert_int_equal(att_json_parse(att_buf_slice(&text), HOST_RECORD_MAX, &json, NULL), ATT_OK);
    return json;
}

static void test_record(void **state)
{
    (void)state;
    struct host_record rec = {.issuer_url = "https://127.0.0.1:1/acme",
                              .kid = "https://127.0.0.1:1/acme/acct/1",
                              .thumbprint = "t",
                              .ak_url = "https://127.0.0.1:1/acme/ak/1",
                              .ak_expires_at = 900,
                              .host_id = "aa",
                              .approved = true,
                              .reset_count = 4294967295,
                              .firmware = "2023101100120000"};
    struct host_record out = {0};
    json_t *json = record_json(&rec);
    assert_int_equal(parse_record(json, &out), ATT_OK);
    assert_memory_equal(&out, &rec, sizeof(rec));

    const char *name;
    json_t *value;
    void *next;
    json_object_foreach_safe(json, next, name, value)
    {
        /* Without any one of its members, and with any one of another type. */
        json_t *less = json_deep_copy(json);
        json_object_del(less, name);
        assert_int_equal(parse_record(less, &out), ATT_E_PARSE);
        json_object_set_new(less, name, json_array());
        assert_int_equal(parse_record(less, &out), ATT_E_PARSE);
        json_decref(less);
    }
    json_object_set_new(json, "more", json_true());
    assert_int_equal(parse_record(json, &out), ATT_E_PARSE);
    json_decref(json);
    assert_memory_equal(&out, &rec, sizeof(rec));
}

static void test_record_set_aside(void **state)
{
    (void)state;
    char dir[] = "/tmp/att-host.XXXXXX", path[64], bad[80];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/host.json", dir);
    snprintf(bad, sizeof(bad), "%s.bad", path);
    struct host_record rec = {0};
    assert_int_equal(host_record_load(path, &rec, NULL), ATT_E_NOTFOUND);
    assert_int_equal(att_io_write_file(path, ATT_SLICE_LIT("{}"), 0600, NULL), ATT_OK);
    assert_int_equal(host_record_load(path, &rec, NULL), ATT_E_PARSE);
    assert_int_equal(access(bad, F_OK), 0);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(host_record_save(path, &rec, NULL), ATT_OK);
    assert_int_equal(host_record_load(path, &rec, NULL), ATT_OK);
    unlink(path);
    unlink(bad);
    rmdir(dir);
}

/* ---- tickets ------------------------------------------------------------------------------- */

#define SHA "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f"
#define KEY "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
#define GOOD                                                                                       \
    "\"url\": \"https://issuer:1/acme\", \"caSha256\": \"" SHA "\", \"kid\": \"t1\", "             \
    "\"macKey\": \"" KEY "\""

static enum att_rc parse_ticket(const char *text)
{
    struct host_ticket ticket = {0};
    struct att_err err = {0};
    enum att_rc rc = host_ticket_parse(att_slice_str(text), &ticket, &err);
    if (rc == ATT_OK) {
        assert_int_equal(ticket.mac_key.len, 32);
        assert_int_equal(ticket.mac_key.ptr[31], 31);
        assert_int_equal(ticket.ca_sha256_bytes[0], 0x0f);
        assert_string_equal(ticket.kid, "t1");
    } else {
        assert_null(strstr(err.msg, KEY)); /* no secret in an error */
        assert_null(ticket.mac_key.ptr);
    }
    host_ticket_done(&ticket);
    return rc;
}

static void test_ticket(void **state)
{
    (void)state;
    const char *const bad[] = {
        "",
        "{}",
        "[]",
        "{" GOOD,
        "{" GOOD "} x",
        "{" GOOD ", \"more\": 1}",
        "{" GOOD ", \"kid\": \"t2\"}",
        "{" GOOD ", \"host\": 1}",
        "{" GOOD ", \"host\": \"\"}",
        /* each member alone wrong */
        "{\"url\": \"http://issuer:1/acme\", \"caSha256\": \"" SHA
        "\", \"kid\": \"t1\", \"macKey\": \"" KEY "\"}",
        "{\"url\": \"https://issuer:1/acme\", \"caSha256\": \"0f\", \"kid\": \"t1\", "
        "\"macKey\": \"" KEY "\"}",
        "{\"url\": \"https://issuer:1/acme\", \"caSha256\": \"" SHA
        "\", \"kid\": \"\", \"macKey\": \"" KEY "\"}",
        "{\"url\": \"https://issuer:1/acme\", \"caSha256\": \"" SHA
        "\", \"kid\": \"t1\", \"macKey\": \"AAEC\"}",
        "{\"url\": \"https://issuer:1/acme\", \"caSha256\": \"" SHA
        "\", \"kid\": \"t1\", \"macKey\": \"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh=\"}",
        "{\"url\": \"https://issuer:1/acme\", \"caSha256\": \"" SHA "\", \"kid\": \"t1\"}",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(parse_ticket(bad[i]), ATT_E_PARSE);
    }
    /* 44 characters are 33 bytes, whatever they say */
    assert_int_equal(parse_ticket("{\"url\": \"https://issuer:1/acme\", \"caSha256\": \"" SHA
                                  "\", \"kid\": \"t1\", \"macKey\": \"" KEY "=\"}"),
                     ATT_E_LIMIT);
    assert_int_equal(parse_ticket("{" GOOD "}"), ATT_OK);
    assert_int_equal(parse_ticket("{" GOOD ", \"host\": \"rack 7\"}"), ATT_OK);
}

static void test_ticket_from_credential(void **state)
{
    (void)state;
    char dir[] = "/tmp/att-ticket.XXXXXX", path[64];
    struct host_ticket ticket = {0};
    assert_non_null(mkdtemp(dir));
    unsetenv("CREDENTIALS_DIRECTORY");
    assert_int_equal(host_ticket_load(NULL, &ticket, NULL), ATT_E_NOTFOUND);
    setenv("CREDENTIALS_DIRECTORY", dir, 1);
    assert_int_equal(host_ticket_load(NULL, &ticket, NULL), ATT_E_NOTFOUND);
    snprintf(path, sizeof(path), "%s/attestd.ticket", dir);
    assert_int_equal(att_io_write_file(path, ATT_SLICE_LIT("{" GOOD "}"), 0600, NULL), ATT_OK);
    assert_int_equal(host_ticket_load(NULL, &ticket, NULL), ATT_OK);
    host_ticket_done(&ticket);
    /* A configured file comes first, and its absence is not papered over. */
    assert_int_equal(host_ticket_load("/nonexistent/ticket", &ticket, NULL), ATT_E_NOTFOUND);
    unlink(path);
    rmdir(dir);
}

/* ---- lock ------------------------------------------------------------------------------------ */

static void test_second_attestd_is_refused(void **state)
{
    (void)state;
    char dir[] = "/tmp/att-lock.XXXXXX", path[64], pid[32];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/lock", dir);
    int fd = -1;
    assert_int_equal(host_lock_take(path, &fd, NULL), ATT_OK);
    pid_t child = fork();
    if (child == 0) {
        struct att_err err = {0};
        int own = -1;
        enum att_rc rc = host_lock_take(path, &own, &err);
        snprintf(pid, sizeof(pid), "pid %ld", (long)getppid());
        _exit(rc == ATT_E_EXISTS && strcmp(err.reason, "stateDirInUse") == 0 &&
                      strstr(err.msg, pid) && own == -1
                  ? 0
                  : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    /* The lock goes with its holder, however it ends. */
    att_close(&fd);
    assert_int_equal(host_lock_take(path, &fd, NULL), ATT_OK);
    att_close(&fd);
    unlink(path);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_record),
        cmocka_unit_test(test_record_set_aside),
        cmocka_unit_test(test_ticket),
        cmocka_unit_test(test_ticket_from_credential),
        cmocka_unit_test(test_second_attestd_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
