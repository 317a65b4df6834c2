/* Signs a file with the agent's key, by libattest-client:
 *   cc sign.c -o sign $(pkg-config --cflags --libs libattest-client libcrypto)
 *   ./sign FILE > FILE.sig        the signature; the chain, PEM, goes to FILE.chain.pem
 *   ./sign --watch                a line for each certificate from now on
 * RSA keys sign by PKCS#1 here. */
#include <attest-client.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>

static int complain(const struct attest_client *client, const char *what,
                    enum attest_client_status status)
{
    fprintf(stderr, "%s: %s: %s (%s)\n", what, attest_client_status_name(status),
            attest_client_message(client), attest_client_reason(client));
    return (int)status;
}

static int hash_file(const char *path, uint8_t digest[32])
{
    uint8_t bytes[4096];
    unsigned len = 0;
    size_t n;
    FILE *file = fopen(path, "rb");
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int ok = file && ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1;
    while (ok && (n = fread(bytes, 1, sizeof bytes, file)) > 0) {
        ok = EVP_DigestUpdate(ctx, bytes, n) == 1;
    }
    ok = ok && !ferror(file) && EVP_DigestFinal_ex(ctx, digest, &len) == 1;
    EVP_MD_CTX_free(ctx);
    if (file) {
        fclose(file);
    }
    return ok;
}

/* The certificates as PEM; ret_rsa: what the first one's key is. */
static int write_chain(const struct attest_client_chain *chain, const char *path, int *ret_rsa)
{
    char name[4096];
    snprintf(name, sizeof name, "%s.chain.pem", path);
    FILE *file = fopen(name, "w");
    int ok = file != NULL;
    for (size_t i = 0; ok && i < chain->n_certs; i++) {
        const unsigned char *der = chain->certs[i].data;
        X509 *cert = d2i_X509(NULL, &der, (long)chain->certs[i].len);
        ok = cert && PEM_write_X509(file, cert) == 1;
        if (ok && i == 0) {
            *ret_rsa = EVP_PKEY_get_base_id(X509_get0_pubkey(cert)) == EVP_PKEY_RSA;
        }
        X509_free(cert);
    }
    return file && fclose(file) == 0 && ok;
}

static int sign_file(struct attest_client *client, const char *path)
{
    struct attest_client_chain *chain = NULL;
    uint8_t digest[32], sig[ATTEST_CLIENT_SIGNATURE_MAX];
    size_t len = sizeof sig;
    int rsa = 0;
    enum attest_client_status status = attest_client_get_chain(client, &chain);
    if (status != ATTEST_CLIENT_OK) {
        return complain(client, "chain", status);
    }
    if (!hash_file(path, digest) || !write_chain(chain, path, &rsa)) {
        perror(path);
        attest_client_chain_free(chain);
        return 1;
    }
    /* By the key of this very chain, even if another has come meanwhile. */
    status = attest_client_sign(client, rsa ? ATTEST_CLIENT_RSA_PKCS1 : ATTEST_CLIENT_ECDSA, digest,
                                sizeof digest, chain->key_id, sig, &len);
    attest_client_chain_free(chain);
    if (status != ATTEST_CLIENT_OK) {
        return complain(client, "sign", status);
    }
    return fwrite(sig, 1, len, stdout) == len && fflush(stdout) == 0 ? 0 : 1;
}

static int watch(struct attest_client *client)
{
    struct attest_client_chain *chain = NULL;
    enum attest_client_status status;
    while ((status = attest_client_watch(client, -1, &chain)) == ATTEST_CLIENT_OK) {
        printf("%s key %s in %s until %lld, %zu certificates, %zu roots\n", chain->spiffe_id,
               chain->key_id, chain->key_store, (long long)chain->not_after, chain->n_certs,
               chain->n_roots);
        fflush(stdout);
        attest_client_chain_free(chain);
    }
    return complain(client, "watch", status);
}

int main(int argc, char **argv)
{
    struct attest_client *client = attest_client_new(NULL);
    if (argc != 2 || !client) {
        fprintf(stderr, "usage: sign FILE > FILE.sig | sign --watch\n");
        attest_client_free(client);
        return 64;
    }
    int status = strcmp(argv[1], "--watch") == 0 ? watch(client) : sign_file(client, argv[1]);
    attest_client_free(client);
    return status;
}
