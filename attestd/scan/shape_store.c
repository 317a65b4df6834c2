/* Keystores by their bytes: PKCS#12 (RFC 7292) and Java's own (JKS, JCEKS). As much of the
 * structure is read as says whether a private key is in it; nothing is decrypted, and no alias is
 * kept. */
#include "attestd/scan/judge.h"

#include <string.h>

static const struct scan_verdict nothing = {SCAN_NONE, SCAN_NO};

/* ---- DER ---- */

enum { INTEGER = 0x02, OCTETS = 0x04, OID = 0x06, SEQUENCE = 0x30, EXPLICIT = 0xa0 };

/* The next element, taken; false: none of this tag with a definite length that is all there. */
static bool element(struct att_slice *at, uint8_t tag, struct att_slice *ret)
{
    if (at->len < 2 || at->ptr[0] != tag) {
        return false;
    }
    size_t len = at->ptr[1], head = 2;
    if (len & 0x80) {
        size_t n = len & 0x7f;
        if (n < 1 || n > 4 || at->len < 2 + n) {
            return false;
        }
        len = 0;
        for (size_t i = 0; i < n; i++) {
            len = len << 8 | at->ptr[2 + i];
        }
        head += n;
    }
    if (len > at->len - head) {
        return false;
    }
    *ret = ATT_SLICE(at->ptr + head, len);
    *at = ATT_SLICE(at->ptr + head + len, at->len - head - len);
    return true;
}

/* pkcs-7 and the PKCS#12 bag types, without their last arc. */
static const uint8_t pkcs7[] = {0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07};
static const uint8_t bags[] = {0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01};
enum { DATA = 1, ENCRYPTED = 6, KEY_BAG = 1, SHROUDED_KEY_BAG = 2, NESTED_BAG = 6 };

/* The last arc of an object identifier below prefix; 0: it is another. */
static unsigned arc(struct att_slice oid, const uint8_t *prefix, size_t len)
{
    return oid.len == len + 1 && memcmp(oid.ptr, prefix, len) == 0 ? oid.ptr[len] : 0;
}

/* ---- PKCS#12 ---- */

struct seen {
    bool clear, shrouded, sealed; /* a key; one under a passphrase; something that may hold one */
};

/* ContentInfo (RFC 5652 §3): which content it has, and where that is data, its bytes. */
static bool content_info(struct att_slice *at, unsigned *ret_type, struct att_slice *ret_bytes)
{
    struct att_slice info, oid, content;
    if (!element(at, SEQUENCE, &info) || !element(&info, OID, &oid)) {
        return false;
    }
    *ret_type = arc(oid, pkcs7, sizeof pkcs7);
    return *ret_type != DATA ||
           (element(&info, EXPLICIT, &content) && element(&content, OCTETS, ret_bytes));
}

/* SafeContents (RFC 7292 §4.2). */
static bool safe_contents(struct att_slice bytes, struct seen *seen)
{
    struct att_slice list, bag, oid;
    if (!element(&bytes, SEQUENCE, &list)) {
        return false;
    }
    while (list.len) {
        if (!element(&list, SEQUENCE, &bag) || !element(&bag, OID, &oid)) {
            return false;
        }
        unsigned type = arc(oid, bags, sizeof bags);
        seen->clear |= type == KEY_BAG;
        seen->shrouded |= type == SHROUDED_KEY_BAG;
        seen->sealed |= type == NESTED_BAG;
    }
    return true;
}

/* AuthenticatedSafe (§4.1). */
static bool safe(struct att_slice bytes, struct seen *seen)
{
    struct att_slice list, part = {0};
    unsigned type = 0;
    if (!element(&bytes, SEQUENCE, &list)) {
        return false;
    }
    while (list.len) {
        if (!content_info(&list, &type, &part)) {
            return false;
        }
        if (type == DATA && !safe_contents(part, seen)) {
            return false;
        }
        seen->sealed |= type != DATA;
    }
    return true;
}

static struct scan_verdict pkcs12(struct att_slice v, bool *ret_known)
{
    static const uint8_t ber[] = {SEQUENCE, 0x80, INTEGER, 1, 3, SEQUENCE};
    struct att_slice pfx, version, bytes = {0};
    struct seen seen = {0};
    unsigned type = 0;
    *ret_known = v.len > 64 && memcmp(v.ptr, ber, sizeof ber) == 0;
    if (*ret_known) {
        return (struct scan_verdict){SCAN_KEYSTORE, SCAN_MEDIUM}; /* NSS's: not looked into */
    }
    if (!element(&v, SEQUENCE, &pfx) || !element(&pfx, INTEGER, &version) || version.len != 1 ||
        version.ptr[0] != 3 || !content_info(&pfx, &type, &bytes) || type == 0) {
        return nothing;
    }
    *ret_known = true;
    bool whole = type == DATA && safe(bytes, &seen);
    if (seen.clear) {
        return (struct scan_verdict){SCAN_PRIVATE_KEY, SCAN_HIGH};
    }
    if (seen.shrouded) {
        return (struct scan_verdict){SCAN_KEYSTORE, SCAN_HIGH};
    }
    return seen.sealed || !whole ? (struct scan_verdict){SCAN_KEYSTORE, SCAN_LOW} : nothing;
}

/* ---- JKS, JCEKS ---- */

/* A trusted certificate, skipped: its date is read already. */
static void skip_cert(struct att_cur *cur, uint32_t version)
{
    if (version == 2) {
        (void)att_cur_take_be16(cur, UINT16_MAX);
    }
    (void)att_cur_take_be32(cur, SIZE_MAX);
}

static struct scan_verdict java(struct att_slice v, bool *ret_known)
{
    enum { PRIVATE = 1, TRUSTED = 2, SECRET = 3 };
    struct att_cur cur = att_cur_init(v);
    uint32_t magic = att_cur_be32(&cur), version = att_cur_be32(&cur), n = att_cur_be32(&cur);
    bool magic_ok = magic == 0xfeedfeed || magic == 0xcececece;
    *ret_known = !cur.failed && magic_ok && version >= 1 && version <= 2;
    if (!*ret_known) {
        return nothing;
    }
    for (uint32_t i = 0; i < n && !cur.failed; i++) {
        uint32_t tag = att_cur_be32(&cur);
        (void)att_cur_take_be16(&cur, UINT16_MAX); /* its alias */
        (void)att_cur_be64(&cur);                  /* its date */
        if (!cur.failed && (tag == PRIVATE || tag == SECRET)) {
            return (struct scan_verdict){SCAN_KEYSTORE, SCAN_HIGH};
        }
        if (tag != TRUSTED) {
            return (struct scan_verdict){SCAN_KEYSTORE, SCAN_LOW};
        }
        skip_cert(&cur, version);
    }
    return cur.failed ? (struct scan_verdict){SCAN_KEYSTORE, SCAN_LOW} : nothing;
}

static struct scan_verdict look(struct att_slice v, bool *ret_known)
{
    *ret_known = false;
    if (v.len < 12) {
        return nothing;
    }
    return v.ptr[0] == SEQUENCE ? pkcs12(v, ret_known) : java(v, ret_known);
}

struct scan_verdict scan_shape_store(struct att_slice v)
{
    bool known;
    return look(v, &known);
}

bool scan_is_store(struct att_slice v)
{
    bool known;
    (void)look(v, &known);
    return known;
}
