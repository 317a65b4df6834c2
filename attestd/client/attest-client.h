/* attest-client.h: a program signs with the key of the agent that it is, and never sees the key.
 *
 * The other side is attestd's service attestd.v1.Signer on the socket for workloads. attestd says
 * by the process itself whose it is; no name and no secret is sent. Lengths are bytes, times UTC
 * seconds since 1970. An attest_client is one thread's at a time; a child made by fork() may go on
 * with it and gets a connection of its own. Nothing here sets signal handlers or writes anywhere.
 *
 * Link by pkg-config: libattest-client. Manual: libattest-client(3). */
#ifndef ATTEST_CLIENT_H
#define ATTEST_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ATTEST_CLIENT_SIGNATURE_MAX 512 /* bytes of any signature */

/* Split by what the caller can do. */
enum attest_client_status {
    ATTEST_CLIENT_OK = 0,
    ATTEST_CLIENT_INVALID,     /* an argument is not as it must be: mend the program */
    ATTEST_CLIENT_DENIED,      /* this process is nobody's agent, or frozen: the entry */
    ATTEST_CLIENT_NOT_FOUND,   /* no certificate is in force, or no such key: later, or Chain */
    ATTEST_CLIENT_WRONG_KEY,   /* the key is of another type: another algorithm */
    ATTEST_CLIENT_UNAVAILABLE, /* something is busy, or away: again, with a pause */
    ATTEST_CLIENT_UNREACHABLE, /* nobody listens on the socket */
    ATTEST_CLIENT_TIMEOUT,     /* no answer within the time, or (watch) nothing new */
    ATTEST_CLIENT_ENDED,       /* the connection ended without an answer: again */
    ATTEST_CLIENT_PROTOCOL,    /* what came is no answer of this service */
    ATTEST_CLIENT_NO_MEMORY
};

/* What signs what: attestd.v1.Algorithm of signer.proto. */
enum attest_client_algorithm {
    ATTEST_CLIENT_ECDSA = 1,     /* P-256 (FIPS 186-5); DER of Ecdsa-Sig-Value (RFC 3279 2.2.3) */
    ATTEST_CLIENT_RSA_PKCS1 = 2, /* RSASSA-PKCS1-v1_5 (RFC 8017 8.2); SHA-256, -384 or -512 */
    ATTEST_CLIENT_RSA_PSS = 3    /* RSASSA-PSS (RFC 8017 8.1), salt as long as the digest */
};

struct attest_client_bytes {
    const uint8_t *data;
    size_t len;
};

/* With which certificate the agent signs. One block of memory: attest_client_chain_free(). */
struct attest_client_chain {
    const char *spiffe_id;
    const char *key_id;                /* for attest_client_sign() */
    const char *key_store;             /* "tpm", "hsm", "memory", "exportable" */
    int64_t not_after;                 /* of the agent's certificate */
    struct attest_client_bytes *certs; /* DER, the agent's own first, without roots */
    size_t n_certs;
    struct attest_client_bytes *roots; /* DER, the trust domain's */
    size_t n_roots;
};

struct attest_client;

/* socket: a path; NULL: what SPIFFE_ENDPOINT_SOCKET says (SPIFFE Workload Endpoint 4:
 * "unix:///PATH"; not in a set-user-ID program: secure_getenv(3)), or
 * /run/attestd/public/api.sock. Nothing is connected yet, and a path that is
 * none is told by the first call. NULL: no memory. */
struct attest_client *attest_client_new(const char *socket);
void attest_client_free(struct attest_client *client); /* NULL is fine */

/* For sign and chain, connecting included; 20000 unless set. Less than 1 is 1. */
void attest_client_set_timeout(struct attest_client *client, int milliseconds);

/* A signature over a digest that the caller made. key_id: of a chain; NULL: the key in force. A key
 * that was replaced signs until its certificate ends. ECDSA takes 20 to 64 bytes, of which the
 * leftmost 32 count; RSA 32, 48 or 64. *len: the room at sig, at least ATTEST_CLIENT_SIGNATURE_MAX
 * (INVALID otherwise); then the signature's length. Untouched unless OK. */
enum attest_client_status attest_client_sign(struct attest_client *client,
                                             enum attest_client_algorithm algorithm,
                                             const uint8_t *digest, size_t digest_len,
                                             const char *key_id, uint8_t *sig, size_t *len);

/* What is in force now. */
enum attest_client_status attest_client_get_chain(struct attest_client *client,
                                                  struct attest_client_chain **ret_chain);

/* The same at once with the first call, then whenever anything of it is another: the newest, not
 * each. milliseconds: how long to wait, 0 not at all, -1 for ever. TIMEOUT: nothing new; the watch
 * goes on. Anything else but OK has ended it, and the next call begins it anew. It has a connection
 * of its own: signatures may go on between the calls. */
enum attest_client_status attest_client_watch(struct attest_client *client, int milliseconds,
                                              struct attest_client_chain **ret_chain);
/* The watch's descriptor for poll(2), to be watched for reading and nothing else; when it is
 * readable, call attest_client_watch(client, 0, …). -1: there is none; it may be another one after
 * each call that did not return OK or TIMEOUT. */
int attest_client_watch_fd(const struct attest_client *client);

void attest_client_chain_free(struct attest_client_chain *chain); /* NULL is fine */

/* Of the last call that was not OK: a sentence for people, and attestd's word where it gave one
 * ("notAssigned", "frozen"; else ""). The client's, until its next call. */
const char *attest_client_message(const struct attest_client *client);
const char *attest_client_reason(const struct attest_client *client);

/* The status's name in lower case, such as "denied"; never NULL. */
const char *attest_client_status_name(enum attest_client_status status);

#ifdef __cplusplus
}
#endif

#endif
