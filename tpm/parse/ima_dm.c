#include "tpm/parse/ima_dm.h"

#include "attestd/base/enc.h"

#include <string.h>

#define PREFIX "dm_"

/* One "key=value"; escapes are left as they are. */
struct member {
    struct att_slice key, value;
    bool ends_group; /* ";" stood behind it */
};

/* The next member; false at the end. ret_bad: what stands there is none. */
static bool next(struct att_slice *text, struct member *ret, bool *ret_bad)
{
    size_t i = 0, equals = SIZE_MAX;
    if (text->len == 0) {
        return false;
    }
    while (i < text->len && text->ptr[i] != ',' && text->ptr[i] != ';') {
        if (text->ptr[i] == 0) {
            break;
        }
        if (text->ptr[i] == '\\') {
            i++;
        } else if (text->ptr[i] == '=' && equals == SIZE_MAX) {
            equals = i;
        }
        i++;
    }
    if (i >= text->len || text->ptr[i] == 0 || equals == SIZE_MAX || equals == 0) {
        *ret_bad = true;
        return false;
    }
    ret->key = ATT_SLICE(text->ptr, equals);
    ret->value = ATT_SLICE(text->ptr + equals + 1, i - equals - 1);
    ret->ends_group = text->ptr[i] == ';';
    *text = ATT_SLICE(text->ptr + i + 1, text->len - i - 1);
    return true;
}

static bool number(struct att_slice text, uint32_t *ret)
{
    uint64_t n = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9' ||
            (n = n * 10 + text.ptr[i] - '0') > UINT32_MAX) {
            return false;
        }
    }
    *ret = (uint32_t)n;
    return text.len > 0;
}

static bool digest(struct att_slice hex, uint8_t ret[ATT_SHA256_LEN])
{
    char text[2 * ATT_SHA256_LEN + 1];
    if (hex.len != sizeof text - 1) {
        return false;
    }
    memcpy(text, hex.ptr, hex.len);
    text[hex.len] = '\0';
    return att_unhex_exact(ret, ATT_SHA256_LEN, text, NULL) == ATT_OK;
}

/* What was found while a text was read. */
struct found {
    struct parse_ima_dm dm;
    unsigned majors, minors, targets, roots, versions;
    bool other_target, other_alg, whole, once, lenient, bad;
    uint32_t n_targets, begin;
};

static void take_device(struct found *f, const struct member *m)
{
    if (att_slice_eq_str(m->key, "major")) {
        f->majors++;
        f->bad |= !number(m->value, &f->dm.major);
    } else if (att_slice_eq_str(m->key, "minor")) {
        f->minors++;
        f->bad |= !number(m->value, &f->dm.minor);
    } else if (att_slice_eq_str(m->key, "num_targets")) {
        f->bad |= !number(m->value, &f->n_targets);
    }
}

/* drivers/md/dm-verity-target.c, verity_status(STATUSTYPE_IMA). */
static void take_target(struct found *f, const struct member *m)
{
    if (att_slice_eq_str(m->key, "target_begin")) {
        f->bad |= !number(m->value, &f->begin);
    } else if (att_slice_eq_str(m->key, "target_name")) {
        f->targets++;
        f->other_target |= !att_slice_eq_str(m->value, "verity");
    } else if (att_slice_eq_str(m->key, "root_digest")) {
        f->roots++;
        f->other_alg |= !digest(m->value, f->dm.root);
    } else if (att_slice_eq_str(m->key, "verity_algorithm")) {
        f->other_alg |= !att_slice_eq_str(m->value, "sha256");
    } else if (att_slice_eq_str(m->key, "check_at_most_once")) {
        f->once |= !att_slice_eq_str(m->value, "n");
    } else if (att_slice_eq_str(m->key, "verity_mode")) { /* absent: a read fails with EIO */
        f->lenient |= att_slice_eq_str(m->value, "ignore_corruption") ||
                      !(att_slice_eq_str(m->value, "restart_on_corruption") ||
                        att_slice_eq_str(m->value, "panic_on_corruption"));
    } else if (att_slice_eq_str(m->key, "active_table_hash")) {
        static const char alg[] = "sha256:";
        struct att_slice hex = m->value;
        bool known = hex.len > sizeof alg - 1 && memcmp(hex.ptr, alg, sizeof alg - 1) == 0;
        if (known) {
            hex = ATT_SLICE(hex.ptr + sizeof alg - 1, hex.len - (sizeof alg - 1));
        }
        f->dm.has_table = known && digest(hex, f->dm.table);
    }
}

static const char *not_verity(const struct found *f)
{
    return f->n_targets != 1 || f->targets != 1 || f->begin != 0 ? "it has other than one target"
           : f->other_target                                     ? "its target is not verity"
           : f->other_alg || f->roots != 1 ? "its root hash is not one of SHA-256"
           : f->once                       ? "it checks a block at its first read only"
           : f->lenient                    ? "it returns what does not have its digest"
                                           : NULL;
}

static enum att_rc read_text(struct att_slice text, struct found *f, struct att_err *err)
{
    struct member m;
    for (unsigned group = 0; next(&text, &m, &f->bad); group += m.ends_group) {
        if (group == 0) {
            f->versions += att_slice_eq_str(m.key, "dm_version");
        } else if (group == 1) {
            take_device(f, &m);
        } else {
            take_target(f, &m);
        }
        f->whole = m.ends_group;
    }
    if (f->bad || !f->whole || f->versions != 1 || f->majors > 1 || f->minors != f->majors) {
        return att_fail(err, ATT_E_PARSE,
                        "device-mapper's text is not dm_version=…;name=…,major=…,minor=…;…");
    }
    f->dm.has_device = f->majors == 1;
    return ATT_OK;
}

enum att_rc parse_ima_dm(const struct parse_ima_entry *entry, struct parse_ima_dm *ret_dm,
                         struct att_err *err)
{
    struct found f = {.dm = {.kind = PARSE_IMA_DM_OTHER}};
    if (entry->violation || entry->n_fields < 3 || entry->tmpl->fields[2] != PARSE_IMA_BUF ||
        entry->name.len < sizeof PREFIX - 1 ||
        memcmp(entry->name.ptr, PREFIX, sizeof PREFIX - 1) != 0) {
        *ret_dm = (struct parse_ima_dm){.kind = PARSE_IMA_DM_NONE};
        return ATT_OK;
    }
    struct att_slice text = entry->fields[2];
    if (text.len > PARSE_IMA_DM_MAX) {
        return att_fail(err, ATT_E_LIMIT, "pcr10 entry %zu: device-mapper's text has %zu bytes",
                        entry->number, text.len);
    }
    bool load = att_slice_eq_str(entry->name, "dm_table_load");
    bool resume = att_slice_eq_str(entry->name, "dm_device_resume");
    if (!load && !resume) {
        *ret_dm = f.dm;
        return ATT_OK;
    }
    enum att_rc rc = read_text(text, &f, err);
    if (rc == ATT_OK && load && !f.dm.has_device) {
        rc = att_fail(err, ATT_E_PARSE, "device-mapper's table names no device");
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "pcr10 entry %zu", entry->number);
        return rc;
    }
    f.dm.kind = load ? PARSE_IMA_DM_LOAD : PARSE_IMA_DM_RESUME;
    if (load) {
        f.dm.why = not_verity(&f);
        f.dm.is_verity = !f.dm.why;
        f.dm.has_table = true;
        att_sha256(f.dm.table, text);
    }
    *ret_dm = f.dm;
    return ATT_OK;
}
