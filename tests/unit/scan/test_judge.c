/* What is a key and what is none: each shape with one that fits and one that just does not, a table
 * of values that are no secrets, names. The keys are put together here: none is anybody's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "attestd/scan/judge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char word[] = "q7Zk2Xv9Lm4RtB8wNc1Hs6Jd3Pf5GyAeUoTiKxVbMnQz"
                           "8Wr2Yc7Fh4Dj6Sg1Lp9XkZv3NbTm5Qw0RtEyUiOaPsDf"
                           "h7Gj2Kl9Zx4Cv6Bn1Mq8We3Rt5Yu0IoPaSdFgHjK";
static const char hex[] = "3f9a1c7e5b2d8046af13c97e52b8d604f1a39c7e5d2b84061fa3c97e5b2d80463f9a";
static const char base32[] = "Q7ZK2XVNLM4RTBXWNCDHS6JD3PF5GY";

static struct scan_verdict judge(const char *name, const char *value)
{
    return scan_judge(att_slice_str(name), att_slice_str(value));
}

static void expect(const char *name, const char *value, enum scan_kind kind,
                   enum scan_confidence confidence)
{
    struct scan_verdict v = judge(name, value);
    if (v.kind != kind || v.confidence != confidence) {
        fail_msg("%s=%s: %s %d, expected %s %d", name, value, scan_kind_id(v.kind), v.confidence,
                 scan_kind_id(kind), confidence);
    }
}

/* ---- shapes ---- */

struct row {
    const char *prefix, *body;
    size_t least, most; /* 0: no end */
    enum scan_kind kind;
};

