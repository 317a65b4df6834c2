#include "attestd/scan/kinds.h"

#include <stddef.h>

static const struct {
    const char *id, *text;
    enum scan_way way;
} kinds[SCAN_KINDS] = {
    [SCAN_NONE] = {"none", "nothing", SCAN_WAY_NONE},
    [SCAN_OPENAI] = {"openai-key", "OpenAI key", SCAN_WAY_EXCHANGE_OPENAI},
    [SCAN_ANTHROPIC] = {"anthropic-key", "Anthropic key", SCAN_WAY_EXCHANGE_ANTHROPIC},
    [SCAN_GOOGLE_KEY] = {"google-api-key", "Google API key", SCAN_WAY_EXCHANGE_GOOGLE},
    [SCAN_GOOGLE_CREDENTIAL] = {"google-credential", "Google service account or refresh token",
                                SCAN_WAY_EXCHANGE_GOOGLE},
    [SCAN_AWS_KEY_ID] = {"aws-access-key-id", "AWS access key id", SCAN_WAY_AWS},
    [SCAN_AWS_SECRET] = {"aws-secret-access-key", "AWS secret access key", SCAN_WAY_AWS},
    [SCAN_AWS_SESSION] = {"aws-session-token", "AWS session token", SCAN_WAY_AWS},
    [SCAN_AZURE_SECRET] = {"azure-secret", "Azure client secret or key", SCAN_WAY_EXCHANGE_AZURE},
    [SCAN_AZURE_CONNECTION] = {"azure-connection-string", "Azure connection string",
                               SCAN_WAY_EXCHANGE_AZURE},
    [SCAN_LLM] = {"llm-key", "key of a model provider", SCAN_WAY_NONE},
    [SCAN_GITHUB] = {"github-token", "GitHub token", SCAN_WAY_NONE},
    [SCAN_GITLAB] = {"gitlab-token", "GitLab token", SCAN_WAY_NONE},
    [SCAN_SLACK] = {"slack-token", "Slack token or web hook", SCAN_WAY_NONE},
    [SCAN_STRIPE] = {"stripe-key", "Stripe key", SCAN_WAY_NONE},
    [SCAN_HUGGINGFACE] = {"huggingface-token", "Hugging Face token", SCAN_WAY_NONE},
    [SCAN_REGISTRY] = {"registry-token", "credential of a package or image registry",
                       SCAN_WAY_NONE},
    [SCAN_SERVICE] = {"service-token", "token of a service, by its prefix", SCAN_WAY_NONE},
    [SCAN_VAULT] = {"vault-token", "HashiCorp Vault token", SCAN_WAY_JWT},
    [SCAN_KUBERNETES] = {"kubernetes-credential", "Kubernetes credential", SCAN_WAY_KUBERNETES},
    [SCAN_JWT] = {"jwt", "JSON Web Token", SCAN_WAY_JWT},
    [SCAN_PRIVATE_KEY] = {"private-key", "private key in clear", SCAN_WAY_PKCS11},
    [SCAN_SSH_KEY] = {"ssh-private-key", "SSH private key without passphrase", SCAN_WAY_SSH},
    [SCAN_KEYSTORE] = {"keystore", "keystore with a private key (PKCS#12, JKS)", SCAN_WAY_PKCS11},
    [SCAN_URL_PASSWORD] = {"url-password", "URL with a password", SCAN_WAY_ASK},
    [SCAN_DATABASE] = {"database-password", "password of a database", SCAN_WAY_MUTUAL_TLS},
    [SCAN_PIN] = {"pin", "PIN of a PKCS#11 token", SCAN_WAY_NONE},
    [SCAN_PASSWORD] = {"password", "password, by its name", SCAN_WAY_ASK},
    [SCAN_GENERIC] = {"secret", "key or token, by its name and look", SCAN_WAY_ASK},
};

/* Sections are those of docs/AGENTS.md; "not tried" stands where nothing of ours was run against
 * the service. */
