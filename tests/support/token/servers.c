/* The processes that tokend asks, small but real: their sockets, tables and server are those of the
 * product; the agents come from a folder, the keys are OpenSSL's.
 *
 * token-servers RUN_DIR STORE attestd|whod|keyd…
 * STORE/agent          the agent's name; absent: every caller is nobody's agent
 * STORE/<agent>/       spiffe_id, key_id, chain.pem, bundle.pem; key_id absent: no certificate
 * STORE/<agent>/hsm     the HSM module its key is said to be in; absent: in memory
 * STORE/<agent>/stuck   when there, keyd's signatures for it wait as long as it is
 * STORE/keys/<id>.pem  private keys; absent: the key is gone
 * STORE/strangers      names of programs (comm) that are nobody's agent, one a line
 * STORE/names/<comm>   the agent of programs with this name; absent: STORE/agent
 * STORE/hold           "COMM N": new decisions about programs with this name are counted as long as
 *                      this is there, and all but the first N wait
 * STORE/frozen, STORE/changed, STORE/quota  when there, keyd or whod answers so
 * STORE/entries        a number, for CHANGES: other entries have another; absent: 1
 * STORE/busy           when there, attestd says of every caller that it cannot tell now
 * STORE/identify-slow  how many ms attestd takes for it, after it has decided
 * STORE/slow           how many ms keyd takes for a signature
 * STORE/real-whod      when there, attestd asks the whod of RUN_DIR who the caller is */
#include "attestd/base/clock.h"
#include "attestd/base/hash.h"
#include "attestd/base/io.h"
#include "attestd/proc/caller.h"
#include "attestd/proc/sign_proto.h"
#include "attestd/proc/who_proto.h"
#include "attestd/proc/workload_proto.h"

#include <openssl/ecdsa.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *folder;

static bool there(const char *name)
{
    char path[1024];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return stat(path, &st) == 0;
}

/* The file's text without its last newline. */
static bool text_of(const char *name, char *ret, size_t room)
{
    char path[1024];
    att_autobuf bytes = {0};
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (att_io_read_file(path, 65536, &bytes, NULL) != ATT_OK || bytes.len >= room) {
        return false;
    }
    memcpy(ret, bytes.ptr, bytes.len);
    ret[bytes.len] = 0;
    ret[strcspn(ret, "\n")] = 0;
    return true;
}

static size_t certs_of(const char *agent, const char *file, struct att_slice *items, size_t max)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s/%s", folder, agent, file);
    FILE *f = fopen(path, "r");
    size_t n = 0;
    X509 *cert;
    while (f && n < max && (cert = PEM_read_X509(f, NULL, NULL, NULL))) {
        unsigned char *der = NULL;
        int len = i2d_X509(cert, &der);
        items[n++] = ATT_SLICE(der, (size_t)len);
        X509_free(cert);
    }
    if (f) {
        fclose(f);
    }
    return n;
}

/* ---- attestd --------------------------------------------------------------------------------- */

static void comm_of(uint64_t pid, char ret[64]) /* with its newline */
{
    char path[64];
    att_autobuf bytes = {0};
    ret[0] = 0;
    snprintf(path, sizeof path, "/proc/%u/comm", (unsigned)pid);
    if (att_io_read_file(path, 63, &bytes, NULL) == ATT_OK && bytes.len) {
        memcpy(ret, bytes.ptr, bytes.len);
        ret[bytes.len] = 0;
    }
}

static bool stranger(uint64_t pid)
{
    char path[64], comm[64] = "", list[4096] = "";
    comm_of(pid, comm);
    snprintf(path, sizeof path, "%s", "strangers");
    char full[1024];
    snprintf(full, sizeof full, "%s/%s", folder, path);
    att_autobuf names = {0};
    if (att_io_read_file(full, sizeof list - 1, &names, NULL) != ATT_OK) {
        return false;
    }
    memcpy(list, names.ptr, names.len);
    return comm[0] && strstr(list, comm);
}

static bool agent_of(uint64_t pid, char *ret, size_t room)
{
    char comm[64], name[80];
    comm_of(pid, comm);
    comm[strcspn(comm, "\n/")] = 0;
    snprintf(name, sizeof name, "names/%s", comm);
    return text_of(comm[0] ? name : "agent", ret, room) || text_of("agent", ret, room);
}

