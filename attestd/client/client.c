/* libattest-client: attestd.v1.Signer for C programs. */
#include "attestd/client/attest-client.h"

#include "attestd/base/clock.h"
#include "attestd/client/answer.h"
#include "attestd/client/wire.h"

#include "signer.pb-c.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SOCKET     "/run/attestd/public/api.sock"
#define TIMEOUT_MS 20000
#define SERVICE    "/attestd.v1.Signer/"
#define AGENT      "libattest-client/" ATT_VERSION
#define DIGEST_MAX 64
#define KEY_ID_MAX 63

struct attest_client {
    char path[sizeof((struct sockaddr_un *)NULL)->sun_path];
    char named[160]; /* what was said to be the path, for the message; empty: path is one */
    int timeout_ms;
    pid_t pid; /* whose connections they are */
    struct wire *calls, *watch;
    struct att_err err;
};

/* ---- life ---- */

struct attest_client *attest_client_new(const char *socket)
{
    struct attest_client *client = calloc(1, sizeof *client);
    if (!client) {
        return NULL;
    }
    /* Whoever starts a set-user-ID program does not say for it who its attestd is. */
    const char *text = socket ? socket : secure_getenv("SPIFFE_ENDPOINT_SOCKET");
    const char *path = socket || (text && *text) ? text : SOCKET;
    if (!socket && text && *text) {
        bool is_unix = strncmp(text, "unix:", 5) == 0;
        path = is_unix ? text + 5 : "";
        path += is_unix && strncmp(path, "///", 3) == 0 ? 2 : 0;
    }
    if (path[0] != '/' || path[1] == '/' || strlen(path) >= sizeof client->path) {
        snprintf(client->named, sizeof client->named, "%.120s", *text ? text : "\"\"");
    } else {
        memcpy(client->path, path, strlen(path) + 1);
    }
    client->timeout_ms = TIMEOUT_MS;
    client->pid = getpid();
    return client;
}

void attest_client_free(struct attest_client *client)
{
    if (client) {
        wire_free(client->calls);
        wire_free(client->watch);
        free(client);
    }
}

void attest_client_set_timeout(struct attest_client *client, int milliseconds)
{
    client->timeout_ms = milliseconds < 1 ? 1 : milliseconds;
}

const char *attest_client_message(const struct attest_client *client)
{
    return client->err.msg;
}

const char *attest_client_reason(const struct attest_client *client)
{
    return client->err.reason;
}

int attest_client_watch_fd(const struct attest_client *client)
{
    return client->watch ? wire_fd(client->watch) : -1;
}

const char *attest_client_status_name(enum attest_client_status status)
{
    static const char *const names[] = {
        [ATTEST_CLIENT_OK] = "ok",
        [ATTEST_CLIENT_INVALID] = "invalid",
        [ATTEST_CLIENT_DENIED] = "denied",
        [ATTEST_CLIENT_NOT_FOUND] = "not found",
        [ATTEST_CLIENT_WRONG_KEY] = "wrong key",
        [ATTEST_CLIENT_UNAVAILABLE] = "unavailable",
        [ATTEST_CLIENT_UNREACHABLE] = "unreachable",
        [ATTEST_CLIENT_TIMEOUT] = "timeout",
        [ATTEST_CLIENT_ENDED] = "ended",
        [ATTEST_CLIENT_PROTOCOL] = "protocol",
        [ATTEST_CLIENT_NO_MEMORY] = "no memory",
    };
    bool known = (size_t)status < sizeof names / sizeof names[0];
    return known ? names[status] : "unknown";
}

static enum attest_client_status status_of(enum att_rc rc)
{
    switch (rc) {
    case ATT_OK:
        return ATTEST_CLIENT_OK;
    case ATT_E_INVAL:
        return ATTEST_CLIENT_INVALID;
    case ATT_E_DENIED:
        return ATTEST_CLIENT_DENIED;
    case ATT_E_NOTFOUND:
        return ATTEST_CLIENT_NOT_FOUND;
    case ATT_E_CONFLICT:
        return ATTEST_CLIENT_WRONG_KEY;
    case ATT_E_RETRY:
    case ATT_E_LIMIT:
        return ATTEST_CLIENT_UNAVAILABLE;
    case ATT_E_UNREACHABLE:
        return ATTEST_CLIENT_UNREACHABLE;
    case ATT_E_TIMEOUT:
        return ATTEST_CLIENT_TIMEOUT;
    case ATT_E_GONE:
        return ATTEST_CLIENT_ENDED;
    case ATT_E_NOMEM:
        return ATTEST_CLIENT_NO_MEMORY;
    default:
        return ATTEST_CLIENT_PROTOCOL;
    }
}