static const struct row rows[] = {
    {"sk-"
     "ant-",
     word, 20, 0, SCAN_ANTHROPIC},
    {"sk-"
     "ant-api03-",
     word, 14, 0, SCAN_ANTHROPIC},
    {"sk-"
     "proj-",
     word, 20, 0, SCAN_OPENAI},
    {"sk-"
     "svcacct-",
     word, 20, 0, SCAN_OPENAI},
    {"sk-"
     "admin-",
     word, 20, 0, SCAN_OPENAI},
    {"sk-"
     "or-v1-",
     hex, 64, 64, SCAN_LLM},
    {"sk-"
     "lf-",
     word, 36, 36, SCAN_SERVICE},
    {"AK"
     "IA",
     base32, 16, 16, SCAN_AWS_KEY_ID},
    {"AS"
     "IA",
     base32, 16, 16, SCAN_AWS_KEY_ID},
    {"AB"
     "SK",
     word, 100, 0, SCAN_AWS_SECRET},
    {"gh"
     "p_",
     word, 36, 0, SCAN_GITHUB},
    {"gh"
     "o_",
     word, 36, 0, SCAN_GITHUB},
    {"gh"
     "u_",
     word, 36, 0, SCAN_GITHUB},
    {"gh"
     "s_",
     word, 36, 0, SCAN_GITHUB},
    {"gh"
     "r_",
     word, 36, 0, SCAN_GITHUB},
    {"github_"
     "pat_",
     word, 60, 0, SCAN_GITHUB},
    {"gl"
     "pat-",
     word, 20, 0, SCAN_GITLAB},
    {"gl"
     "dt-",
     word, 20, 0, SCAN_GITLAB},
    {"gl"
     "rt-",
     word, 20, 0, SCAN_GITLAB},
    {"gl"
     "cbt-",
     word, 20, 0, SCAN_GITLAB},
    {"AI"
     "za",
     word, 35, 35, SCAN_GOOGLE_KEY},
    {"GOC"
     "SPX-",
     word, 28, 28, SCAN_GOOGLE_CREDENTIAL},
    {"ya"
     "29.",
     word, 40, 0, SCAN_GOOGLE_CREDENTIAL},
    {"1/"
     "/0",
     word, 40, 0, SCAN_GOOGLE_CREDENTIAL},
    {"xo"
     "xb-",
     word, 20, 0, SCAN_SLACK},
    {"xo"
     "xp-",
     word, 20, 0, SCAN_SLACK},
    {"xo"
     "xa-",
     word, 20, 0, SCAN_SLACK},
    {"xo"
     "xr-",
     word, 20, 0, SCAN_SLACK},
    {"xo"
     "xs-",
     word, 20, 0, SCAN_SLACK},
    {"xo"
     "xe.",
     word, 20, 0, SCAN_SLACK},
    {"xa"
     "pp-",
     word, 20, 0, SCAN_SLACK},
    {"https://hooks.slack.com/services/"
     "T",
     word, 30, 0, SCAN_SLACK},
    {"sk_"
     "live_",
     word, 16, 0, SCAN_STRIPE},
    {"rk_"
     "live_",
     word, 16, 0, SCAN_STRIPE},
    {"sk_"
     "test_",
     word, 16, 0, SCAN_STRIPE},
    {"rk_"
     "test_",
     word, 16, 0, SCAN_STRIPE},
    {"wh"
     "sec_",
     word, 24, 0, SCAN_STRIPE},
    {"h"
     "f_",
     word, 30, 0, SCAN_HUGGINGFACE},
    {"api_"
     "org_",
     word, 30, 0, SCAN_HUGGINGFACE},
    {"DefaultEndpointsProtocol=https;AccountName=a;AccountKey=", word, 60, 0,
     SCAN_AZURE_CONNECTION},
    {"Endpoint=sb://a.example/;SharedAccessKey=", word, 40, 0, SCAN_AZURE_CONNECTION},
    {"np"
     "m_",
     word, 36, 36, SCAN_REGISTRY},
    {"pypi-"
     "AgE",
     word, 50, 0, SCAN_REGISTRY},
    {"dckr_"
     "pat_",
     word, 20, 0, SCAN_REGISTRY},
    {"ruby"
     "gems_",
     hex, 48, 48, SCAN_REGISTRY},
    {"hv"
     "s.",
     word, 20, 0, SCAN_VAULT},
    {"hv"
     "b.",
     word, 20, 0, SCAN_VAULT},
    {"gs"
     "k_",
     word, 40, 0, SCAN_LLM},
    {"xa"
     "i-",
     word, 40, 0, SCAN_LLM},
    {"pp"
     "lx-",
     word, 40, 0, SCAN_LLM},
    {"r"
     "8_",
     word, 37, 37, SCAN_LLM},
    {"nv"
     "api-",
     word, 40, 0, SCAN_LLM},
    {"tv"
     "ly-",
     word, 20, 0, SCAN_SERVICE},
    {"lsv2_"
     "pt_",
     word, 30, 0, SCAN_SERVICE},
    {"lsv2_"
     "sk_",
     word, 30, 0, SCAN_SERVICE},
    {"S"
     "G.",
     word, 60, 0, SCAN_SERVICE},
    {"dop_"
     "v1_",
     hex, 64, 64, SCAN_SERVICE},
    {"da"
     "pi",
     hex, 32, 32, SCAN_SERVICE},
    {"ATA"
     "TT3",
     word, 60, 0, SCAN_SERVICE},
    {"lin_"
     "api_",
     word, 30, 0, SCAN_SERVICE},
    {"nt"
     "n_",
     word, 40, 0, SCAN_SERVICE},
    {"NR"
     "AK-",
     word, 27, 27, SCAN_SERVICE},
    {"gl"
     "sa_",
     word, 36, 0, SCAN_SERVICE},
    {"shp"
     "at_",
     hex, 32, 32, SCAN_SERVICE},
    {"ts"
     "key-",
     word, 20, 0, SCAN_SERVICE},
    {"dp."
     "pt.",
     word, 40, 0, SCAN_SERVICE},
    {"PM"
     "AK-",
     word, 40, 0, SCAN_SERVICE},
    {"AGE-SECRET-"
     "KEY-1",
     word, 50, 0, SCAN_PRIVATE_KEY},
};

static const char *made(const struct row *row, size_t n, const char *before, const char *behind)
{
    static char text[512];
    snprintf(text, sizeof text, "%s%s%.*s%s", before, row->prefix, (int)n, row->body, behind);
    return text;
}

