/* Prefixes that providers give their keys so that they can be found. Each row is tested with one
 * that fits and one that just does not (tests/unit/scan/test_shape.c). */
#include "attestd/scan/judge.h"

#include <string.h>

/* Bounds of what a hostile text can cost: a run of characters, candidates in one value. */
#define RUN_MAX  1024
#define BODY_MAX 16384
#define TRIES    64

enum set {
    WORD,   /* A-Z a-z 0-9 */
    WORD_,  /* and '_' */
    URL,    /* and '-' */
    DOTTED, /* and '.' */
    BASE64, /* A-Z a-z 0-9 + / = */
    HEX,
    BASE32, /* A-Z 2-7 */
};

struct shape {
    const char *prefix;
    enum set set;
    size_t min, max; /* characters behind the prefix; max 0: any number */
    enum scan_kind kind;
    enum scan_confidence confidence;
};

static const struct shape shapes[] = {
    {"sk-ant-", URL, 20, 0, SCAN_ANTHROPIC, SCAN_HIGH},
    {"sk-proj-", URL, 20, 0, SCAN_OPENAI, SCAN_HIGH},
    {"sk-svcacct-", URL, 20, 0, SCAN_OPENAI, SCAN_HIGH},
    {"sk-admin-", URL, 20, 0, SCAN_OPENAI, SCAN_HIGH},
    {"sk-or-v1-", HEX, 64, 64, SCAN_LLM, SCAN_HIGH},
    {"sk-lf-", URL, 36, 36, SCAN_SERVICE, SCAN_HIGH},
    {"sk-", WORD, 48, 48, SCAN_OPENAI, SCAN_HIGH},
    {"sk-", WORD, 32, 0, SCAN_LLM, SCAN_MEDIUM},
    {"AKIA", BASE32, 16, 16, SCAN_AWS_KEY_ID, SCAN_HIGH},
    {"ASIA", BASE32, 16, 16, SCAN_AWS_KEY_ID, SCAN_HIGH},
    {"ABSK", BASE64, 100, 0, SCAN_AWS_SECRET, SCAN_HIGH},
    {"ghp_", WORD, 36, 0, SCAN_GITHUB, SCAN_HIGH},
    {"gho_", WORD, 36, 0, SCAN_GITHUB, SCAN_HIGH},
    {"ghu_", WORD, 36, 0, SCAN_GITHUB, SCAN_HIGH},
    {"ghs_", WORD, 36, 0, SCAN_GITHUB, SCAN_HIGH},
    {"ghr_", WORD, 36, 0, SCAN_GITHUB, SCAN_HIGH},
    {"github_pat_", WORD_, 60, 0, SCAN_GITHUB, SCAN_HIGH},
    {"glpat-", DOTTED, 20, 0, SCAN_GITLAB, SCAN_HIGH},
    {"gldt-", URL, 20, 0, SCAN_GITLAB, SCAN_HIGH},
    {"glrt-", URL, 20, 0, SCAN_GITLAB, SCAN_HIGH},
    {"glcbt-", URL, 20, 0, SCAN_GITLAB, SCAN_HIGH},
    {"AIza", URL, 35, 35, SCAN_GOOGLE_KEY, SCAN_HIGH},
    {"GOCSPX-", URL, 28, 28, SCAN_GOOGLE_CREDENTIAL, SCAN_HIGH},
    {"ya29.", DOTTED, 40, 0, SCAN_GOOGLE_CREDENTIAL, SCAN_HIGH},
    {"1//0", URL, 40, 0, SCAN_GOOGLE_CREDENTIAL, SCAN_HIGH},
    {"xoxb-", URL, 20, 0, SCAN_SLACK, SCAN_HIGH},
    {"xoxp-", URL, 20, 0, SCAN_SLACK, SCAN_HIGH},
    {"xoxa-", URL, 20, 0, SCAN_SLACK, SCAN_HIGH},
    {"xoxr-", URL, 20, 0, SCAN_SLACK, SCAN_HIGH},
    {"xoxs-", URL, 20, 0, SCAN_SLACK, SCAN_HIGH},
    {"xoxe.", DOTTED, 20, 0, SCAN_SLACK, SCAN_HIGH},
    {"xapp-", URL, 20, 0, SCAN_SLACK, SCAN_HIGH},
    {"sk_live_", WORD, 16, 0, SCAN_STRIPE, SCAN_HIGH},
    {"rk_live_", WORD, 16, 0, SCAN_STRIPE, SCAN_HIGH},
    {"sk_test_", WORD, 16, 0, SCAN_STRIPE, SCAN_HIGH},
    {"rk_test_", WORD, 16, 0, SCAN_STRIPE, SCAN_HIGH},
    {"whsec_", BASE64, 24, 0, SCAN_STRIPE, SCAN_HIGH},
    {"hf_", WORD, 30, 0, SCAN_HUGGINGFACE, SCAN_HIGH},
    {"api_org_", WORD, 30, 0, SCAN_HUGGINGFACE, SCAN_HIGH},
    {"AccountKey=", BASE64, 60, 0, SCAN_AZURE_CONNECTION, SCAN_HIGH},
    {"SharedAccessKey=", BASE64, 40, 0, SCAN_AZURE_CONNECTION, SCAN_HIGH},
    {"npm_", WORD, 36, 36, SCAN_REGISTRY, SCAN_HIGH},
    {"pypi-AgE", URL, 50, 0, SCAN_REGISTRY, SCAN_HIGH},
    {"dckr_pat_", URL, 20, 0, SCAN_REGISTRY, SCAN_HIGH},
    {"rubygems_", HEX, 48, 48, SCAN_REGISTRY, SCAN_HIGH},
    {"hvs.", URL, 20, 0, SCAN_VAULT, SCAN_HIGH},
    {"hvb.", URL, 20, 0, SCAN_VAULT, SCAN_HIGH},
    {"gsk_", WORD, 40, 0, SCAN_LLM, SCAN_HIGH},
    {"xai-", WORD, 40, 0, SCAN_LLM, SCAN_HIGH},
    {"pplx-", WORD, 40, 0, SCAN_LLM, SCAN_HIGH},
    {"r8_", WORD, 37, 37, SCAN_LLM, SCAN_HIGH},
    {"nvapi-", URL, 40, 0, SCAN_LLM, SCAN_HIGH},
    {"tvly-", URL, 20, 0, SCAN_SERVICE, SCAN_HIGH},
    {"lsv2_pt_", WORD_, 30, 0, SCAN_SERVICE, SCAN_HIGH},
    {"lsv2_sk_", WORD_, 30, 0, SCAN_SERVICE, SCAN_HIGH},
    {"SG.", DOTTED, 60, 0, SCAN_SERVICE, SCAN_HIGH},
    {"dop_v1_", HEX, 64, 64, SCAN_SERVICE, SCAN_HIGH},
    {"dapi", HEX, 32, 32, SCAN_SERVICE, SCAN_HIGH},
    {"ATATT3", URL, 60, 0, SCAN_SERVICE, SCAN_HIGH},
    {"lin_api_", WORD, 30, 0, SCAN_SERVICE, SCAN_HIGH},
    {"ntn_", WORD, 40, 0, SCAN_SERVICE, SCAN_HIGH},
    {"NRAK-", WORD, 27, 27, SCAN_SERVICE, SCAN_HIGH},
    {"glsa_", WORD_, 36, 0, SCAN_SERVICE, SCAN_HIGH},
    {"shpat_", HEX, 32, 32, SCAN_SERVICE, SCAN_HIGH},
    {"tskey-", URL, 20, 0, SCAN_SERVICE, SCAN_HIGH},
    {"dp.pt.", WORD, 40, 0, SCAN_SERVICE, SCAN_HIGH},
    {"PMAK-", URL, 40, 0, SCAN_SERVICE, SCAN_HIGH},
    {"AGE-SECRET-KEY-1", WORD, 50, 0, SCAN_PRIVATE_KEY, SCAN_HIGH},
};