/* ---- connections ---- */

static enum att_rc wire_to(const struct attest_client *client, int64_t until_ms,
                           struct wire **ret_wire, struct att_err *err)
{
    if (!client->path[0]) {
        return att_fail(err, ATT_E_INVAL,
                        "the socket: expected a path (SPIFFE_ENDPOINT_SOCKET: unix:///PATH) of at "
                        "most %zu bytes, found %s",
                        sizeof client->path - 1, client->named);
    }
    return wire_connect(client->path, AGENT, until_ms, ret_wire, err);
}

static void drop(struct wire **wire)
{
    wire_free(*wire);
    *wire = NULL;
}

/* A child's connections are its own: attestd cuts one on which two processes write. */
static void begin(struct attest_client *client)
{
    client->err = (struct att_err){0};
    if (client->pid != getpid()) {
        drop(&client->calls);
        drop(&client->watch);
        client->pid = getpid();
    }
}

/* What the server said meanwhile: that the connection is over, perhaps. */
static bool stale(struct wire *wire)
{
    enum att_rc rc = ATT_OK;
    while (rc == ATT_OK) {
        rc = wire_step(wire, 0, NULL);
    }
    return rc != ATT_E_TIMEOUT;
}

/* ---- one call ---- */

/* On the connection that is there, or on a new one if that has ended since. */
static enum att_rc call(struct attest_client *client, const char *method, struct att_slice message,
                        struct att_slice *ret_message)
{
    int64_t until = att_boottime_ms() + client->timeout_ms;
    const struct wire_request request = {.method = method, .message = message, .until_ms = until};
    struct att_err *err = &client->err;
    if (client->calls && stale(client->calls)) {
        drop(&client->calls);
    }
    bool old = client->calls;
    enum att_rc rc = old ? ATT_OK : wire_to(client, until, &client->calls, err);
    rc = rc ? rc : wire_call(client->calls, &request, ret_message, err);
    if (rc == ATT_E_GONE && old) { /* it ended in this moment: to sign twice does no harm */
        att_err_clear(err);
        drop(&client->calls);
        rc = wire_to(client, until, &client->calls, err);
        rc = rc ? rc : wire_call(client->calls, &request, ret_message, err);
    }
    if (rc == ATT_E_GONE || rc == ATT_E_TIMEOUT || rc == ATT_E_PROTOCOL) {
        drop(&client->calls); /* nothing late of it is taken for the next one's answer */
    }
    return rc;
}

static enum att_rc check_sign(size_t digest_len, enum attest_client_algorithm algorithm,
                              const char *key_id, const size_t *len, struct att_err *err)
{
    bool rsa = algorithm == ATTEST_CLIENT_RSA_PKCS1 || algorithm == ATTEST_CLIENT_RSA_PSS;
    if (!rsa && algorithm != ATTEST_CLIENT_ECDSA) {
        return att_fail(err, ATT_E_INVAL, "algorithm: expected 1 to 3, found %d", (int)algorithm);
    }
    if (rsa ? digest_len != 32 && digest_len != 48 && digest_len != 64
            : digest_len < 20 || digest_len > DIGEST_MAX) {
        return att_fail(err, ATT_E_INVAL, "digest: expected %s bytes, found %zu",
                        rsa ? "32, 48 or 64" : "20 to 64", digest_len);
    }
    if (key_id && strlen(key_id) > KEY_ID_MAX) {
        return att_fail(err, ATT_E_INVAL, "key id: expected at most %d characters", KEY_ID_MAX);
    }
    return *len >= ATTEST_CLIENT_SIGNATURE_MAX
               ? ATT_OK
               : att_fail(err, ATT_E_INVAL, "signature: expected room for %d bytes, found %zu",
                          ATTEST_CLIENT_SIGNATURE_MAX, *len);
}

