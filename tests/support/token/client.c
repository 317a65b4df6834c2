/* A workload of the tests: the stock p11-kit client, loaded as any program loads it.
 *
 * token-client MODULE COMMAND
 *   sign N        N signatures, each verified; prints p50 and p99 in µs
 *   loop SECONDS [MAX_MS [GRACE_S]]  signs until then, and prints "signs" after the first
 *                 signature; counts what failed; none may take longer than MAX_MS (5000); where the
 *                 last one failed it goes on for GRACE_S (30) until one succeeds
 *   idle N        N connections, each signs once; prints "idle" and waits for its input to end
 *   rotate        signs; prints "ready"; at the next line of input looks again: the new key and the
 *                 old handle must both work
 *   hold          signs; prints "ready KEYID"; at each line of input signs with the handle from
 * then, and with the one that a search finds: "old RV new RV KEYID", until its input ends old
 * signs; prints "ready"; at the next line of input the old handle must fail inherit       a child
 * writes to the connection that it inherited, and must be refused
 */
#include "attestd/base/clock.h"

#include <dlfcn.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <p11-kit/pkcs11.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static CK_C_GetFunctionList get_list;

struct client {
    CK_FUNCTION_LIST *f;
    CK_SESSION_HANDLE session;
    CK_OBJECT_HANDLE key;
};

static _Noreturn void stop(const char *what, CK_RV rv)
{
    fprintf(stderr, "token-client: %s: 0x%lx\n", what, rv);
    exit(1);
}
static void must(const char *what, CK_RV rv)
{
    if (rv != CKR_OK) {
        stop(what, rv);
    }
}

static CK_OBJECT_HANDLE find(struct client *c, CK_OBJECT_CLASS class)
{
    char label[] = "agent";
    CK_ATTRIBUTE templ[] = {{CKA_CLASS, &class, sizeof class}, {CKA_LABEL, label, 5}};
    CK_OBJECT_HANDLE found = 0;
    CK_ULONG count = 0;
    must("FindObjectsInit", c->f->C_FindObjectsInit(c->session, templ, 2));
    must("FindObjects", c->f->C_FindObjects(c->session, &found, 1, &count));
    must("FindObjectsFinal", c->f->C_FindObjectsFinal(c->session));
    if (count != 1) {
        stop("objects found", count);
    }
    return found;
}

static void open_client(struct client *c)
{
    CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK};
    CK_SLOT_ID slot;
    CK_ULONG count = 1;
    must("GetFunctionList", get_list(&c->f));
    must("Initialize", c->f->C_Initialize(&args));
    must("GetSlotList", c->f->C_GetSlotList(CK_TRUE, &slot, &count));
    if (count != 1) {
        stop("slots", count);
    }
    must("OpenSession", c->f->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &c->session));
    c->key = find(c, CKO_PRIVATE_KEY);
}

static CK_RV sign(struct client *c, CK_OBJECT_HANDLE key, const CK_BYTE digest[32], CK_BYTE sig[64])
{
    CK_MECHANISM ecdsa = {CKM_ECDSA, NULL, 0};
    CK_ULONG len = 64;
    CK_RV rv = c->f->C_SignInit(c->session, &ecdsa, key);
    return rv == CKR_OK ? c->f->C_Sign(c->session, (CK_BYTE *)(uintptr_t)digest, 32, sig, &len)
                        : rv;
}

/* The key that searches find now, with its public key and CKA_ID. Two searches: where a rotation
 * falls between them they show halves of two pairs, or one that has gone, so look again. */
struct pair {
    CK_OBJECT_HANDLE key;
    EVP_PKEY *public;
    CK_BYTE id[64];
    CK_ULONG id_len;
};

static bool look(struct client *c, struct pair *pair)
{
    CK_BYTE der[256], id[64];
    CK_ATTRIBUTE private = {CKA_ID, pair->id, sizeof pair->id};
    CK_ATTRIBUTE public[] = {{CKA_ID, id, sizeof id},
                             {0x129 /* CKA_PUBLIC_KEY_INFO */, der, sizeof der}};
    pair->key = find(c, CKO_PRIVATE_KEY);
    CK_OBJECT_HANDLE other = find(c, CKO_PUBLIC_KEY);
    if (c->f->C_GetAttributeValue(c->session, pair->key, &private, 1) != CKR_OK ||
        c->f->C_GetAttributeValue(c->session, other, public, 2) != CKR_OK ||
        private.ulValueLen != public[0].ulValueLen ||
        memcmp(pair->id, id, private.ulValueLen) != 0) {
        return false;
    }
    const unsigned char *at = der;
    pair->id_len = private.ulValueLen;
    pair->public = d2i_PUBKEY(NULL, &at, (long)public[1].ulValueLen);
    return pair->public != NULL;
}

