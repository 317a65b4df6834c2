#include "attestd/scan/judge.h"

#include <string.h>

static const struct scan_verdict nothing = {SCAN_NONE, SCAN_NO};

static bool all_base64(struct att_slice v)
{
    for (size_t i = 0; i < v.len; i++) {
        uint8_t c = v.ptr[i];
        bool ok = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                  c == '+' || c == '/';
        if (!ok) {
            return false;
        }
    }
    return true;
}

/* 40 characters of Base64: too common for a shape, but not under this name. */
static bool aws_secret(struct att_slice name, struct att_slice v)
{
    return scan_has(name, "secret") && (scan_has(name, "aws") || scan_has(name, "access")) &&
           v.len == 40 && all_base64(v) && !scan_value_placeholder(v);
}

static bool classes(struct att_slice v)
{
    bool digit = false, small = false, large = false, other = false;
    for (size_t i = 0; i < v.len; i++) {
        uint8_t c = v.ptr[i];
        digit |= c >= '0' && c <= '9';
        small |= c >= 'a' && c <= 'z';
        large |= c >= 'A' && c <= 'Z';
        other |= c > ' ' && c < 0x7f && !((c >= '0' && c <= '9') || (c | 32) >= 'a');
    }
    return digit + small + large + other >= 2;
}

static struct scan_verdict by_name(struct att_slice name, struct att_slice v)
{
    enum scan_name class = scan_name_class(name);
    struct scan_verdict verdict = {SCAN_NONE, SCAN_NO};
    bool number = class == SCAN_NAME_PASSWORD && v.len >= 4; /* a PIN is one, too */
    for (size_t i = 0; number && i < v.len; i++) {
        number = v.ptr[i] >= '0' && v.ptr[i] <= '9';
    }
    if (class == SCAN_NAME_PLAIN || (scan_value_dull(v) && !number)) {
        return nothing;
    }
    if (aws_secret(name, v)) {
        return (struct scan_verdict){SCAN_AWS_SECRET, SCAN_HIGH};
    }
    bool random = scan_value_random(v);
    if (class == SCAN_NAME_PASSWORD) {
        verdict.confidence = random || (v.len >= 8 && classes(v)) ? SCAN_MEDIUM : SCAN_LOW;
    } else if (random) {
        verdict.confidence = class == SCAN_NAME_SECRET ? SCAN_MEDIUM : SCAN_LOW;
    }
    verdict.kind = verdict.confidence ? scan_name_kind(name, class) : SCAN_NONE;
    return verdict;
}

struct scan_verdict scan_judge(struct att_slice name, struct att_slice value)
{
    struct att_slice v = scan_value_trim(value);
    struct scan_verdict verdict = scan_shape_store(value);
    if (verdict.confidence == SCAN_NO) {
        verdict = scan_shape_pem(v);
    }
    if (verdict.confidence == SCAN_NO) {
        verdict = scan_shape(v);
    }
    if (verdict.confidence == SCAN_NO) {
        verdict = scan_shape_url(v);
    }
    if (verdict.confidence == SCAN_HIGH) {
        return verdict;
    }
    /* "Bearer abc", as a header's value */
    if (scan_starts(v, "bearer ") || scan_starts(v, "basic ") || scan_starts(v, "token ")) {
        size_t skip = (size_t)((const uint8_t *)memchr(v.ptr, ' ', v.len) - v.ptr) + 1;
        v = scan_value_trim(ATT_SLICE(v.ptr + skip, v.len - skip));
    }
    struct scan_verdict named = by_name(name, v);
    return named.confidence > verdict.confidence ? named : verdict;
}

struct scan_verdict scan_judge_field(struct att_slice name, struct att_slice value,
                                     enum scan_kind kind)
{
    struct scan_verdict verdict = scan_judge(name, value);
    struct att_slice v = scan_value_trim(value);
    bool number = v.len >= 4;
    for (size_t i = 0; number && i < v.len; i++) {
        number = v.ptr[i] >= '0' && v.ptr[i] <= '9';
    }
    if (verdict.confidence == SCAN_HIGH || (scan_value_dull(v) && !number)) {
        return verdict;
    }
    return (struct scan_verdict){kind, SCAN_HIGH};
}
