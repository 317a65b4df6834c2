/* The leaf's extension on which HSM module has its key; declared in build.h. */
#include "certs/build.h"

#include "certs/der.h"
#include "certs/oid.h"

#include <string.h>

static bool name_ok(struct att_slice name)
{
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.ptr[i];
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') &&
            (i == 0 || !memchr("._-", c, 3))) {
            return false;
        }
    }
    return name.len > 0 && name.len <= CERTS_HSM_NAME_MAX;
}

enum att_rc certs_hsm_encode(const struct certs_hsm *hsm, struct att_buf *ret_der,
                             struct att_err *err)
{
    static const uint8_t version[] = {1};
    struct att_slice name = {(const uint8_t *)hsm->name, strnlen(hsm->name, sizeof hsm->name)};
    if (!name_ok(name)) {
        return att_fail(err, ATT_E_INVAL, "hsm: expected a module's name");
    }
    size_t seq = certs_der_begin(ret_der, DER_SEQUENCE);
    certs_der_put_uint(ret_der, ATT_SLICE_ARRAY(version));
    certs_der_put(ret_der, DER_UTF8, name);
    certs_der_end(ret_der, seq);
    return att_buf_ok(ret_der, err);
}

enum att_rc certs_hsm_parse(struct att_slice der, struct certs_hsm *ret_hsm, struct att_err *err)
{
    struct att_cur cur = att_cur_init(der);
    struct att_cur in = att_cur_init(certs_der_take(&cur, DER_SEQUENCE));
    struct att_slice version = certs_der_take(&in, DER_INTEGER);
    struct att_slice name = certs_der_take(&in, DER_UTF8);
    if (!att_cur_done(&in) || !att_cur_done(&cur) || !name_ok(name)) {
        return att_fail(err, ATT_E_PARSE, "hsm: expected SEQUENCE { version, a module's name }");
    }
    if (version.len != 1 || version.ptr[0] != 1) {
        return att_fail(err, ATT_E_UNSUPPORTED, "hsm: expected version 1");
    }
    struct certs_hsm hsm = {{0}};
    memcpy(hsm.name, name.ptr, name.len);
    *ret_hsm = hsm;
    return ATT_OK;
}

enum att_rc certs_hsm_get(const X509 *cert, struct certs_hsm *ret_hsm, struct att_err *err)
{
    struct att_slice value;
    enum att_rc rc =
        certs_extension(cert, CERTS_OID_HSM, "which HSM module has its key", &value, err);
    return rc == ATT_OK ? certs_hsm_parse(value, ret_hsm, err) : rc;
}