static const struct {
    const char *id, *text;
} ways[SCAN_WAYS] = {
    [SCAN_WAY_NONE] = {"none", "nothing here replaces it yet: the service takes no token of "
                               "another issuer and no certificate, as far as is known here"},
    [SCAN_WAY_EXCHANGE_OPENAI] = {"exchange-openai",
                                  "attestctl token NAME --exchange PROFILE with the OpenAI profile "
                                  "(AGENTS.md, \"Exchanged for a service's own token\"; not tried "
                                  "against the service)"},
    [SCAN_WAY_EXCHANGE_ANTHROPIC] = {"exchange-anthropic",
                                     "attestctl token NAME --exchange PROFILE with the Anthropic "
                                     "profile (AGENTS.md, \"Exchanged for a service's own token\"; "
                                     "not tried against the service)"},
    [SCAN_WAY_EXCHANGE_GOOGLE] = {"exchange-google",
                                  "attestctl token NAME --exchange PROFILE with the Google Cloud "
                                  "profile, where the API takes OAuth tokens (AGENTS.md, "
                                  "\"Exchanged for a service's own token\"; not tried against the "
                                  "service)"},
    [SCAN_WAY_EXCHANGE_AZURE] = {"exchange-entra",
                                 "attestctl token NAME --exchange PROFILE with the Microsoft Entra "
                                 "profile, where the resource takes Entra tokens (AGENTS.md, "
                                 "\"Exchanged for a service's own token\"; not tried against the "
                                 "service)"},
    [SCAN_WAY_AWS] =
        {"aws", "IAM Roles Anywhere by the agent's own key: credential_process = attestctl "
                "token NAME --exchange PROFILE (AGENTS.md, \"AWS IAM Roles Anywhere\"); or STS "
                "by web identity: attestctl token NAME --audience sts.amazonaws.com --out FILE "
                "--refresh, AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN (neither was tried "
                "against the service)"},
    [SCAN_WAY_JWT] = {"jwt-svid",
                      "a JWT-SVID, where the service can be told to trust the issuer: "
                      "FetchJWTSVID, or attestctl token NAME --audience A (AGENTS.md, \"Tokens for "
                      "services that take OpenID tokens\")"},
    [SCAN_WAY_KUBERNETES] = {"jwt-svid-file",
                             "a JWT-SVID in a file that is kept fresh, as tokenFile, where the API "
                             "server takes the issuer as an OpenID provider (AGENTS.md, \"Tokens "
                             "for services that take OpenID tokens\"; not tried)"},
    [SCAN_WAY_PKCS11] =
        {"pkcs11", "the agent's key in the TPM or HSM by its PKCS#11 URI, or "
                   "attestd.v1.Signer; for a program that only speaks FetchX509SVID: key: "
                   "exportable (AGENTS.md, \"Programs\", \"Over gRPC\", \"Keys that are given "
                   "away\"). The peer has to trust the issuer's roots"},
    [SCAN_WAY_SSH] = {"pkcs11-ssh", "the agent's key by ssh -o PKCS11Provider=… (AGENTS.md, "
                                    "\"Programs\")"},
    [SCAN_WAY_MUTUAL_TLS] = {"mutual-tls",
                             "mutual TLS with the agent's certificate and its key by PKCS#11 URI, "
                             "where the server takes client certificates (AGENTS.md, "
                             "\"Programs\")"},
    [SCAN_WAY_ASK] = {"depends",
                      "it depends on the other side: a JWT-SVID or an exchange where it takes "
                      "OpenID tokens, mutual TLS by PKCS#11 where it takes client certificates "
                      "(AGENTS.md); otherwise nothing here replaces it yet"},
};

const char *scan_kind_id(enum scan_kind kind)
{
    return kind < SCAN_KINDS ? kinds[kind].id : "none";
}

const char *scan_kind_text(enum scan_kind kind)
{
    return kind < SCAN_KINDS ? kinds[kind].text : "nothing";
}

enum scan_way scan_kind_way(enum scan_kind kind)
{
    return kind < SCAN_KINDS ? kinds[kind].way : SCAN_WAY_NONE;
}

const char *scan_way_id(enum scan_way way)
{
    return way < SCAN_WAYS ? ways[way].id : "none";
}

const char *scan_way_text(enum scan_way way)
{
    return way < SCAN_WAYS ? ways[way].text : ways[SCAN_WAY_NONE].text;
}