static bool word_char(uint8_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool member(enum set set, uint8_t c)
{
    switch (set) {
    case WORD:
        return word_char(c);
    case WORD_:
        return word_char(c) || c == '_';
    case URL:
        return word_char(c) || c == '_' || c == '-';
    case DOTTED:
        return word_char(c) || c == '_' || c == '-' || c == '.';
    case BASE64:
        return word_char(c) || c == '+' || c == '/' || c == '=';
    case HEX:
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
    case BASE32:
        return (c >= 'A' && c <= 'Z') || (c >= '2' && c <= '7');
    }
    return false;
}

/* text begins where the prefix may stand. */
static bool fits(const struct shape *s, struct att_slice text, unsigned *tries)
{
    size_t n = strlen(s->prefix), at = n;
    if (text.len < n + s->min || memcmp(text.ptr, s->prefix, n) != 0) {
        return false;
    }
    while (at < text.len && at - n < RUN_MAX && member(s->set, text.ptr[at])) {
        at++;
    }
    bool ends =
        at == text.len || at - n == RUN_MAX || !(word_char(text.ptr[at]) || text.ptr[at] == '_');
    if (!ends || at - n < s->min || (s->max && at - n > s->max)) {
        return false;
    }
    ++*tries;
    return !scan_value_placeholder(ATT_SLICE(text.ptr + n, at - n));
}

static size_t part(struct att_slice text, size_t at, size_t most)
{
    size_t from = at;
    while (at < text.len && at - from < most && member(URL, text.ptr[at])) {
        at++;
    }
    return at - from;
}

/* RFC 7519: two parts of JSON, which begin with {" in Base64, and a signature. */
static bool jwt(struct att_slice text)
{
    if (text.len < 40 || memcmp(text.ptr, "eyJ", 3) != 0) {
        return false;
    }
    size_t head = part(text, 0, RUN_MAX), body = 0, sig = 0;
    if (head >= 12 && head + 4 < text.len && memcmp(text.ptr + head, ".eyJ", 4) == 0) {
        body = part(text, head + 1, BODY_MAX);
        size_t dot = head + 1 + body;
        sig = dot < text.len && text.ptr[dot] == '.' ? part(text, dot + 1, RUN_MAX) : 0;
    }
    return body >= 8 && sig >= 20;
}

static struct scan_verdict at_word(struct att_slice text, unsigned *tries)
{
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        if (shapes[i].prefix[0] == (char)text.ptr[0] && fits(&shapes[i], text, tries)) {
            return (struct scan_verdict){shapes[i].kind, shapes[i].confidence};
        }
    }
    if (jwt(text)) {
        return (struct scan_verdict){SCAN_JWT, SCAN_HIGH};
    }
    return (struct scan_verdict){SCAN_NONE, SCAN_NO};
}