/* Under a name that says nothing: by the shape alone. */
static void test_shapes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct row *r = &rows[i];
        expect("X", made(r, r->least, "", ""), r->kind, SCAN_HIGH);
        expect("", made(r, r->least, "\"", "\""), r->kind, SCAN_HIGH);
        expect("", made(r, r->least, "curl -H 'X-Key: ", "' https://a.example/"), r->kind,
               SCAN_HIGH);
        expect("X", made(r, r->least - 1, "", ""), SCAN_NONE, SCAN_NO);
        if (r->most) {
            expect("X", made(r, r->most + 1, "", ""), SCAN_NONE, SCAN_NO);
        }
        /* in the middle of a word it is another word */
        if (r->prefix[0] != 'D' && r->prefix[0] != 'E') {
            expect("X", made(r, r->least, "a", ""), SCAN_NONE, SCAN_NO);
        }
    }
}

static void test_placeholders_of_shapes(void **state)
{
    (void)state;
    const char *none[] = {"AKIA"
                          "IOSFODNN7EXAMPLE",
                          "sk-proj-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
                          "sk-ant-your-key-goes-here-please-12345",
                          "ghp_"
                          "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                          "hf_"
                          "............................................",
                          "sk-proj-abababababababababababababab",
                          "xoxb-000000000000-000000000000"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        expect("X", none[i], SCAN_NONE, SCAN_NO);
    }
}

static void test_legacy_sk(void **state)
{
    (void)state;
    const struct row row = {"sk-", word, 48, 48, SCAN_OPENAI};
    expect("X", made(&row, 48, "", ""), SCAN_OPENAI, SCAN_HIGH);
    expect("X", made(&row, 40, "", ""), SCAN_LLM, SCAN_MEDIUM); /* many providers */
    expect("DEEPSEEK_API_KEY", made(&row, 32, "", ""), SCAN_LLM, SCAN_MEDIUM);
    expect("X", made(&row, 31, "", ""), SCAN_NONE, SCAN_NO);
    expect("X", "sk-learn-pipeline-for-production-use", SCAN_NONE, SCAN_NO);
}

static void test_jwt(void **state)
{
    (void)state;
    expect("X",
           "eyJ"
           "hbGciOiJFUzI1NiJ9.eyJ"
           "zdWIiOiJhIn0.q7Zk2Xv9Lm4RtB8wNc1Hs6",
           SCAN_JWT, SCAN_HIGH);
    expect("Authorization",
           "Bearer eyJ"
           "hbGciOiJFUzI1NiJ9.eyJ"
           "zdWIiOiJhIn0.q7Zk2Xv9Lm4RtB8wNc1Hs6",
           SCAN_JWT, SCAN_HIGH);
    expect("X",
           "eyJ"
           "hbGciOiJFUzI1NiJ9.eyJ"
           "zdWIiOiJhIn0.q7Zk2Xv9",
           SCAN_NONE, SCAN_NO);
    expect("X",
           "eyJ"
           "hbGciOiJFUzI1NiJ9.eyJ"
           "zdWIiOiJhIn0",
           SCAN_NONE, SCAN_NO);
    expect("X",
           "eyJ"
           "hbGciOiJub25lIn0.AAAA.q7Zk2Xv9Lm4RtB8wNc1Hs6Jd",
           SCAN_NONE, SCAN_NO);
}

static void test_pem(void **state)
{
    (void)state;
    const char *body = "\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\n";
    char text[1024];
    const struct {
        const char *label, *behind;
        enum scan_kind kind;
    } all[] = {
        {"PRIVATE KEY", body, SCAN_PRIVATE_KEY},
        {"EC PRIVATE KEY", body, SCAN_PRIVATE_KEY},
        {"RSA PRIVATE KEY", body, SCAN_PRIVATE_KEY},
        {"RSA PRIVATE KEY", "\\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\\n",
         SCAN_PRIVATE_KEY},
        {"OPENSSH PRIVATE KEY", "\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ\n", SCAN_SSH_KEY},
        /* none of them in clear */
        {"OPENSSH PRIVATE KEY", "\nb3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAG\n", SCAN_NONE},
        {"ENCRYPTED PRIVATE KEY", body, SCAN_NONE},
        {"RSA PRIVATE KEY", "\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n", SCAN_NONE},
        {"TSS2 PRIVATE KEY", body, SCAN_NONE},
        {"PUBLIC KEY", body, SCAN_NONE},
        {"CERTIFICATE", body, SCAN_NONE},
        {"PKCS#11 PROVIDER URI", body, SCAN_NONE},
        /* a text about one */
        {"PRIVATE KEY", "\n… goes here\n", SCAN_NONE},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        snprintf(text, sizeof text, "-----BEGIN %s-----%s-----END %s-----", all[i].label,
                 all[i].behind, all[i].label);
        expect("X", text, all[i].kind, all[i].kind ? SCAN_HIGH : SCAN_NO);
    }
    /* a kube config's */
    expect("client-key-data",
           "LS0tLS1CRUdJTiB"
           "FQyBQUklWQVRFIEtFWS0tLS0tCk1IY0NBUUVFSUU0NW1ZTE0vcTdaazJYdjlMbTRSdEI4d05jMUhzNkpkM1BmNU"
           "d5QWVVb1RpS3hWYk1uUXoK",
           SCAN_PRIVATE_KEY, SCAN_HIGH);
    expect("X", "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSUJkekNDQVIyZ0F3SUJBZ0lC", SCAN_NONE,
           SCAN_NO);
    expect("X", "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n", SCAN_SSH_KEY, SCAN_HIGH);
    expect("X", "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: aes256-cbc\n", SCAN_NONE, SCAN_NO);
}