/* A new decision is told when it begins, and waits as long as STORE/hold says so. */
static void begin_again(uint64_t pid)
{
    static atomic_uint begun;
    char comm[64], hold[96], name[64];
    unsigned most, number = 0;
    comm_of(pid, comm);
    comm[strcspn(comm, "\n")] = 0;
    printf("begin %s %u\n", comm, (unsigned)pid);
    fflush(stdout);
    while (text_of("hold", hold, sizeof hold) && sscanf(hold, "%63s %u", name, &most) == 2 &&
           strcmp(name, comm) == 0) {
        if (!number) {
            number = atomic_fetch_add(&begun, 1) + 1;
            printf("held %s %u\n", comm, (unsigned)pid);
            fflush(stdout);
        }
        if (number <= most) {
            return;
        }
        usleep(10000);
    }
}

static void end_again(uint64_t pid, enum att_rc rc, const char *agent, const struct att_err *err)
{
    char comm[64];
    comm_of(pid, comm);
    comm[strcspn(comm, "\n")] = 0;
    printf("end %s %u %s\n", comm, (unsigned)pid,
           rc == ATT_OK     ? agent
           : err->reason[0] ? err->reason
                            : att_rc_name(rc));
    fflush(stdout);
}

static struct proc_caller *real_whod;

static enum att_rc ask_whod(const struct proc_peer *peer, const struct proc_msg *request,
                            bool again, uint8_t ret_identity[ATT_SHA256_LEN], struct att_err *err)
{
    const struct proc_value values[] = {request->v[PROC_WORKLOAD_IDENTIFY_REQ_PID],
                                        request->v[PROC_WORKLOAD_IDENTIFY_REQ_ACCEPTED_MS],
                                        {.items = NULL, .item_count = 0},
                                        {.num = again}};
    proc_autoanswer answer = {0};
    enum att_rc rc = proc_call(real_whod, PROC_WHO_WHO, values, peer->passed, &answer, err);
    if (rc == ATT_OK) {
        memcpy(ret_identity, answer.msg.v[PROC_WHO_REP_IDENTITY].bytes.ptr, ATT_SHA256_LEN);
    }
    return rc;
}

static enum att_rc decide(const struct proc_peer *peer, const struct proc_msg *request, bool again,
                          char *ret_agent, size_t room, uint8_t ret_identity[ATT_SHA256_LEN],
                          struct att_err *err)
{
    uint64_t pid = request->v[PROC_WORKLOAD_IDENTIFY_REQ_PID].num;
    if (there("busy")) {
        return att_fail(err, ATT_E_LIMIT, "busy");
    }
    if (!agent_of(pid, ret_agent, room) || stranger(pid)) {
        enum att_rc rc = att_fail(err, ATT_E_DENIED, "no entry fits");
        att_err_reason(err, "notAssigned");
        return rc;
    }
    att_sha256(ret_identity, ATT_SLICE(&pid, sizeof pid));
    return there("real-whod") ? ask_whod(peer, request, again, ret_identity, err) : ATT_OK;
}