static struct pair find_pair(struct client *c)
{
    struct pair pair;
    for (int n = 0; !look(c, &pair); n++) {
        if (n == 100) {
            stop("no private key and public key that belong together", 0);
        }
    }
    return pair;
}

static EVP_PKEY *public_key(struct client *c)
{
    struct pair pair = find_pair(c);
    c->key = pair.key;
    return pair.public;
}

static bool good(EVP_PKEY *key, const CK_BYTE digest[32], const CK_BYTE raw[64])
{
    unsigned char *der = NULL;
    ECDSA_SIG *sig = ECDSA_SIG_new();
    ECDSA_SIG_set0(sig, BN_bin2bn(raw, 32, NULL), BN_bin2bn(raw + 32, 32, NULL));
    int len = i2d_ECDSA_SIG(sig, &der);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
    bool ok =
        EVP_PKEY_verify_init(ctx) == 1 && EVP_PKEY_verify(ctx, der, (size_t)len, digest, 32) == 1;
    EVP_PKEY_CTX_free(ctx);
    OPENSSL_free(der);
    ECDSA_SIG_free(sig);
    return ok;
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int cmd_sign(struct client *c, size_t n)
{
    EVP_PKEY *key = public_key(c);
    int64_t *us = calloc(n ? n : 1, sizeof *us);
    for (size_t i = 0; i < n; i++) {
        CK_BYTE digest[32], sig[64];
        memset(digest, (int)i, sizeof digest);
        int64_t began = att_boottime_us();
        must("Sign", sign(c, c->key, digest, sig));
        us[i] = att_boottime_us() - began;
        if (!good(key, digest, sig)) {
            stop("a signature does not verify", i);
        }
    }
    qsort(us, n, sizeof *us, by_value);
    printf("signed %zu p50_us %lld p99_us %lld\n", n, (long long)us[n / 2],
           (long long)us[n * 99 / 100]);
    free(us);
    EVP_PKEY_free(key);
    return 0;
}

static int cmd_loop(struct client *c, int seconds, long max_ms, long grace_s)
{
    EVP_PKEY *key = public_key(c);
    unsigned long ok = 0, failed = 0;
    CK_RV last = CKR_OK, seen = CKR_OK;
    bool said = false;
    int64_t end = att_boottime_ms() + seconds * 1000;
    while (att_boottime_ms() < end ||
           (last != CKR_OK && att_boottime_ms() < end + grace_s * 1000)) {
        CK_BYTE digest[32] = {1, 2, 3}, sig[64];
        int64_t began = att_boottime_ms();
        last = sign(c, c->key, digest, sig);
        if (last == CKR_OK && !good(key, digest, sig)) {
            stop("a signature does not verify", ok);
        }
        if (att_boottime_ms() - began > max_ms) {
            stop("a call took too long", last);
        }
        ok += last == CKR_OK;
        if (ok && !said) {
            said = true;
            puts("signs");
            fflush(stdout);
        }
        failed += last != CKR_OK;
        seen = last == CKR_OK ? seen : last;
    }
    printf("ok %lu failed %lu error 0x%lx last 0x%lx\n", ok, failed, seen, last);
    EVP_PKEY_free(key);
    return last == CKR_OK && ok ? 0 : 1;
}

static int cmd_idle(size_t n)
{
    struct client *all = calloc(n, sizeof *all);
    for (size_t i = 0; i < n; i++) {
        CK_BYTE digest[32] = {0}, sig[64];
        open_client(&all[i]);
        must("Sign", sign(&all[i], all[i].key, digest, sig));
        usleep(20000); /* below the rate at which a user may connect */
    }
    puts("idle");
    fflush(stdout);
    while (getchar() != EOF) {
    }
    for (size_t i = 0; i < n; i++) {
        CK_BYTE digest[32] = {0}, sig[64];
        must("Sign at the end", sign(&all[i], all[i].key, digest, sig));
    }
    free(all);
    return 0;
}

static int cmd_rotate(struct client *c, bool old_must_fail)
{
    CK_BYTE digest[32] = {9}, sig[64];
    EVP_PKEY *was = public_key(c);
    must("Sign", sign(c, c->key, digest, sig));
    puts("ready");
    fflush(stdout);
    (void)getchar();
    CK_RV rv = sign(c, c->key, digest, sig);
    if (old_must_fail) {
        EVP_PKEY_free(was);
        printf("old 0x%lx\n", rv);
        return rv == CKR_KEY_HANDLE_INVALID ? 0 : 1;
    }
    must("old handle", rv);
    if (!good(was, digest, sig)) {
        stop("the old handle signs with another key", 0);
    }
    struct pair is = find_pair(c);
    must("new handle", sign(c, is.key, digest, sig));
    bool ok = is.key != c->key && good(is.public, digest, sig) && EVP_PKEY_eq(is.public, was) != 1;
    EVP_PKEY_free(was);
    EVP_PKEY_free(is.public);
    return ok ? 0 : 1;
}

static void print_id(const struct pair *pair)
{
    for (CK_ULONG i = 0; i < pair->id_len; i++) {
        printf("%02x", pair->id[i]);
    }
    puts("");
    fflush(stdout);
}

/* A signature by this handle, which must be of this key. */
static CK_RV checked_sign(struct client *c, CK_OBJECT_HANDLE key, EVP_PKEY *public)
{
    CK_BYTE digest[32] = {4, 2}, sig[64];
    CK_RV rv = sign(c, key, digest, sig);
    if (rv == CKR_OK && !good(public, digest, sig)) {
        stop("a handle signs with another key", 0);
    }
    return rv;
}

static int cmd_hold(struct client *c)
{
    struct pair was = find_pair(c);
    must("Sign", checked_sign(c, was.key, was.public));
    printf("ready ");
    print_id(&was);
    for (int ch = getchar(); ch != EOF; ch = getchar()) {
        if (ch != '\n') {
            continue;
        }
        CK_RV old = checked_sign(c, was.key, was.public);
        struct pair is = find_pair(c);
        printf("old 0x%lx new 0x%lx ", old, checked_sign(c, is.key, is.public));
        print_id(&is);
        EVP_PKEY_free(is.public);
    }
    EVP_PKEY_free(was.public);
    return 0;
}

/* The one unix socket that this process has. */
static int connection(void)
{
    for (int fd = 3; fd < 64; fd++) {
        struct sockaddr_storage addr;
        socklen_t len = sizeof addr;
        if (getpeername(fd, (struct sockaddr *)&addr, &len) == 0 && addr.ss_family == AF_UNIX) {
            return fd;
        }
    }
    return -1;
}

static int cmd_inherit(void)
{
    /* C_GetInfo, well formed */
    static const unsigned char frame[] = {0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
                                          0, 8, 0, 0, 0, 3, 0, 0, 0, 0};
    int fd = connection();
    pid_t pid = fork();
    if (pid == 0) {
        char answer[64];
        ssize_t put = send(fd, frame, sizeof frame, MSG_NOSIGNAL);
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (put != sizeof frame || poll(&p, 1, 5000) != 1) {
            _exit(2);
        }
        _exit(recv(fd, answer, sizeof answer, 0) <= 0 ? 0 : 3);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    printf("child %d\n", WEXITSTATUS(status));
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 4); /* no C_Finalize on the dead socket */
}

int main(int argc, char **argv)
{
    void *module = argc > 2 ? dlopen(argv[1], RTLD_NOW) : NULL;
    get_list = module ? (CK_C_GetFunctionList)dlsym(module, "C_GetFunctionList") : NULL;
    size_t n = argc > 3 ? strtoul(argv[3], NULL, 10) : 1;
    if (!get_list) {
        fprintf(stderr, "token-client: %s\n", module ? "no C_GetFunctionList" : dlerror());
        return 2;
    }
    if (strcmp(argv[2], "idle") == 0) {
        return cmd_idle(n);
    }
    struct client c;
    open_client(&c);
    long max_ms = argc > 4 ? atol(argv[4]) : 5000, grace_s = argc > 5 ? atol(argv[5]) : 30;
    int rc = strcmp(argv[2], "sign") == 0      ? cmd_sign(&c, n)
             : strcmp(argv[2], "loop") == 0    ? cmd_loop(&c, (int)n, max_ms, grace_s)
             : strcmp(argv[2], "rotate") == 0  ? cmd_rotate(&c, false)
             : strcmp(argv[2], "hold") == 0    ? cmd_hold(&c)
             : strcmp(argv[2], "old") == 0     ? cmd_rotate(&c, true)
             : strcmp(argv[2], "inherit") == 0 ? cmd_inherit()
                                               : 2;
    return rc;
}
