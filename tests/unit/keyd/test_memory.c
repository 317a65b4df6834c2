/* Keys of the store "memory": on no disk, in locked memory or not at all, counted, gone with keyd;
 * what keyd states of them in M4, and what it refuses. */
#include "tests/unit/keyd/common.h"

#include "attestd/keyd/store.h"
#include "certs/csr.h"
#include "certs/key.h"
#include "tpm/parse/attest.h"

#include <dirent.h>
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>

static void one_key(struct fixture *f, const char *agent, struct proc_key *ret)
{
    struct att_err err = {0};
    assert_ok(proc_keyd_key_create(f->client, agent, "memory", ret, &err));
}

static size_t files_in(const struct fixture *f, const char *folder)
{
    char path[300];
    size_t n = 0;
    file_path(f, folder, path);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        n += entry->d_name[0] != '.';
    }
    closedir(dir);
    return n;
}

static json_int_t in_store(struct fixture *f, const char *name, const char *member)
{
    att_autojson *info = NULL;
    struct att_err err = {0};
    assert_ok(proc_keyd_info(f->client, &info, &err));
    const json_t *list = json_object_get(info, "stores");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);
        if (strcmp(json_string_value(json_object_get(one, "name")), name) == 0) {
            return json_integer_value(json_object_get(one, member));
        }
    }
    fail_msg("no store %s in INFO", name);
    return 0;
}

static void instance(struct fixture *f, char ret[64])
{
    att_autojson *info = NULL;
    struct att_err err = {0};
    assert_ok(proc_keyd_info(f->client, &info, &err));
    put(ret, 64, "%s", json_string_value(json_object_get(info, "instance")));
}

static size_t key_count(struct fixture *f)
{
    struct proc_key *list = NULL;
    struct att_err err = {0};
    size_t count = 0;
    assert_ok(proc_keyd_key_list(f->client, &list, &count, &err));
    proc_keys_free(list, count);
    return count;
}

static void a_key_is_on_no_disk_and_ends_with_keyd(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_key key, other, tpm;
    char before[64], after[64];
    one_key(f, "a", &key);
    one_key(f, "a", &other);
    assert_string_equal(key.store, "memory");
    assert_string_equal(key.type, "ec-p256");
    assert_string_equal(key.state, "new");
    assert_int_equal(key.name.len, 0);
    assert_ok(certs_key_check_spki(att_buf_slice(&key.spki), &err));
    assert_false(att_slice_eq(att_buf_slice(&key.spki), att_buf_slice(&other.spki)));
    assert_ok(proc_keyd_key_activate(f->client, key.key_id, &err));
    assert_ok(proc_keyd_key_retire(f->client, key.key_id, &err));
    assert_int_equal(files_in(f, "agents"), 0);
    assert_int_equal(in_store(f, "memory", "keys"), 2);
    assert_int_equal(in_store(f, "tpm", "keys"), 0);
    assert_ok(proc_keyd_key_create(f->client, "a", "tpm", &tpm, &err));
    assert_ok(proc_keyd_key_destroy(f->client, other.key_id, &err));
    assert_int_equal(in_store(f, "memory", "keys"), 1);
    assert_ok(proc_keyd_key_destroy(f->client, other.key_id, &err)); /* absent is fine */
    instance(f, before);
    stop(f);
    start(f);
    instance(f, after);
    assert_int_equal(strlen(before), 32);
    assert_string_not_equal(before, after);
    struct proc_key *list = NULL;
    size_t count = 0;
    assert_ok(proc_keyd_key_list(f->client, &list, &count, &err));
    assert_int_equal(count, 1);
    assert_string_equal(list[0].key_id, tpm.key_id); /* that of the TPM outlived it */
    proc_keys_free(list, count);
    att_autobuf csr = {0};
    assert_int_equal(proc_keyd_key_csr(f->client, key.key_id, SPIFFE("a"), &csr, &err),
                     ATT_E_NOTFOUND);
    proc_key_done(&key);
    proc_key_done(&other);
    proc_key_done(&tpm);
}

