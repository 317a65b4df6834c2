#include "attestd/scan/judge.h"

#include <math.h>
#include <string.h>

#define RANDOM_LEN  16
#define RANDOM_BITS 3.0 /* of Shannon's entropy for each byte */

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + 32) : c;
}

static bool alpha(uint8_t c)
{
    return lower(c) >= 'a' && lower(c) <= 'z';
}

static bool digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static bool same(const uint8_t *text, const char *what, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (lower(text[i]) != lower((uint8_t)what[i])) {
            return false;
        }
    }
    return true;
}

bool scan_starts(struct att_slice text, const char *with)
{
    size_t len = strlen(with);
    return text.len >= len && same(text.ptr, with, len);
}

bool scan_ends(struct att_slice text, const char *with)
{
    size_t len = strlen(with);
    return text.len >= len && same(text.ptr + text.len - len, with, len);
}

bool scan_has(struct att_slice text, const char *what)
{
    size_t len = strlen(what);
    for (size_t i = 0; i + len <= text.len; i++) {
        if (same(text.ptr + i, what, len)) {
            return true;
        }
    }
    return false;
}

bool scan_is(struct att_slice text, const char *what)
{
    return text.len == strlen(what) && same(text.ptr, what, text.len);
}

static bool blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

struct att_slice scan_value_trim(struct att_slice v)
{
    while (v.len && blank(v.ptr[0])) {
        v = ATT_SLICE(v.ptr + 1, v.len - 1);
    }
    while (v.len && blank(v.ptr[v.len - 1])) {
        v.len--;
    }
    if (v.len >= 2 && (v.ptr[0] == '"' || v.ptr[0] == '\'') && v.ptr[v.len - 1] == v.ptr[0]) {
        v = ATT_SLICE(v.ptr + 1, v.len - 2);
    }
    return v;
}

/* ---- how random ---- */

static double entropy(struct att_slice v)
{
    size_t count[256] = {0};
    double bits = 0;
    for (size_t i = 0; i < v.len; i++) {
        count[v.ptr[i]]++;
    }
    for (size_t c = 0; c < 256; c++) {
        if (count[c]) {
            double p = (double)count[c] / (double)v.len;
            bits -= p * log2(p);
        }
    }
    return bits;
}

static bool separator(uint8_t c)
{
    return memchr("-_./:, ", c, 7);
}

/* sha256, us1, EU2; also the whole of something short. */
static bool numbered(struct att_slice part)
{
    size_t letters = 0, digits = 0;
    while (letters < part.len && alpha(part.ptr[letters])) {
        letters++;
    }
    while (letters + digits < part.len && digit(part.ptr[letters + digits])) {
        digits++;
    }
    return part.len <= 4 || (letters >= 2 && digits <= 4 && letters + digits == part.len);
}

static bool one_word(struct att_slice part)
{
    size_t digits = 0, letters = 0, humps = 0;
    for (size_t i = 0; i < part.len; i++) {
        digits += digit(part.ptr[i]);
        letters += alpha(part.ptr[i]);
        humps += i > 0 && (part.ptr[i] < 'a') != (part.ptr[i - 1] < 'a');
    }
    bool word = letters == part.len && humps <= 2;
    bool number = digits == part.len && digits <= 8;
    return word || number || (numbered(part) && humps <= 2);
}

/* Parts between separators that are words or short numbers: my-app-prod-2, portfolio.rebalancer. */
static bool wordy(struct att_slice v)
{
    for (size_t at = 0; at < v.len;) {
        size_t end = at;
        while (end < v.len && !separator(v.ptr[end])) {
            end++;
        }
        if (!one_word(ATT_SLICE(v.ptr + at, end - at))) {
            return false;
        }
        at = end + 1;
    }
    return true;
}

bool scan_value_random(struct att_slice v)
{
    bool has_digit = false, has_alpha = false;
    if (v.len < RANDOM_LEN || v.len > 16384) {
        return false;
    }
    for (size_t i = 0; i < v.len; i++) {
        if (v.ptr[i] <= ' ' || v.ptr[i] >= 0x7f) {
            return false;
        }
        has_digit |= digit(v.ptr[i]);
        has_alpha |= alpha(v.ptr[i]);
    }
    return has_digit && has_alpha && entropy(v) >= RANDOM_BITS && !wordy(v);
}

/* ---- what is none ---- */

static bool in(struct att_slice v, const char *const *list,
               bool (*how)(struct att_slice, const char *))
{
    for (; *list; list++) {
        if (how(v, *list)) {
            return true;
        }
    }
    return false;
}

static bool all_of(struct att_slice v, const char *chars)
{
    for (size_t i = 0; i < v.len; i++) {
        if (!v.ptr[i] || !strchr(chars, v.ptr[i])) {
            return false;
        }
    }
    return true;
}

static bool one_char(struct att_slice v)
{
    for (size_t i = 1; i < v.len; i++) {
        if (v.ptr[i] != v.ptr[0]) {
            return false;
        }
    }
    return true;
}

