#include "attestd/scan/judge.h"

#include "attestd/base/secret.h"

#include <string.h>

#define NORMAL_MAX 160

/* What stands in a name's place may be a password that was joined to its option. */
static void text_wipe(char (*text)[NORMAL_MAX])
{
    att_wipe(*text, sizeof *text);
}

/* Lower case, words apart by one '_', without what says which of several it is. */
static struct att_slice normal(char *into, struct att_slice name)
{
    static const char *const after[] = {"_old",     "_new",       "_prod",   "_production", "_dev",
                                        "_test",    "_staging",   "_live",   "_value",      "_b64",
                                        "_base64",  "_base",      "_v1",     "_v2",         "_v3",
                                        "_primary", "_secondary", "_backup", "_default"};
    size_t len = 0;
    if (name.len > NORMAL_MAX / 2) {
        name = ATT_SLICE(name.ptr + name.len - NORMAL_MAX / 2, NORMAL_MAX / 2);
    }
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.ptr[i], before = i ? name.ptr[i - 1] : 0;
        bool upper = c >= 'A' && c <= 'Z', small = c >= 'a' && c <= 'z';
        bool number = c >= '0' && c <= '9';
        if (upper && before >= 'a' && before <= 'z') {
            into[len++] = '_';
        }
        if (upper || small || number) {
            into[len++] = (char)(upper ? c + 32 : c);
        } else if (len && into[len - 1] != '_') {
            into[len++] = '_';
        }
    }
    for (bool again = true; again;) {
        size_t was = len;
        while (len && (into[len - 1] == '_' || (into[len - 1] >= '0' && into[len - 1] <= '9'))) {
            len--;
        }
        for (size_t i = 0; i < sizeof after / sizeof *after; i++) {
            if (scan_ends(ATT_SLICE(into, len), after[i])) {
                len -= strlen(after[i]);
            }
        }
        again = len != was;
    }
    return ATT_SLICE(into, len);
}

static bool any(struct att_slice name, const char *const *list,
                bool (*how)(struct att_slice, const char *))
{
    for (; *list; list++) {
        if (how(name, *list)) {
            return true;
        }
    }
    return false;
}

enum scan_name scan_name_class(struct att_slice given)
{
    static const char *const not [] = {
        "public_key",    "publickey",   "pubkey",      "eos_token",   "bos_token",
        "pad_token",     "unk_token",   "sep_token",   "cls_token",   "mask_token",
        "stop_token",    "host_key",    "foreign_key", "primary_key", "sort_key",
        "partition_key", "cache_key",   "max_token",   "csrf_token",  "no_auth",
        "require_auth",  "enable_auth", "use_auth",    "smtp_auth",   NULL};
    static const char *const passwords[] = {"password", "passwd", "passphrase", "passwort",
                                            "_pass",    "_pwd",   NULL};
    static const char *const exact[] = {"pass", "pwd", "pw", NULL};
    static const char *const secrets[] = {"secret",
                                          "token",
                                          "apikey",
                                          "api_key",
                                          "secretkey",
                                          "secret_key",
                                          "accesskey",
                                          "access_key",
                                          "privatekey",
                                          "private_key",
                                          "authkey",
                                          "auth_key",
                                          "signing_key",
                                          "encryption_key",
                                          "master_key",
                                          "account_key",
                                          "accountkey",
                                          "shared_key",
                                          "service_key",
                                          "deploy_key",
                                          "session_key",
                                          "hmac_key",
                                          "app_key",
                                          "subscription_key",
                                          "webhook_key",
                                          "storage_key",
                                          "_pat",
                                          "credential",
                                          "credentials",
                                          "_psk",
                                          "preshared_key",
                                          "connection_string",
                                          "connectionstring",
                                          "conn_str",
                                          "_dsn",
                                          "bearer",
                                          "authorization",
                                          "_auth",
                                          "_sas",
                                          "function_key",
                                          "admin_key",
                                          "jwt_key",
                                          "cookie_key",
                                          "license_key",
                                          "write_key",
                                          "ingest_key",
                                          "integration_key",
                                          "bot_key",
                                          "secret_access",
                                          NULL};
    ATT_CLEANUP(text_wipe) char text[NORMAL_MAX];
    struct att_slice name = normal(text, given);
    if (any(name, not, scan_ends)) {
        return SCAN_NAME_PLAIN;
    }
    if (any(name, passwords, scan_ends) || any(name, exact, scan_is)) {
        return SCAN_NAME_PASSWORD;
    }
    if (any(name, secrets, scan_ends) || scan_is(name, "auth")) {
        return SCAN_NAME_SECRET;
    }
    return scan_ends(name, "_key") ? SCAN_NAME_KEY : SCAN_NAME_PLAIN;
}