static void test_urls(void **state)
{
    (void)state;
    expect("X", "https://bob:tr0ub4dor@a.example/x", SCAN_URL_PASSWORD, SCAN_HIGH);
    expect("", "fetch from http://bob:tr0ub4dor@a.example now", SCAN_URL_PASSWORD, SCAN_HIGH);
    expect("DATABASE_URL", "postgres://app:tr0ub4dor@db/app", SCAN_DATABASE, SCAN_HIGH);
    expect("X", "postgresql+asyncpg://app:p%40ss:word@db/app", SCAN_DATABASE, SCAN_HIGH);
    expect("X", "redis://:tr0ub4dor@cache:6379/0", SCAN_DATABASE, SCAN_HIGH);
    expect("X", "https://a.example/x?api_key=q7Zk2Xv9Lm4RtB8wNc1H&y=1", SCAN_URL_PASSWORD,
           SCAN_MEDIUM);
    expect("X",
           "https://a.blob.core.windows.net/"
           "c?sv=2022&sig=q7Zk2Xv9Lm4RtB8wNc1Hs6Jd3Pf5GyAeUoTiKxVbMnQ%3D",
           SCAN_AZURE_CONNECTION, SCAN_MEDIUM);
    expect("X", "pkcs11:token=a;object=b?pin-value=1234", SCAN_PIN, SCAN_HIGH);
    expect("X", "postgres://app:90125077@db/app", SCAN_DATABASE, SCAN_HIGH);
    const char *none[] = {"https://a.example/x",
                          "https://bob@a.example/x",
                          "https://bob:@a.example/x",
                          "https://bob:${PASSWORD}@a.example/",
                          "postgres://app:changeme@db/app",
                          "https://a.example:8443/x",
                          "https://a.example/x?page=2&token=next",
                          "https://a.example/@bob:pass",
                          "https://a.example/x?api_key=${KEY}",
                          "pkcs11:token=a;object=b",
                          "pkcs11:token=a?pin-source=/etc/pin",
                          "http://user:password@proxy.example",
                          "https://bob:****@a.example/"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        expect("X", none[i], SCAN_NONE, SCAN_NO);
        expect("API_KEY", none[i], SCAN_NONE, SCAN_NO);
    }
}

/* ---- by name ---- */