bool scan_value_placeholder(struct att_slice v)
{
    static const char *const within[] = {
        "changeme", "change-me", "change_me",  "changeit",    "example",      "placeholder",
        "your-",    "your_",     "yourapikey", "yourtoken",   "yoursecret",   "replace-",
        "replace_", "replaceme", "insert-",    "insert_",     "xxxx",         "****",
        "....",     "redacted",  "dummy",      "<your",       "not-a-secret", "notasecret",
        "fill-in",  "fillme",    "fake-key",   "test-key-not"};
    uint8_t seen[256] = {0};
    size_t distinct = 0;
    for (size_t i = 0; i < sizeof within / sizeof *within; i++) {
        if (scan_has(v, within[i])) {
            return true;
        }
    }
    for (size_t i = 0; i < v.len; i++) {
        distinct += !seen[v.ptr[i]];
        seen[v.ptr[i]] = 1;
    }
    return distinct < (v.len < 16 ? 2 : 6);
}

/* ${X}, $X, $(cmd), {{ x }}, %(x)s, <x>, and what names the place where a secret is kept. */
static bool reference(struct att_slice v)
{
    static const char *const begins[] = {"${",
                                         "$(",
                                         "{{",
                                         "%(",
                                         "%{",
                                         "#{",
                                         "vault:",
                                         "op://",
                                         "arn:",
                                         "ref+",
                                         "file:",
                                         "env:",
                                         "secret:",
                                         "secrets/",
                                         "projects/",
                                         "keyring:",
                                         "ssm:",
                                         "gcp-sm:",
                                         "aws-sm:",
                                         "akv:",
                                         "enc[",
                                         "sops:",
                                         "@microsoft.keyvault(",
                                         "pkcs11:",
                                         "tpm2:",
                                         "!vault",
                                         "systemd-creds",
                                         "%d/",
                                         "%h/",
                                         "%t/",
                                         "sm://",
                                         "bws:",
                                         NULL};
    if (in(v, begins, scan_starts) || (v.len > 2 && v.ptr[0] == '<' && v.ptr[v.len - 1] == '>')) {
        return !(scan_starts(v, "pkcs11:") && scan_has(v, "pin-value="));
    }
    if (v.len < 2 || v.ptr[0] != '$' || digit(v.ptr[1])) {
        return false;
    }
    for (size_t i = 1; i < v.len; i++) {
        if (!alpha(v.ptr[i]) && !digit(v.ptr[i]) && v.ptr[i] != '_') {
            return false;
        }
    }
    return true;
}

static bool word(struct att_slice v)
{
    static const char *const words[] = {
        "true",       "false",     "yes",           "no",       "on",
        "off",        "none",      "null",          "nil",      "undefined",
        "default",    "enabled",   "disabled",      "required", "optional",
        "auto",       "dummy",     "test",          "testing",  "secret",
        "password",   "passwd",    "token",         "apikey",   "api_key",
        "api-key",    "key",       "todo",          "empty",    "unset",
        "n/a",        "na",        "prompt",        "ask",      "bearer",
        "basic",      "localhost", "anonymous",     "always",   "never",
        "mypassword", "mysecret",  "foobar",        "hidden",   "oauth2",
        "oauth",      "plain",     "external",      "keyring",  "store",
        "cache",      "md5",       "scram-sha-256", "trust",    "peer",
        NULL};
    return in(v, words, scan_is);
}

static bool path(struct att_slice v)
{
    static const char *const ends[] = {".pem",  ".key",  ".json", ".txt",  ".yaml", ".yml",
                                       ".conf", ".crt",  ".cer",  ".p12",  ".pfx",  ".jks",
                                       ".ini",  ".sock", ".toml", ".file", NULL};
    bool plain = true;
    for (size_t i = 0; i < v.len && plain; i++) {
        plain = alpha(v.ptr[i]) || digit(v.ptr[i]) || memchr("/._-~@%+", v.ptr[i], 8);
    }
    bool rooted = scan_starts(v, "/") || scan_starts(v, "~/") || scan_starts(v, "./") ||
                  scan_starts(v, "../");
    if (rooted && plain) {
        /* Base64 may begin with a '/', too: 40 and more without a word are none. */
        return !(v.len >= 40 && !memchr(v.ptr, '.', v.len) && !memchr(v.ptr, '_', v.len) &&
                 !memchr(v.ptr, '-', v.len) && scan_value_random(v) && entropy(v) > 4.3);
    }
    return plain && v.len < 128 && in(v, ends, scan_ends);
}

static bool public(struct att_slice v)
{
    static const char *const begins[] = {"ssh-rsa ",
                                         "ssh-ed25519 ",
                                         "ecdsa-sha2-",
                                         "sk-ssh-",
                                         "-----begin cert",
                                         "-----begin public",
                                         "-----begin rsa public",
                                         "-----begin ssh2 public",
                                         "aaaab3nzac1yc2e",
                                         "age1",
                                         "$1$",
                                         "$2a$",
                                         "$2b$",
                                         "$2y$",
                                         "$5$",
                                         "$6$",
                                         "$y$",
                                         "$argon2",
                                         "{ssha",
                                         "{sha",
                                         "pbkdf2",
                                         "scram-sha-256$",
                                         "sha256:",
                                         "sha256-",
                                         "sha512-",
                                         "md5:",
                                         NULL};
    return in(v, begins, scan_starts);
}

bool scan_value_dull(struct att_slice v)
{
    v = scan_value_trim(v);
    if (v.len < 4 || one_char(v) || word(v) || scan_value_placeholder(v)) {
        return true;
    }
    return reference(v) || public(v) || path(v) || all_of(v, "0123456789.,:-+_ ") ||
           (scan_has(v, "://") && !scan_starts(v, "://"));
}