enum attest_client_status attest_client_sign(struct attest_client *client,
                                             enum attest_client_algorithm algorithm,
                                             const uint8_t *digest, size_t digest_len,
                                             const char *key_id, uint8_t *sig, size_t *len)
{
    uint8_t packed[2 * (DIGEST_MAX + KEY_ID_MAX)];
    struct att_slice reply = {0};
    begin(client);
    enum att_rc rc = check_sign(digest_len, algorithm, key_id, len, &client->err);
    if (rc == ATT_OK) {
        Attestd__V1__SignRequest request;
        attestd__v1__sign_request__init(&request);
        request.algorithm = (Attestd__V1__Algorithm)algorithm;
        request.digest = (ProtobufCBinaryData){digest_len, (uint8_t *)(uintptr_t)digest};
        request.key_id = (char *)(uintptr_t)(key_id ? key_id : "");
        size_t n = attestd__v1__sign_request__pack(&request, packed);
        rc = call(client, SERVICE "Sign", ATT_SLICE(packed, n), &reply);
    }
    rc = rc ? rc : answer_signature(reply, key_id, sig, len, &client->err);
    return status_of(rc);
}

enum attest_client_status attest_client_get_chain(struct attest_client *client,
                                                  struct attest_client_chain **ret_chain)
{
    struct att_slice reply = {0};
    begin(client);
    enum att_rc rc = call(client, SERVICE "Chain", ATT_SLICE(NULL, 0), &reply);
    rc = rc ? rc : answer_chain(reply, ret_chain, &client->err);
    return status_of(rc);
}

/* ---- Watch ---- */

/* The newest of what is there. ATT_E_NOTFOUND without err: nothing is. */
static enum att_rc newest(struct wire *wire, struct attest_client_chain **ret_chain,
                          struct att_err *err)
{
    struct attest_client_chain *chain = NULL;
    struct att_slice message;
    enum att_rc rc;
    while ((rc = wire_message(wire, &message, err)) == ATT_OK) {
        attest_client_chain_free(chain);
        chain = NULL;
        rc = answer_chain(message, &chain, err);
        if (rc != ATT_OK) {
            return rc;
        }
    }
    if (rc != ATT_E_NOTFOUND || err->rc || !chain) {
        attest_client_chain_free(chain);
        return rc;
    }
    *ret_chain = chain;
    return ATT_OK;
}

static enum att_rc watch_begin(struct attest_client *client, struct att_err *err)
{
    int64_t until = att_boottime_ms() + client->timeout_ms;
    const struct wire_request request = {.method = SERVICE "Watch", .until_ms = -1};
    enum att_rc rc = wire_to(client, until, &client->watch, err);
    rc = rc ? rc : wire_begin(client->watch, &request, err);
    return rc ? rc : wire_send(client->watch, until, err);
}

enum attest_client_status attest_client_watch(struct attest_client *client, int milliseconds,
                                              struct attest_client_chain **ret_chain)
{
    int64_t until = milliseconds < 0 ? -1 : att_boottime_ms() + milliseconds;
    struct att_err *err = &client->err;
    begin(client);
    enum att_rc rc = client->watch ? ATT_OK : watch_begin(client, err);
    if (rc == ATT_E_TIMEOUT) { /* one of connecting: the watch has not begun */
        drop(&client->watch);
        return ATTEST_CLIENT_TIMEOUT;
    }
    /* What is there already comes first, and all of it: who asks with 0 waits for nothing. */
    for (bool asked = false; rc == ATT_OK;) {
        rc = newest(client->watch, ret_chain, err);
        if (rc == ATT_OK) {
            return ATTEST_CLIENT_OK;
        }
        if (rc != ATT_E_NOTFOUND || err->rc) {
            break;
        }
        if (wire_ended(client->watch)) {
            rc = wire_status(client->watch, err);
            rc = rc ? rc : att_fail(err, ATT_E_GONE, "the watch has ended");
            break;
        }
        rc = wire_step(client->watch, asked ? until : 0, err);
        if (rc == ATT_E_TIMEOUT && !asked) {
            asked = true;
            att_err_clear(err);
            rc = ATT_OK;
        }
    }
    if (rc != ATT_E_TIMEOUT) {
        drop(&client->watch);
    }
    return status_of(rc);
}