static void test_names(void **state)
{
    (void)state;
    const char *secrets[] = {"API_KEY",           "OPENAI_API_KEY",  "apiKey",
                             "x-api-key",         "--api-key",       "TOKEN",
                             "GITHUB_TOKEN",      "authToken",       "_authToken",
                             "CLIENT_SECRET",     "SECRET_KEY_BASE", "AWS_SECRET_ACCESS_KEY",
                             "API_KEY_2",         "APIKEY_PROD",     "SLACK_BOT_TOKEN_OLD",
                             "DJANGO_SECRET_KEY", "Authorization",   "STORAGE_ACCOUNT_KEY",
                             "SENTRY_DSN",        "X_PAT",           "signing-key",
                             "SESSION_SECRET",    "github.token",    "accessToken"};
    const char *passwords[] = {"PASSWORD",        "DB_PASSWORD", "PGPASSWORD", "dbPassword",
                               "MYSQL_PWD",       "SMTP_PASS",   "passphrase", "pass",
                               "ROOT_PASSWORD_1", "redis-passwd"};
    const char *plain[] = {"PATH",
                           "TOKENIZERS_PARALLELISM",
                           "MAX_TOKENS",
                           "PUBLIC_KEY",
                           "EOS_TOKEN",
                           "COMPASS",
                           "BYPASS",
                           "KEYBOARD",
                           "API_KEY_FILE",
                           "PASSWORD_FILE",
                           "SECRET_NAME",
                           "TOKEN_URL",
                           "AWS_ACCESS_KEY_ID",
                           "SSH_AUTH_SOCK",
                           "PASSWORD_MIN_LENGTH",
                           "SSH_ASKPASS",
                           "MONKEY",
                           "HOME",
                           "",
                           "_",
                           "123",
                           "CSRF_TOKEN",
                           "SORT_KEY"};
    for (size_t i = 0; i < sizeof secrets / sizeof *secrets; i++) {
        if (scan_name_class(att_slice_str(secrets[i])) != SCAN_NAME_SECRET) {
            fail_msg("%s is no secret's name", secrets[i]);
        }
    }
    for (size_t i = 0; i < sizeof passwords / sizeof *passwords; i++) {
        if (scan_name_class(att_slice_str(passwords[i])) != SCAN_NAME_PASSWORD) {
            fail_msg("%s is no password's name", passwords[i]);
        }
    }
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        if (scan_name_class(att_slice_str(plain[i])) != SCAN_NAME_PLAIN) {
            fail_msg("%s is not plain", plain[i]);
        }
    }
    assert_int_equal(scan_name_class(att_slice_str("ACME_KEY")), SCAN_NAME_KEY);
}

static void test_by_name(void **state)
{
    (void)state;
    const char *random = "q7Zk2Xv9Lm4RtB8wNc1Hs6Jd";
    expect("ACME_API_KEY", random, SCAN_GENERIC, SCAN_MEDIUM);
    expect("ACME_KEY", random, SCAN_GENERIC, SCAN_LOW);
    expect("ACME_NUMBER", random, SCAN_NONE, SCAN_NO);
    expect("OPENAI_API_KEY", random, SCAN_OPENAI, SCAN_MEDIUM);
    expect("AZURE_OPENAI_API_KEY", random, SCAN_AZURE_SECRET, SCAN_MEDIUM);
    expect("AZURE_CLIENT_SECRET",
           "abC8Q~"
           "q7Zk2Xv9Lm4RtB8wNc1Hs6Jd3Pf5Gy",
           SCAN_AZURE_SECRET, SCAN_MEDIUM);
    expect("MISTRAL_API_KEY", random, SCAN_LLM, SCAN_MEDIUM);
    expect("AWS_SECRET_ACCESS_KEY", "q7Zk2Xv9Lm4RtB8wNc1Hs6Jd3Pf5Gy/eUo+iKxVb", SCAN_AWS_SECRET,
           SCAN_HIGH);
    expect("AWS_SECRET_ACCESS_KEY", "/7Zk2Xv9Lm4RtB8wNc1Hs6Jd3Pf5Gy/eUo+iKxVb", SCAN_AWS_SECRET,
           SCAN_HIGH);
    expect("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", SCAN_NONE, SCAN_NO);
    expect("AWS_SESSION_TOKEN", "IQoJb3JpZ2luX2VjEAMaCXVzLWVhc3QtMSJHMEUCIQ", SCAN_AWS_SESSION,
           SCAN_MEDIUM);
    expect("DB_PASSWORD", "tr0ub4dor&3", SCAN_DATABASE, SCAN_MEDIUM);
    expect("ADMIN_PASSWORD", "hunter", SCAN_PASSWORD, SCAN_LOW);
    expect("ADMIN_PASSWORD", "correct horse battery staple", SCAN_PASSWORD, SCAN_LOW);
    expect("ADMIN_PASSWORD", "83412907", SCAN_PASSWORD, SCAN_LOW);
    expect("X-Api-Key", random, SCAN_GENERIC, SCAN_MEDIUM);
    expect("Authorization", "Bearer q7Zk2Xv9Lm4RtB8wNc1Hs6Jd", SCAN_GENERIC, SCAN_MEDIUM);
    expect("UUID_TOKEN", "3f9a1c7e-5b2d-4046-af13-c97e52b8d604", SCAN_GENERIC, SCAN_MEDIUM);
}