/* https://hooks.slack.com/services/T…/B…/…: who knows it may write there. */
static bool hook(struct att_slice v)
{
    static const char prefix[] = "https://hooks.slack.com/services/T";
    size_t n = sizeof prefix - 1, at = n;
    if (!scan_starts(v, prefix)) {
        return false;
    }
    while (at < v.len && at - n < RUN_MAX && (member(URL, v.ptr[at]) || v.ptr[at] == '/')) {
        at++;
    }
    return at - n >= 30 && !scan_value_placeholder(ATT_SLICE(v.ptr + n, at - n));
}

struct scan_verdict scan_shape(struct att_slice v)
{
    struct scan_verdict best = {SCAN_NONE, SCAN_NO};
    unsigned tries = 0;
    for (size_t i = 0; i < v.len && tries < TRIES; i++) {
        uint8_t before = i ? v.ptr[i - 1] : 0;
        if (!word_char(v.ptr[i]) || word_char(before) || before == '_') {
            continue;
        }
        struct att_slice rest = ATT_SLICE(v.ptr + i, v.len - i);
        struct scan_verdict found = at_word(rest, &tries);
        if (v.ptr[i] == 'h' && hook(rest)) {
            found = (struct scan_verdict){SCAN_SLACK, SCAN_HIGH};
        }
        if (found.confidence > best.confidence) {
            best = found;
        }
        if (best.confidence == SCAN_HIGH) {
            break;
        }
    }
    return best;
}
