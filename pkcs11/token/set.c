/* Generations: what the agent had at one time. Their handles work on until keyd says that the key
 * is gone. */
#include "pkcs11/token/internal.h"

#include "attestd/base/enc.h"

#include <stdlib.h>
#include <string.h>

static void set_free(struct token_set *set)
{
    if (set) {
        free(set->bytes);
        free(set);
    }
}

void token_set_forget_all(void)
{
    for (size_t i = 0; i < SETS_MAX; i++) {
        set_free(token_self.sets[i]);
        token_self.sets[i] = NULL;
    }
    token_self.current = NULL;
}

static size_t total(const struct token_view *view)
{
    size_t len = 0;
    for (size_t i = 0; i < view->chain_count; i++) {
        len += view->chain[i].len;
    }
    for (size_t i = 0; i < view->bundle_count; i++) {
        len += view->bundle[i].len;
    }
    return len;
}

static void copy_certs(struct token_set *set, const struct att_slice *from, size_t count,
                       size_t first, size_t *used)
{
    for (size_t i = 0; i < count; i++) {
        memcpy(set->bytes + *used, from[i].ptr, from[i].len);
        set->certs[first + i] = ATT_SLICE(set->bytes + *used, from[i].len);
        *used += from[i].len;
    }
}

/* CKA_EC_POINT is the point in an OCTET STRING (PKCS#11 2.40 §2.3.3). */
static void wrap_point(struct token_set *set)
{
    struct att_slice point = set->leaf.ec_point;
    if (point.len == 0 || point.len > 127) {
        return;
    }
    set->point[0] = 0x04;
    set->point[1] = (uint8_t)point.len;
    memcpy(set->point + 2, point.ptr, point.len);
    set->point_len = point.len + 2;
}

static bool take_type(struct token_set *set)
{
    set->modulus = att_keytype_modulus(set->leaf.spki);
    set->type = set->modulus.len == 0 ? ATT_KEYTYPE_P256
                : set->modulus.len == att_keytype_modulus_len(ATT_KEYTYPE_RSA2048)
                    ? ATT_KEYTYPE_RSA2048
                    : ATT_KEYTYPE_RSA3072;
    return set->modulus.len || set->leaf.ec_point.len;
}

static struct token_set *set_new(const struct token_view *view)
{
    struct token_set *set = calloc(1, sizeof *set);
    size_t used = 0, len = total(view);
    if (!set || view->chain_count < 1 || view->chain_count > TOKEN_CHAIN_MAX ||
        view->bundle_count > TOKEN_BUNDLE_MAX || !(set->bytes = malloc(len ? len : 1)) ||
        att_unhex_exact(set->id, sizeof set->id, view->key_id, NULL) != ATT_OK) {
        set_free(set);
        return NULL;
    }
    set->generation = view->generation;
    memcpy(set->key_id, view->key_id, sizeof set->key_id);
    memcpy(set->spiffe_id, view->spiffe_id, sizeof set->spiffe_id);
    copy_certs(set, view->chain, view->chain_count, 0, &used);
    copy_certs(set, view->bundle, view->bundle_count, view->chain_count, &used);
    set->chain_count = view->chain_count;
    set->bundle_count = view->bundle_count;
    if (token_cert_parse(set->certs[0], &set->leaf, NULL) != ATT_OK || !take_type(set)) {
        set_free(set);
        return NULL;
    }
    wrap_point(set);
    return set;
}

/* An empty place; else that of a generation whose key is gone, else the oldest. */
static size_t place(void)
{
    size_t best = 0;
    for (size_t i = 0; i < SETS_MAX; i++) {
        const struct token_set *set = token_self.sets[i], *was = token_self.sets[best];
        if (!set) {
            return i;
        }
        if (set->key_gone != was->key_gone ? set->key_gone : set->serial < was->serial) {
            best = i;
        }
    }
    return best;
}

CK_RV token_set_refresh(void)
{
    static struct token_view view; /* half a kilobyte of names that need not be on the stack */
    struct token_set *held = token_self.current;
    view = (struct token_view){0};
    if (token_self.store->no_slots) { /* nobody to ask for */
        return CKR_OK;
    }
    enum att_rc rc =
        token_self.store->view(token_self.store->user, held ? held->generation : 0, &view, NULL);
    if (rc == ATT_E_NOTFOUND) {
        token_self.current = NULL;
        return CKR_OK;
    }
    if (rc != ATT_OK) {
        /* Handles work without attestd; a search finds what was there last. */
        return held ? CKR_OK : token_module_rv(rc);
    }
    if (held && view.same) {
        return CKR_OK;
    }
    struct token_set *set = set_new(&view);
    if (!set) {
        return held ? CKR_OK : CKR_DEVICE_ERROR;
    }
    size_t at = place();
    set_free(token_self.sets[at]);
    set->serial = ++token_self.next_serial;
    token_self.sets[at] = set;
    token_self.current = set;
    return CKR_OK;
}

size_t token_set_count(const struct token_set *set)
{
    return INDEX_CERTS + set->chain_count + set->bundle_count;
}

CK_OBJECT_HANDLE token_set_handle(const struct token_set *set, size_t index)
{
    return (CK_OBJECT_HANDLE)(set->serial * SET_STRIDE + index);
}

struct token_set *token_set_of(CK_OBJECT_HANDLE handle, size_t *ret_index)
{
    for (size_t i = 0; i < SETS_MAX; i++) {
        struct token_set *set = token_self.sets[i];
        if (set && set->serial == handle / SET_STRIDE) {
            *ret_index = handle % SET_STRIDE;
            return *ret_index < token_set_count(set) ? set : NULL;
        }
    }
    return NULL;
}