/* Values that are none, each under a name that would make it one. */
static void test_negatives(void **state)
{
    (void)state;
    const char *none[] = {"",
                          " ",
                          "\"\"",
                          "true",
                          "False",
                          "yes",
                          "no",
                          "none",
                          "null",
                          "disabled",
                          "changeme",
                          "change-me-please-1234567890",
                          "CHANGE_ME",
                          "example-token-1234567890",
                          "your-api-key-here-123",
                          "<your token 1234567890>",
                          "xxxxxxxxxxxxxxxxxxxxxxxx",
                          "************************",
                          "0000000000000000000000",
                          "placeholder0123456789",
                          "redacted-0123456789abcdef",
                          "${TOKEN}",
                          "${TOKEN:-q7Zk2Xv9Lm4RtB8wNc1Hs6Jd}",
                          "$TOKEN",
                          "$(cat /run/secrets/token)",
                          "{{ vault_token_q7Zk2Xv9Lm4RtB8w }}",
                          "%{ENV:TOKEN}",
                          "%d/token",
                          "/run/secrets/api_key_1",
                          "~/.config/app/token.txt",
                          "./secrets/dev-0123456789.env",
                          "token-2024-11-29.json",
                          "vault:secret/data/app#token1234",
                          "op://vault/item1234567890/field",
                          "arn:aws:secretsmanager:eu-west-1:123456789012:secret:a-AbCdEf",
                          "projects/p/secrets/s/versions/1234567",
                          "file:/run/secrets/token123456",
                          "env:OTHER_TOKEN_0123456789",
                          "@Microsoft.KeyVault(SecretUri=https://v.example/1)",
                          "pkcs11:token=attestd;object=agent;type=private",
                          "ENC[AES256_GCM,data:q7Zk2Xv9Lm4RtB8w]",
                          "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOq7Zk2Xv9Lm4RtB8w",
                          "$6$rounds=5000$q7Zk2Xv9Lm4RtB8wNc",
                          "$2b$12$q7Zk2Xv9Lm4RtB8wNc1Hs6Jd",
                          "$argon2id$v=19$m=65536$q7Zk2Xv9Lm4",
                          "sha256:3f9a1c7e5b2d8046af13c97e52b8d604f1a39c7e5d2b84061fa3c97e5b2d8046",
                          "my-app-prod-secret-name-2",
                          "portfolio-rebalancer-tls",
                          "http://auth.example/token",
                          "8080",
                          "3600",
                          "10.0.0.1:8443",
                          "localhost:5432",
                          "tokenizer-v2-large",
                          "EdDSA",
                          "HS256",
                          "-----BEGIN CERTIFICATE-----",
                          "<|endoftext|>",
                          "Bearer",
                          "AWS4-HMAC-SHA256"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        expect("ACME_TOKEN", none[i], SCAN_NONE, SCAN_NO);
        expect("ACME_KEY", none[i], SCAN_NONE, SCAN_NO);
        expect("NOTE", none[i], SCAN_NONE, SCAN_NO);
    }
    const char *no_passwords[] = {"",
                                  "changeme",
                                  "password",
                                  "true",
                                  "${DB_PASSWORD}",
                                  "$DB_PASSWORD",
                                  "********",
                                  "/run/secrets/db_password",
                                  "<password>",
                                  "none",
                                  "vault:secret/db",
                                  "prompt",
                                  "example"};
    for (size_t i = 0; i < sizeof no_passwords / sizeof *no_passwords; i++) {
        expect("DB_PASSWORD", no_passwords[i], SCAN_NONE, SCAN_NO);
    }
}

