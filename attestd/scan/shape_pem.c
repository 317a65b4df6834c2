#include "attestd/scan/judge.h"

#include "attestd/base/secret.h"

#include <string.h>

#define TRIES      16 /* headers of one value */
#define HEADER_MAX 64 /* "-----BEGIN … PRIVATE KEY-----" */

/* What follows the header: its line's end, also where that is written as \n or a space. */
static struct att_slice body(struct att_slice v, size_t at)
{
    while (at < v.len) {
        if (v.ptr[at] == '\n' || v.ptr[at] == '\r' || v.ptr[at] == ' ' || v.ptr[at] == '\t') {
            at++;
        } else if (at + 1 < v.len && v.ptr[at] == '\\' &&
                   (v.ptr[at + 1] == 'n' || v.ptr[at + 1] == 'r')) {
            at += 2;
        } else {
            break;
        }
    }
    return ATT_SLICE(v.ptr + at, v.len - at);
}

/* A header alone is a text about keys, not a key: some Base64 has to follow. */
static bool has_base64(struct att_slice text)
{
    size_t n = 0;
    while (n < text.len && n < 24) {
        uint8_t c = text.ptr[n];
        if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
              c == '+' || c == '/')) {
            break;
        }
        n++;
    }
    return n >= 24;
}

static struct scan_verdict begins(struct att_slice v)
{
    static const struct scan_verdict none = {SCAN_NONE, SCAN_NO};
    /* PROTOCOL.key of OpenSSH: the magic, and the cipher "none" */
    static const char open[] = "b3BlbnNzaC1rZXktdjEAAAAABG5vbm";
    static const char tail[] = "PRIVATE KEY-----";
    size_t limit = v.len < HEADER_MAX ? v.len : HEADER_MAX;
    const uint8_t *end = memmem(v.ptr, limit, tail, sizeof tail - 1);
    if (!end) {
        return none;
    }
    struct att_slice label = ATT_SLICE(v.ptr, (size_t)(end - v.ptr));
    struct att_slice rest = body(v, label.len + sizeof tail - 1);
    bool whole = v.len <= label.len + sizeof tail; /* the header's line is all that is known */
    /* TSS2 PRIVATE KEY opens in its TPM alone. */
    if (scan_has(label, "encrypted") || scan_has(label, "tss2") || scan_starts(rest, "Proc-Type") ||
        (!whole && !has_base64(rest))) {
        return none;
    }
    if (scan_has(label, "openssh")) {
        bool clear = whole || scan_starts(rest, open);
        return clear ? (struct scan_verdict){SCAN_SSH_KEY, SCAN_HIGH} : none;
    }
    return (struct scan_verdict){SCAN_PRIVATE_KEY, SCAN_HIGH};
}

static int sextet(uint8_t c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    return c >= '0' && c <= '9' ? c - '0' + 52 : c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* The Base64 of a PEM file, as a kube config has it: as much of it as tells. */
static struct scan_verdict encoded(struct att_slice v)
{
    uint8_t head[96];
    size_t n = 0, at = 0;
    for (uint32_t group = 0; at + 4 <= v.len && n + 3 <= sizeof head; at += 4, group = 0) {
        for (size_t k = 0; k < 4; k++) {
            int bits = sextet(v.ptr[at + k]);
            group = group << 6 | (uint32_t)(bits < 0 ? 0 : bits);
        }
        head[n++] = (uint8_t)(group >> 16);
        head[n++] = (uint8_t)(group >> 8);
        head[n++] = (uint8_t)group;
    }
    struct scan_verdict verdict = begins(ATT_SLICE(head, n));
    att_wipe(head, sizeof head);
    return verdict;
}

/* PuTTY's own form says it in its third line. */
static bool putty(struct att_slice v)
{
    return scan_starts(v, "PuTTY-User-Key-File-") && scan_has(v, "Encryption: none");
}

struct scan_verdict scan_shape_pem(struct att_slice v)
{
    struct scan_verdict found = {SCAN_NONE, SCAN_NO};
    struct att_slice rest = v;
    unsigned tries = 0;
    if (putty(v)) {
        return (struct scan_verdict){SCAN_SSH_KEY, SCAN_HIGH};
    }
    if (v.len >= 40 && memcmp(v.ptr, "LS0tLS1CRUdJTi", 14) == 0) {
        return encoded(v);
    }
    for (const uint8_t *at; found.confidence == SCAN_NO && rest.len && tries++ < TRIES &&
                            (at = memmem(rest.ptr, rest.len, "-----BEGIN ", 11));) {
        found = begins(ATT_SLICE(at, rest.len - (size_t)(at - rest.ptr)));
        rest = ATT_SLICE(at + 11, rest.len - (size_t)(at + 11 - rest.ptr));
    }
    return found;
}