enum scan_kind scan_name_kind(struct att_slice given, enum scan_name class)
{
    static const struct {
        const char *word;
        enum scan_kind kind;
    } all[] = {
        {"azure", SCAN_AZURE_SECRET},
        {"anthropic", SCAN_ANTHROPIC},
        {"claude", SCAN_ANTHROPIC},
        {"openai", SCAN_OPENAI},
        {"aws_secret", SCAN_AWS_SECRET},
        {"aws_session", SCAN_AWS_SESSION},
        {"gemini", SCAN_GOOGLE_KEY},
        {"google", SCAN_GOOGLE_KEY},
        {"github", SCAN_GITHUB},
        {"gitlab", SCAN_GITLAB},
        {"slack", SCAN_SLACK},
        {"stripe", SCAN_STRIPE},
        {"hugging", SCAN_HUGGINGFACE},
        {"hf_", SCAN_HUGGINGFACE},
        {"gh_token", SCAN_GITHUB},
        {"mistral", SCAN_LLM},
        {"cohere", SCAN_LLM},
        {"groq", SCAN_LLM},
        {"deepseek", SCAN_LLM},
        {"together", SCAN_LLM},
        {"openrouter", SCAN_LLM},
        {"perplexity", SCAN_LLM},
        {"replicate", SCAN_LLM},
        {"xai_", SCAN_LLM},
        {"fireworks", SCAN_LLM},
        {"voyage", SCAN_LLM},
        {"vault_token", SCAN_VAULT},
        {"npm_", SCAN_REGISTRY},
        {"pypi", SCAN_REGISTRY},
        {"twine", SCAN_REGISTRY},
        {"docker", SCAN_REGISTRY},
        {"cargo_registry", SCAN_REGISTRY},
        {"kube", SCAN_KUBERNETES},
        {"postgres", SCAN_DATABASE},
        {"pgpass", SCAN_DATABASE},
        {"mysql", SCAN_DATABASE},
        {"mariadb", SCAN_DATABASE},
        {"mongo", SCAN_DATABASE},
        {"redis", SCAN_DATABASE},
        {"database", SCAN_DATABASE},
        {"db_", SCAN_DATABASE},
        {"mssql", SCAN_DATABASE},
        {"hsm_pin", SCAN_PIN},
        {"pkcs11", SCAN_PIN},
    };
    ATT_CLEANUP(text_wipe) char text[NORMAL_MAX];
    struct att_slice name = normal(text, given);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        bool database = all[i].kind == SCAN_DATABASE;
        if (scan_has(name, all[i].word) && (!database || class == SCAN_NAME_PASSWORD)) {
            return all[i].kind;
        }
    }
    return class == SCAN_NAME_PASSWORD ? SCAN_PASSWORD : SCAN_GENERIC;
}

void scan_name_show(char ret[SCAN_NAME_MAX + 1], struct att_slice name)
{
    bool ok = name.len <= SCAN_NAME_MAX;
    for (size_t i = 0; ok && i < name.len; i++) {
        uint8_t c = name.ptr[i];
        ok = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
             memchr("_.-:", c, 4);
    }
    /* -pPASSWORD, -uUSER:PASSWORD: behind one dash and a letter stands a value, or may stand one;
     * -DNAME= is a name. */
    ok = ok && !(name.len > 2 && name.ptr[0] == '-' && name.ptr[1] != '-' && name.ptr[1] != 'D');
    /* Long and of mixed case, or a shape: a value where a name should be. */
    ok = ok && !scan_value_random(name) && scan_shape(name).confidence == SCAN_NO;
    if (name.len == 0 || !ok) {
        strcpy(ret, name.len == 0 ? "-" : "(withheld)");
        return;
    }
    memcpy(ret, name.ptr, name.len);
    ret[name.len] = 0;
}