static void test_fields(void **state)
{
    (void)state;
    struct scan_verdict v =
        scan_judge_field(ATT_SLICE_LIT("auth"), ATT_SLICE_LIT("Ym9iOnNlY3I="), SCAN_REGISTRY);
    assert_int_equal(v.kind, SCAN_REGISTRY);
    assert_int_equal(v.confidence, SCAN_HIGH);
    v = scan_judge_field(ATT_SLICE_LIT("auth"), ATT_SLICE_LIT("${AUTH}"), SCAN_REGISTRY);
    assert_int_equal(v.confidence, SCAN_NO);
    v = scan_judge_field(ATT_SLICE_LIT("password"), ATT_SLICE_LIT("changeme"), SCAN_PASSWORD);
    assert_int_equal(v.confidence, SCAN_NO);
    v = scan_judge_field(ATT_SLICE_LIT("hsm-pin"), ATT_SLICE_LIT("4711\n"), SCAN_PIN);
    assert_int_equal(v.kind, SCAN_PIN);
}

/* ---- names as they are shown ---- */

static void shown(const char *name, const char *expected)
{
    char text[SCAN_NAME_MAX + 1];
    scan_name_show(text, att_slice_str(name));
    assert_string_equal(text, expected);
}

static void test_shown(void **state)
{
    (void)state;
    char text[SCAN_NAME_MAX + 1], key[64];
    shown("OPENAI_API_KEY", "OPENAI_API_KEY");
    shown("--api-key", "--api-key");
    shown("AWS_SECRET_ACCESS_KEY_2", "AWS_SECRET_ACCESS_KEY_2");
    shown("portfolio.rebalancer.TOKEN", "portfolio.rebalancer.TOKEN");
    shown("", "-");
    shown("-p", "-p");
    shown("-Dspring.datasource.password", "-Dspring.datasource.password");
    /* options that their values are joined to */
    shown("-phunter2", "(withheld)");
    shown("-ualice:hunter2", "(withheld)");
    /* what stands before a '=' and is no name */
    shown("MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIB", "(withheld)");
    shown("q7Zk2Xv9Lm4RtB8wNc1H", "(withheld)");
    shown("a b", "(withheld)");
    shown("a\nb", "(withheld)");
    shown("\x1b[31m", "(withheld)");
    shown("\xff\xfe", "(withheld)");
    shown("name/with/slashes", "(withheld)");
    snprintf(key, sizeof key, "gh%s%.*s", "p_", 36, word);
    shown(key, "(withheld)");
    snprintf(key, sizeof key, "AK%s%.*s", "IA", 16, base32);
    shown(key, "(withheld)");
    char longer[80];
    memset(longer, 'A', sizeof longer - 1);
    longer[79] = 0;
    shown(longer, "(withheld)");
    scan_name_show(text, ATT_SLICE("A\0B", 3));
    assert_string_equal(text, "(withheld)");
}

static void test_texts(void **state)
{
    (void)state;
    for (int k = 0; k < SCAN_KINDS; k++) {
        assert_non_null(scan_kind_id((enum scan_kind)k));
        assert_non_null(scan_kind_text((enum scan_kind)k));
        assert_true(scan_kind_way((enum scan_kind)k) < SCAN_WAYS);
        for (int other = 0; other < k; other++) {
            assert_string_not_equal(scan_kind_id((enum scan_kind)k),
                                    scan_kind_id((enum scan_kind)other));
        }
    }
    for (int w = 0; w < SCAN_WAYS; w++) {
        assert_non_null(scan_way_id((enum scan_way)w));
        assert_non_null(scan_way_text((enum scan_way)w));
    }
    /* said openly where there is nothing */
    assert_non_null(strstr(scan_way_text(scan_kind_way(SCAN_GITHUB)), "nothing here replaces it"));
}

/* A megabyte that has a candidate everywhere: the bounds hold, or this takes minutes. */
static void test_cost(void **state)
{
    (void)state;
    const char *parts[] = {"sk-ant-",
                           "sk-ant-xxxxxxxxxxxxxxxxxxxxxxxx ",
                           "a://",
                           "a://b:c@",
                           "eyJ-",
                           "eyJaaaaaaaaaa.eyJ",
                           "-----BEGIN ",
                           "?a_token=b&",
                           "https://hooks.slack.com/services/T",
                           "a_",
                           "\"'\\",
                           "AKIA"};
    enum { SIZE = 1 << 20 };
    uint8_t *text = malloc(SIZE);
    assert_non_null(text);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        size_t len = strlen(parts[i]);
        struct timespec from, to;
        for (size_t k = 0; k < SIZE; k++) {
            text[k] = (uint8_t)parts[i][k % len];
        }
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
        (void)scan_judge(ATT_SLICE_LIT("A_TOKEN"), ATT_SLICE(text, SIZE));
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
        if (to.tv_sec - from.tv_sec > 10) {
            fail_msg("%s…: %ld s", parts[i], (long)(to.tv_sec - from.tv_sec));
        }
    }
    free(text);
}

