/* What an entry's fields mean. */
#include "tpm/parse/ima_fields.h"

#include <string.h>

/* The kernel's crypto/hash_info.c. */
static const struct {
    const char *name;
    size_t len;
} hashes[] = {
    {"sha1", 20},        {"sha256", 32},      {"sha384", 48}, {"sha512", 64},  {"sha224", 28},
    {"md5", 16},         {"rmd160", 20},      {"sm3", 32},    {"sm3-256", 32}, {"sha3-256", 32},
    {"sha3-384", 48},    {"sha3-512", 64},    {"wp256", 32},  {"wp384", 48},   {"wp512", 64},
    {"streebog256", 32}, {"streebog512", 64}, {"tgr192", 24},
};

size_t parse_ima_hash_len(struct att_slice name)
{
    for (size_t i = 0; i < sizeof hashes / sizeof hashes[0]; i++) {
        if (att_slice_eq_str(name, hashes[i].name)) {
            return hashes[i].len;
        }
    }
    return 0;
}

static void copy_text(char *ret, size_t size, struct att_slice text)
{
    size_t n = text.len < size - 1 ? text.len : size - 1;
    memcpy(ret, text.ptr, n);
    ret[n] = 0;
}

/* "sha256:" NUL digest, with typed "ima:" or "verity:" before it. */
static const char *take_digest(struct att_slice field, bool typed, bool violation, char kind[8],
                               char alg[16], struct att_slice *ret_digest)
{
    const uint8_t *nul = field.len ? memchr(field.ptr, 0, field.len) : NULL;
    if (!nul || nul == field.ptr || nul[-1] != ':') {
        return "its digest does not begin with the name of a hash";
    }
    size_t head = (size_t)(nul - field.ptr);
    struct att_slice name = ATT_SLICE(field.ptr, head - 1);
    struct att_slice digest = ATT_SLICE(nul + 1, field.len - head - 1);
    if (typed) {
        const uint8_t *colon = name.len ? memchr(name.ptr, ':', name.len) : NULL;
        struct att_slice type = ATT_SLICE(name.ptr, colon ? (size_t)(colon - name.ptr) : 0);
        if (!att_slice_eq_str(type, "ima") && !att_slice_eq_str(type, "verity")) {
            return "its digest is neither ima: nor verity:";
        }
        copy_text(kind, 8, type);
        name = ATT_SLICE(colon + 1, name.len - type.len - 1);
    }
    size_t len = parse_ima_hash_len(name);
    if (len == 0) {
        return "its digest is of a hash that is not known";
    }
    /* Of a violation the kernel writes 20 zeroes whatever the hash. */
    if (digest.len != len && !(violation && digest.len == 20)) {
        return "its digest is not as long as its hash";
    }
    copy_text(alg, 16, name);
    *ret_digest = digest;
    return NULL;
}

static const char *take_name(struct att_slice field, struct att_slice *ret_name)
{
    const uint8_t *nul = field.len ? memchr(field.ptr, 0, field.len) : NULL;
    if (!nul || nul != field.ptr + field.len - 1) {
        return "its name does not end with its only NUL";
    }
    *ret_name = ATT_SLICE(field.ptr, field.len - 1);
    return NULL;
}

static const char *take_field(struct parse_ima_entry *entry, size_t i)
{
    struct att_slice field = entry->fields[i], digest;
    char kind[8], alg[16];
    switch (entry->tmpl->fields[i]) {
    case PARSE_IMA_D:
        copy_text(entry->alg, sizeof entry->alg, ATT_SLICE_LIT("sha1"));
        entry->file = field;
        return field.len == 20 ? NULL : "its digest is not of 20 bytes";
    case PARSE_IMA_D_NG:
    case PARSE_IMA_D_NGV2:
        return take_digest(field, entry->tmpl->fields[i] == PARSE_IMA_D_NGV2, entry->violation,
                           entry->kind, entry->alg, &entry->file);
    case PARSE_IMA_D_MODSIG:
        return field.len ? take_digest(field, false, entry->violation, kind, alg, &digest) : NULL;
    case PARSE_IMA_N:
        entry->name = field;
        return field.len && memchr(field.ptr, 0, field.len) ? "a NUL in its name" : NULL;
    case PARSE_IMA_N_NG:
        return take_name(field, &entry->name);
    case PARSE_IMA_UINT32:
        return field.len == 4 || field.len == 0 ? NULL : "iuid or igid is not of 4 bytes";
    case PARSE_IMA_UINT16:
        return field.len == 2 || field.len == 0 ? NULL : "imode is not of 2 bytes";
    default:
        return NULL;
    }
}

enum att_rc parse_ima_meaning(struct parse_ima_entry *entry, struct att_err *err)
{
    for (size_t i = 0; i < entry->n_fields; i++) {
        const char *fault = take_field(entry, i);
        if (fault) {
            return parse_ima_bad(entry, err, fault);
        }
    }
    return ATT_OK;
}
