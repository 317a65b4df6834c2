/* The leaf's key-holding extension; declared in build.h. */
#include "certs/build.h"

#include "certs/der.h"
#include "certs/oid.h"

#include <string.h>

static const char *const store_names[] = {"none", "tpm", "hsm", "memory", "exportable"};

const char *certs_key_store_name(enum certs_key_store store)
{
    size_t i = (size_t)store;
    return i < sizeof store_names / sizeof *store_names ? store_names[i] : "none";
}

enum certs_key_store certs_key_store_parse(const char *name)
{
    for (int i = CERTS_STORE_TPM; name && i <= CERTS_STORE_EXPORTABLE; i++) {
        if (strcmp(name, store_names[i]) == 0) {
            return (enum certs_key_store)i;
        }
    }
    return CERTS_STORE_NONE;
}

static bool boot_name_ok(struct att_slice name)
{
    if (name.len == 0 || name.len > CERTS_BOOT_NAME_MAX) {
        return false;
    }
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.ptr[i];
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && !memchr("._-", c, 3)) {
            return false;
        }
    }
    return true;
}

enum att_rc certs_key_holding_encode(const struct certs_key_holding *holding,
                                     struct att_buf *ret_der, struct att_err *err)
{
    struct att_slice boot = {(const uint8_t *)holding->boot,
                             strnlen(holding->boot, sizeof holding->boot)};
    if (holding->store == CERTS_STORE_NONE || !boot_name_ok(boot)) {
        return att_fail(err, ATT_E_INVAL,
                        "key holding: expected a key store and a boot policy name or \"none\"");
    }
    static const uint8_t version[] = {1};
    size_t seq = certs_der_begin(ret_der, DER_SEQUENCE);
    certs_der_put_uint(ret_der, ATT_SLICE_ARRAY(version));
    certs_der_put(ret_der, DER_UTF8, att_slice_str(certs_key_store_name(holding->store)));
    certs_der_put(ret_der, DER_UTF8, boot);
    certs_der_put(ret_der, DER_OCTETS, ATT_SLICE_ARRAY(holding->decision));
    certs_der_end(ret_der, seq);
    return att_buf_ok(ret_der, err);
}

enum att_rc certs_key_holding_parse(struct att_slice der, struct certs_key_holding *ret_holding,
                                    struct att_err *err)
{
    if (der.len > CERTS_HOLDING_MAX) {
        return att_fail(err, ATT_E_LIMIT, "key holding of %zu bytes, at most %d are read", der.len,
                        CERTS_HOLDING_MAX);
    }
    struct att_cur cur = att_cur_init(der);
    struct att_cur in = att_cur_init(certs_der_take(&cur, DER_SEQUENCE));
    struct att_slice version = certs_der_take(&in, DER_INTEGER);
    struct att_slice store = certs_der_take(&in, DER_UTF8);
    struct att_slice boot = certs_der_take(&in, DER_UTF8);
    struct att_slice decision = certs_der_take(&in, DER_OCTETS);
    if (!att_cur_done(&in) || !att_cur_done(&cur)) {
        return att_fail(err, ATT_E_PARSE,
                        "key holding: expected SEQUENCE { version, keyStore, boot, decision }");
    }
    if (version.len != 1 || version.ptr[0] != 1) {
        return att_fail(err, ATT_E_UNSUPPORTED, "key holding: expected version 1");
    }
    struct certs_key_holding holding = {0};
    for (int i = CERTS_STORE_TPM; i <= CERTS_STORE_EXPORTABLE; i++) {
        if (att_slice_eq_str(store, store_names[i])) {
            holding.store = (enum certs_key_store)i;
        }
    }
    if (holding.store == CERTS_STORE_NONE) {
        return att_fail(err, ATT_E_PARSE,
                        "key holding: keyStore is not tpm, hsm, memory or exportable");
    }
    if (!boot_name_ok(boot) || decision.len != sizeof holding.decision) {
        return att_fail(err, ATT_E_PARSE,
                        "key holding: expected a boot policy name and a 32-byte decision digest");
    }
    memcpy(holding.boot, boot.ptr, boot.len);
    memcpy(holding.decision, decision.ptr, decision.len);
    *ret_holding = holding;
    return ATT_OK;
}

enum att_rc certs_key_holding_get(const X509 *cert, struct certs_key_holding *ret_holding,
                                  struct att_err *err)
{
    struct att_slice value;
    enum att_rc rc =
        certs_extension(cert, CERTS_OID_KEY_HOLDING, "how its key is held", &value, err);
    return rc == ATT_OK ? certs_key_holding_parse(value, ret_holding, err) : rc;
}