/* Keystores as OpenSSL and keytool write them (of keys made for this). */
static size_t store(const char *name, uint8_t *ret, size_t room)
{
    char path[512];
    const char *source = getenv("ATT_SOURCE_DIR");
    snprintf(path, sizeof path, "%s/tests/fuzz/corpus/fuzz_scan__store/%s", source ? source : ".",
             name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t len = fread(ret, 1, room, file);
    fclose(file);
    assert_true(len > 0 && len < room);
    return len;
}

static void test_store(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum scan_kind kind;
        enum scan_confidence confidence;
    } all[] = {
        /* no private key in them */
        {"certs-clear.p12", SCAN_NONE, SCAN_NO},
        {"t.jks", SCAN_NONE, SCAN_NO},
        {"t.jceks", SCAN_NONE, SCAN_NO},
        /* nobody knows without the password */
        {"certs.p12", SCAN_KEYSTORE, SCAN_LOW},
        {"shrouded.p12", SCAN_KEYSTORE, SCAN_HIGH},
        {"k.jks", SCAN_KEYSTORE, SCAN_HIGH},
        {"s.jceks", SCAN_KEYSTORE, SCAN_HIGH},
        {"clear.p12", SCAN_PRIVATE_KEY, SCAN_HIGH},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        uint8_t bytes[4096];
        size_t len = store(all[i].name, bytes, sizeof bytes);
        struct scan_verdict v = scan_shape_store(ATT_SLICE(bytes, len));
        if (v.kind != all[i].kind || v.confidence != all[i].confidence) {
            fail_msg("%s: %s %d", all[i].name, scan_kind_id(v.kind), (int)v.confidence);
        }
        v = scan_judge(ATT_SLICE(bytes, 0), ATT_SLICE(bytes, len));
        assert_int_equal(v.kind, all[i].kind);
        /* cut short: in memory of exactly its size, so that a read behind it is seen */
        for (size_t n = 0; n < len; n++) {
            uint8_t *cut = malloc(n ? n : 1);
            memcpy(cut, bytes, n);
            v = scan_shape_store(ATT_SLICE(cut, n));
            assert_true((v.kind == SCAN_NONE) == (v.confidence == SCAN_NO));
            free(cut);
        }
        assert_true(scan_is_store(ATT_SLICE(bytes, len)));
        bytes[0] ^= 1; /* another file */
        assert_false(scan_is_store(ATT_SLICE(bytes, len)));
        assert_int_equal(scan_shape_store(ATT_SLICE(bytes, len)).kind, SCAN_NONE);
    }
    uint8_t other[128] = {0x30, 0x7e, 2, 1, 0}; /* a sequence, but of another version */
    assert_int_equal(scan_shape_store(ATT_SLICE_ARRAY(other)).kind, SCAN_NONE);
    uint8_t ber[128] = {0x30, 0x80, 2, 1, 3, 0x30, 0x80};
    assert_int_equal(scan_shape_store(ATT_SLICE_ARRAY(ber)).confidence, SCAN_MEDIUM);
    uint8_t java[16] = {0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 3}; /* a version that there is not */
    assert_int_equal(scan_shape_store(ATT_SLICE_ARRAY(java)).kind, SCAN_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_negatives), cmocka_unit_test(test_placeholders_of_shapes),
        cmocka_unit_test(test_shapes),    cmocka_unit_test(test_legacy_sk),
        cmocka_unit_test(test_jwt),       cmocka_unit_test(test_pem),
        cmocka_unit_test(test_urls),      cmocka_unit_test(test_names),
        cmocka_unit_test(test_by_name),   cmocka_unit_test(test_fields),
        cmocka_unit_test(test_shown),     cmocka_unit_test(test_texts),
        cmocka_unit_test(test_cost),      cmocka_unit_test(test_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