static void evidence_is_the_quote_alone(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_key key, other, tpm;
    struct proc_key_evidence ev = {0};
    struct parse_attest attest;
    char authz[128];
    uint8_t extra[32];
    att_autobuf good = {0}, agent = {0}, swapped = {0}, wrong = {0};
    one_key(f, "a", &key);
    one_key(f, "a", &other);
    assert_ok(proc_keyd_key_create(f->client, "a", "tpm", &tpm, &err));
    key_authorization(f, authz);
    statement(&key, SPIFFE("a"), &good);
    statement(&key, SPIFFE("b"), &agent);
    statement(&other, SPIFFE("a"), &swapped);
    statement(&tpm, SPIFFE("a"), &wrong);
#define EVIDENCE(id, cbor)                                                                         \
    proc_keyd_key_evidence(f->client, (id), authz, att_buf_slice(&(cbor)), SELECTION, &ev, &err)
    assert_refused(EVIDENCE(key.key_id, agent), ATT_E_DENIED, "evidenceAgent");
    assert_refused(EVIDENCE(key.key_id, swapped), ATT_E_DENIED, "evidenceKey");
    assert_refused(EVIDENCE(key.key_id, wrong), ATT_E_DENIED, "evidenceKey"); /* says tpm */
    assert_refused(EVIDENCE(tpm.key_id, good), ATT_E_DENIED, "evidenceKey");  /* says memory */
    assert_ok(proc_keyd_freeze(f->client, "a", &err));
    assert_refused(EVIDENCE(key.key_id, good), ATT_E_DENIED, "frozen");
    assert_refused(proc_keyd_key_create(f->client, "a", "memory", &other, &err), ATT_E_DENIED,
                   "frozen");
    assert_ok(proc_keyd_thaw(f->client, "a", &err));
    assert_ok(EVIDENCE(key.key_id, good));
    assert_int_equal(ev.cert_info.len + ev.cert_sig.len + ev.pub_area.len + ev.srk_pub.len, 0);
    assert_ok(parse_attest_quote(att_buf_slice(&ev.quote.attest), &attest, &err));
    evidence_quote_extra(extra, att_slice_str(authz), (struct att_slice){0}, att_buf_slice(&good));
    assert_true(att_slice_eq(attest.extra_data, ATT_SLICE_ARRAY(extra)));
    proc_key_evidence_done(&ev);
    att_autobuf der = {0};
    struct certs_csr csr;
    assert_refused(proc_keyd_key_csr(f->client, key.key_id, SPIFFE("b"), &der, &err), ATT_E_DENIED,
                   "csrAgent");
    assert_ok(proc_keyd_key_csr(f->client, key.key_id, SPIFFE("a"), &der, &err));
    assert_ok(certs_csr_verify(att_buf_slice(&der), SPIFFE("a"), &csr, &err));
    assert_true(att_slice_eq(ATT_SLICE(csr.spki, csr.spki_len), att_buf_slice(&key.spki)));
    proc_key_done(&key);
    proc_key_done(&other);
    proc_key_done(&tpm);
}

/* The store's own bound, below that of all keys. */
static void there_are_so_many_and_no_more(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_key key = {0};
    size_t most = keyd_store_memory.keys_max, made = 0;
    enum att_rc rc = ATT_OK;
    for (size_t agent = 0; rc == ATT_OK && made <= most; agent++) {
        char name[32];
        put(name, sizeof name, "agent-%zu", agent);
        for (int i = 0; i < 16 && rc == ATT_OK; i++) {
            rc = proc_keyd_key_create(f->client, name, "memory", &key, &err);
            made += rc == ATT_OK;
            if (rc == ATT_OK) {
                proc_key_done(&key);
            }
        }
    }
    assert_int_equal(rc, ATT_E_LIMIT);
    assert_non_null(strstr(err.msg, "memory keys: at most"));
    assert_int_equal(made, most);
    att_err_clear(&err);
    assert_ok(proc_keyd_key_create(f->client, "z", "tpm", &key, &err)); /* another store's room */
    proc_key_done(&key);
    assert_int_equal(key_count(f), most + 1);
}

static void set_ipc_lock(bool on)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    assert_int_equal(syscall(SYS_capget, &head, data), 0);
    if (on) {
        data[0].effective |= data[0].permitted & (1U << CAP_IPC_LOCK);
    } else {
        data[0].effective &= ~(1U << CAP_IPC_LOCK);
    }
    assert_int_equal(syscall(SYS_capset, &head, data), 0);
}

/* Nothing can be locked: then there are no such keys, rather than keys that can be swapped out. */
static void not_in_memory_that_cannot_be_locked(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_key key = {0};
    struct rlimit before, none;
#if ATT_SANITIZED
    skip(); /* AddressSanitizer's mlock does nothing, and says that it did */
#endif
    stop(f);
    assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &before), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &none), 0);
    set_ipc_lock(false); /* keyd's threads inherit that */
    start(f);
    assert_refused(proc_keyd_key_create(f->client, "a", "memory", &key, &err), ATT_E_LIMIT,
                   "memoryLock");
    assert_int_equal(key_count(f), 0);
    assert_ok(proc_keyd_key_create(f->client, "a", "tpm", &key, &err));
    proc_key_done(&key);
    set_ipc_lock(true);
    assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &before), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_KEYD(a_key_is_on_no_disk_and_ends_with_keyd),
        WITH_KEYD(evidence_is_the_quote_alone),
        WITH_KEYD(there_are_so_many_and_no_more),
        WITH_KEYD(not_in_memory_that_cannot_be_locked),
    };
    return cmocka_run_group_tests(tests, tpm_setup, tpm_teardown);
}