static enum att_rc identify(const struct proc_peer *peer, const struct proc_op *op,
                            const struct proc_msg *request, struct att_buf *ret_payload,
                            struct att_err *err)
{
    char agent[128];
    uint8_t identity[ATT_SHA256_LEN];
    uint64_t pid = request->v[PROC_WORKLOAD_IDENTIFY_REQ_PID].num;
    char service[33], slow[16];
    proc_take_text(request->v[PROC_WORKLOAD_IDENTIFY_REQ_SERVICE].bytes, service, sizeof service);
    printf("identify %s\n", service);
    fflush(stdout);
    bool again = strcmp(service, PROC_WORKLOAD_AGAIN) == 0;
    if (again) {
        begin_again(pid);
    }
    enum att_rc rc = decide(peer, request, again, agent, sizeof agent, identity, err);
    if (again) {
        end_again(pid, rc, agent, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    if (text_of("identify-slow", slow, sizeof slow)) {
        usleep((useconds_t)strtoul(slow, NULL, 10) * 1000);
    }
    const struct proc_value values[] = {{.bytes = att_slice_str(agent)},
                                        {.bytes = ATT_SLICE_ARRAY(identity)}};
    return proc_reply_encode(op, values, ret_payload, err);
}
static enum att_rc view(const struct proc_op *op, const struct proc_msg *request,
                        struct att_buf *ret_payload, struct att_err *err)
{
    char agent[128], name[256], spiffe_id[512], key_id[64], hsm[64] = "";
    struct att_slice chain[PROC_CHAIN_MAX], bundle[PROC_BUNDLE_MAX];
    proc_take_text(request->v[0].bytes, agent, sizeof agent);
    snprintf(name, sizeof name, "%s/spiffe_id", agent);
    bool ok = text_of(name, spiffe_id, sizeof spiffe_id);
    snprintf(name, sizeof name, "%s/key_id", agent);
    if (!ok || !text_of(name, key_id, sizeof key_id)) {
        enum att_rc rc = att_fail(err, ATT_E_NOTFOUND, "nothing is in force");
        att_err_reason(err, "noCertificate");
        return rc;
    }
    snprintf(name, sizeof name, "%s/hsm", agent);
    bool in_hsm = text_of(name, hsm, sizeof hsm);
    size_t n = certs_of(agent, "chain.pem", chain, PROC_CHAIN_MAX);
    size_t roots = certs_of(agent, "bundle.pem", bundle, PROC_BUNDLE_MAX);
    uint8_t digest[ATT_SHA256_LEN];
    const struct att_slice parts[] = {att_slice_str(key_id), chain[0]};
    att_sha256_v(digest, parts, n ? 2 : 1);
    uint64_t generation;
    memcpy(&generation, digest, sizeof generation);
    const struct proc_value values[] = {
        {.bytes = att_slice_str(spiffe_id)},       {.bytes = att_slice_str(key_id)},
        {.num = (uint64_t)att_now_utc_s() + 3600}, {.items = chain, .item_count = n},
        {.items = bundle, .item_count = roots},    {.num = generation | 1},
        proc_text(in_hsm ? "hsm" : "memory"),      proc_text(in_hsm ? hsm : ""),
    };
    enum att_rc rc = proc_reply_encode(op, values, ret_payload, err);
    for (size_t i = 0; i < n; i++) {
        OPENSSL_free((void *)(uintptr_t)chain[i].ptr);
    }
    for (size_t i = 0; i < roots; i++) {
        OPENSSL_free((void *)(uintptr_t)bundle[i].ptr);
    }
    return rc;
}

/* The trust domain's: the roots of the folder's agent, and the folder's file "crl" as its lists. */
static enum att_rc bundle(const struct proc_op *op, struct att_buf *ret_payload,
                          struct att_err *err)
{
    char agent[128], path[1024];
    struct att_slice roots[PROC_BUNDLE_MAX];
    struct stat st = {.st_size = 0};
    snprintf(path, sizeof path, "%s/crl", folder);
    (void)stat(path, &st);
    size_t n = text_of("agent", agent, sizeof agent)
                   ? certs_of(agent, "bundle.pem", roots, PROC_BUNDLE_MAX)
                   : 0;
    const struct proc_value values[] = {proc_text("bank.example"),
                                        {.items = roots, .item_count = n},
                                        {.num = 1},
                                        {.num = (uint64_t)st.st_size}};
    enum att_rc rc = proc_reply_encode(op, values, ret_payload, err);
    for (size_t i = 0; i < n; i++) {
        OPENSSL_free((void *)(uintptr_t)roots[i].ptr);
    }
    return rc;
}

static enum att_rc crl(const struct proc_op *op, const struct proc_msg *request,
                       struct att_buf *ret_payload, struct att_err *err)
{
    static uint8_t part[PROC_CRL_PART_MAX];
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    char path[1024];
    snprintf(path, sizeof path, "%s/crl", folder);
    pthread_mutex_lock(&lock);
    FILE *f = fopen(path, "r");
    size_t got = 0;
    if (f) {
        (void)fseek(f, (long)request->v[PROC_WORKLOAD_CRL_REQ_OFFSET].num, SEEK_SET);
        got = fread(part, 1, sizeof part, f);
        fclose(f);
    }
    const struct proc_value values[] = {{.bytes = ATT_SLICE(part, got)}};
    enum att_rc rc = proc_reply_encode(op, values, ret_payload, err);
    pthread_mutex_unlock(&lock);
    return rc;
}

static atomic_bool stopping;

static enum att_rc changes(const struct proc_op *op, const struct proc_msg *request,
                           struct att_buf *ret_payload)
{
    uint64_t now = 1;
    for (int64_t end = att_boottime_ms() + PROC_CHANGES_WAIT_MS; att_boottime_ms() < end;) {
        char number[24];
        now = text_of("entries", number, sizeof number) ? strtoull(number, NULL, 10) : 1;
        if (now != request->v[PROC_WORKLOAD_CHANGES_REQ_KNOWN].num || atomic_load(&stopping)) {
            break;
        }
        usleep(10000);
    }
    const struct proc_value values[] = {{.num = now}, {.num = 1}}; /* WATCH has two */
    return proc_reply_encode(op, values, ret_payload, NULL);
}

static enum att_rc attestd(void *user, const struct proc_peer *peer, const struct proc_op *op,
                           const struct proc_msg *request, struct att_buf *ret_payload,
                           struct att_err *err)
{
    (void)user;
    if (op->op == PROC_WORKLOAD_CHANGES || op->op == PROC_WORKLOAD_WATCH) {
        return changes(op, request, ret_payload);
    }
    if (op->op == PROC_WORKLOAD_BUNDLE) {
        return bundle(op, ret_payload, err);
    }
    if (op->op == PROC_WORKLOAD_CRL) {
        return crl(op, request, ret_payload, err);
    }
    if (op->op == PROC_WORKLOAD_FEDERATION) { /* like an attestd of before it */
        return att_fail(err, ATT_E_UNSUPPORTED, "no operation %u", op->op);
    }
    return op->op == PROC_WORKLOAD_IDENTIFY ? identify(peer, op, request, ret_payload, err)
                                            : view(op, request, ret_payload, err);
}

/* ---- whod -------------------------------------------------------------------------------------
 */

static enum att_rc whod(void *user, const struct proc_peer *peer, const struct proc_op *op,
                        const struct proc_msg *request, struct att_buf *ret_payload,
                        struct att_err *err)
{
    (void)user;
    (void)peer;
    if (op->op != PROC_WHO_SAME) {
        return att_fail(err, ATT_E_UNSUPPORTED, "only SAME");
    }
    uint8_t identity[ATT_SHA256_LEN];
    uint64_t pid = request->v[PROC_WHO_SAME_REQ_PID].num;
    att_sha256(identity, ATT_SLICE(&pid, sizeof pid));
    bool same =
        att_slice_eq(ATT_SLICE_ARRAY(identity), request->v[PROC_WHO_SAME_REQ_IDENTITY].bytes) &&
        !there("changed");
    const struct proc_value values[] = {{.num = same}};
    return proc_reply_encode(op, values, ret_payload, err);
}

/* ---- keyd -------------------------------------------------------------------------------------
 */

static enum att_rc sign_with(const char *path, struct att_slice digest, uint8_t signature[64],
                             struct att_err *err)
{
    FILE *f = fopen(path, "r");
    EVP_PKEY *key = f ? PEM_read_PrivateKey(f, NULL, NULL, NULL) : NULL;
    if (f) {
        fclose(f);
    }
    if (!key) {
        return att_fail(err, ATT_E_NOTFOUND, "the key is gone");
    }
    uint8_t der[128];
    size_t len = sizeof der;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
    bool ok = ctx && EVP_PKEY_sign_init(ctx) == 1 &&
              EVP_PKEY_sign(ctx, der, &len, digest.ptr, digest.len) == 1;
    const uint8_t *at = der;
    ECDSA_SIG *sig = ok ? d2i_ECDSA_SIG(NULL, &at, (long)len) : NULL;
    ok = sig && BN_bn2binpad(ECDSA_SIG_get0_r(sig), signature, 32) == 32 &&
         BN_bn2binpad(ECDSA_SIG_get0_s(sig), signature + 32, 32) == 32;
    ECDSA_SIG_free(sig);
    EVP_PKEY_CTX_free(ctx);
    EVP_PKEY_free(key);
    return ok ? ATT_OK : att_fail(err, ATT_E_CRYPTO, "sign");
}

static enum att_rc keyd(void *user, const struct proc_peer *peer, const struct proc_op *op,
                        const struct proc_msg *request, struct att_buf *ret_payload,
                        struct att_err *err)
{
    char key_id[64], path[1024];
    uint8_t signature[64];
    char slow[16];
    (void)user;
    (void)peer;
    if (text_of("slow", slow, sizeof slow)) {
        usleep((useconds_t)strtoul(slow, NULL, 10) * 1000);
    }
    char agent[128], stuck[160];
    proc_take_text(request->v[PROC_SIGN_REQ_AGENT].bytes, agent, sizeof agent);
    snprintf(stuck, sizeof stuck, "%s/stuck", agent);
    if (there(stuck)) {
        printf("stuck %s\n", agent);
        fflush(stdout);
    }
    while (there(stuck) && !atomic_load(&stopping)) {
        usleep(10000);
    }
    if (there("frozen")) {
        enum att_rc rc = att_fail(err, ATT_E_DENIED, "the agent is frozen");
        att_err_reason(err, "frozen");
        return rc;
    }
    if (there("quota")) {
        enum att_rc rc = att_fail(err, ATT_E_LIMIT, "too many signatures");
        att_err_reason(err, "quota");
        return rc;
    }
    proc_take_text(request->v[PROC_SIGN_REQ_KEY_ID].bytes, key_id, sizeof key_id);
    snprintf(path, sizeof path, "%s/keys/%s.pem", folder, key_id);
    enum att_rc rc = sign_with(path, request->v[PROC_SIGN_REQ_DIGEST].bytes, signature, err);
    const struct proc_value values[] = {{.bytes = ATT_SLICE_ARRAY(signature)}};
    return rc == ATT_OK ? proc_reply_encode(op, values, ret_payload, err) : rc;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name, *socket;
        const struct proc_op *table;
        proc_handler_fn *handler;
    } all[] = {
        {"attestd", "workload.sock", proc_workload_table, attestd},
        {"whod", "whod.sock", proc_who_table, whod},
        {"keyd", "keyd/sign.sock", proc_sign_table, keyd},
    };
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    folder = argc > 3 ? argv[2] : ".";
    char whod_path[108];
    snprintf(whod_path, sizeof whod_path, "%s/whod.sock", argc > 3 ? argv[1] : ".");
    if (proc_caller_new(whod_path, "whod", PROC_ANY_USER, proc_who_table, 5000, &real_whod, NULL) !=
        ATT_OK) {
        return 1;
    }
    struct proc_server *servers[3] = {NULL};
    for (int i = 3; i < argc; i++) {
        for (size_t k = 0; k < 3; k++) {
            char path[108];
            struct att_err err = {0};
            if (strcmp(argv[i], all[k].name) != 0) {
                continue;
            }
            snprintf(path, sizeof path, "%s/keyd", argv[1]);
            (void)mkdir(path, 0750);
            snprintf(path, sizeof path, "%s/%s", argv[1], all[k].socket);
            const struct proc_server_opts opts = {.path = path,
                                                  .clients = {.uids = {geteuid()}, .count = 1},
                                                  .table = all[k].table,
                                                  .handler = all[k].handler,
                                                  .frame_timeout_ms = 5000};
            if (proc_server_new(&opts, &servers[k], &err) != ATT_OK ||
                proc_server_start(servers[k], &err) != ATT_OK) {
                fprintf(stderr, "token-servers: %s\n", err.msg);
                return 1;
            }
        }
    }
    puts("ready");
    fflush(stdout);
    int got;
    sigwait(&signals, &got);
    atomic_store(&stopping, true);
    for (size_t k = 0; k < 3; k++) {
        proc_server_free(servers[k]);
    }
    proc_caller_free(real_whod);
    return 0;
}
