#include "attestd/client/answer.h"

#include "signer.pb-c.h"

#include <stdlib.h>
#include <string.h>

#define CERTS_MAX 16
#define ROOTS_MAX 64

static enum att_rc bad(struct att_err *err, const char *what)
{
    return att_fail(err, ATT_E_PROTOCOL, "attestd's answer: expected %s", what);
}

/* ---- one block for a chain ---- */

struct room {
    uint8_t *at;
};

static const uint8_t *copy(struct room *room, const void *bytes, size_t len)
{
    uint8_t *at = room->at;
    if (len) {
        memcpy(at, bytes, len);
    }
    room->at += len;
    return at;
}

static const char *copy_text(struct room *room, const char *text)
{
    return (const char *)copy(room, text, strlen(text) + 1);
}

static size_t size_of(const ProtobufCBinaryData *list, size_t n)
{
    size_t size = n * sizeof(struct attest_client_bytes);
    for (size_t i = 0; i < n; i++) {
        size += list[i].len; /* all within a message of 4 MiB */
    }
    return size;
}

static void copy_list(struct room *room, const ProtobufCBinaryData *list, size_t n,
                      struct attest_client_bytes *ret)
{
    for (size_t i = 0; i < n; i++) {
        ret[i] = (struct attest_client_bytes){copy(room, list[i].data, list[i].len), list[i].len};
    }
}

static struct attest_client_chain *chain_of(const Attestd__V1__ChainResponse *m)
{
    size_t texts = strlen(m->spiffe_id) + strlen(m->key_id) + strlen(m->key_store) + 3;
    struct attest_client_chain *chain = malloc(sizeof *chain + size_of(m->chain, m->n_chain) +
                                               size_of(m->bundle, m->n_bundle) + texts);
    if (!chain) {
        return NULL;
    }
    /* Both arrays first: they are aligned as the struct is. */
    chain->certs = (struct attest_client_bytes *)(chain + 1);
    chain->n_certs = m->n_chain;
    chain->roots = chain->certs + m->n_chain;
    chain->n_roots = m->n_bundle;
    struct room room = {(uint8_t *)(chain->roots + m->n_bundle)};
    copy_list(&room, m->chain, m->n_chain, chain->certs);
    copy_list(&room, m->bundle, m->n_bundle, chain->roots);
    chain->spiffe_id = copy_text(&room, m->spiffe_id);
    chain->key_id = copy_text(&room, m->key_id);
    chain->key_store = copy_text(&room, m->key_store);
    chain->not_after = m->not_after;
    return chain;
}

enum att_rc answer_chain(struct att_slice message, struct attest_client_chain **ret_chain,
                         struct att_err *err)
{
    Attestd__V1__ChainResponse *m =
        attestd__v1__chain_response__unpack(NULL, message.len, message.ptr);
    struct attest_client_chain *chain = NULL;
    enum att_rc rc = ATT_OK;
    if (!m || !m->spiffe_id[0] || !m->key_id[0] || m->n_chain < 1 || m->n_chain > CERTS_MAX ||
        m->n_bundle > ROOTS_MAX) {
        rc = bad(
            err,
            "a ChainResponse with SPIFFE ID, key id, 1 to 16 certificates and at most 64 roots");
    } else if (!(chain = chain_of(m))) {
        rc = att_fail(err, ATT_E_NOMEM, "chain");
    }
    attestd__v1__chain_response__free_unpacked(m, NULL);
    if (rc == ATT_OK) {
        *ret_chain = chain;
    }
    return rc;
}

void attest_client_chain_free(struct attest_client_chain *chain)
{
    free(chain);
}

enum att_rc answer_signature(struct att_slice message, const char *key_id, uint8_t *ret_sig,
                             size_t *ret_len, struct att_err *err)
{
    Attestd__V1__SignResponse *m =
        attestd__v1__sign_response__unpack(NULL, message.len, message.ptr);
    bool named = key_id && key_id[0];
    enum att_rc rc = ATT_OK;
    if (!m || m->signature.len == 0 || m->signature.len > ATTEST_CLIENT_SIGNATURE_MAX ||
        (named && strcmp(m->key_id, key_id) != 0)) {
        rc = bad(err, "a SignResponse with a signature by this key");
    } else {
        memcpy(ret_sig, m->signature.data, m->signature.len);
        *ret_len = m->signature.len;
    }
    attestd__v1__sign_response__free_unpacked(m, NULL);
    return rc;
}
