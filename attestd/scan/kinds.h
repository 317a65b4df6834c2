/* What a static key is of, and which way of docs/AGENTS.md replaces it. Texts only. */
#ifndef ATTESTD_SCAN_KINDS_H
#define ATTESTD_SCAN_KINDS_H

/* The order is of no meaning; ids are a contract (attestctl migrate scan --json). */
enum scan_kind {
    SCAN_NONE = 0,
    SCAN_OPENAI,
    SCAN_ANTHROPIC,
    SCAN_GOOGLE_KEY,
    SCAN_GOOGLE_CREDENTIAL,
    SCAN_AWS_KEY_ID,
    SCAN_AWS_SECRET,
    SCAN_AWS_SESSION,
    SCAN_AZURE_SECRET,
    SCAN_AZURE_CONNECTION,
    SCAN_LLM,
    SCAN_GITHUB,
    SCAN_GITLAB,
    SCAN_SLACK,
    SCAN_STRIPE,
    SCAN_HUGGINGFACE,
    SCAN_REGISTRY,
    SCAN_SERVICE,
    SCAN_VAULT,
    SCAN_KUBERNETES,
    SCAN_JWT,
    SCAN_PRIVATE_KEY,
    SCAN_SSH_KEY,
    SCAN_KEYSTORE,
    SCAN_URL_PASSWORD,
    SCAN_DATABASE,
    SCAN_PIN,
    SCAN_PASSWORD,
    SCAN_GENERIC,
    SCAN_KINDS
};

enum scan_way {
    SCAN_WAY_NONE = 0,
    SCAN_WAY_EXCHANGE_OPENAI,
    SCAN_WAY_EXCHANGE_ANTHROPIC,
    SCAN_WAY_EXCHANGE_GOOGLE,
    SCAN_WAY_EXCHANGE_AZURE,
    SCAN_WAY_AWS,
    SCAN_WAY_JWT,
    SCAN_WAY_KUBERNETES,
    SCAN_WAY_PKCS11,
    SCAN_WAY_SSH,
    SCAN_WAY_MUTUAL_TLS,
    SCAN_WAY_ASK,
    SCAN_WAYS
};

const char *scan_kind_id(enum scan_kind kind);   /* "openai-key" */
const char *scan_kind_text(enum scan_kind kind); /* "OpenAI key": a few words for people */
enum scan_way scan_kind_way(enum scan_kind kind);
const char *scan_way_id(enum scan_way way);   /* "exchange-openai" */
const char *scan_way_text(enum scan_way way); /* one or two sentences */

#endif
