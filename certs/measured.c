/* The leaf's extension on what its agent is made of; declared in build.h. */
#include "certs/build.h"

#include "certs/der.h"
#include "certs/oid.h"

#include <string.h>

enum att_rc certs_measured_encode(const struct certs_measured *measured, struct att_buf *ret_der,
                                  struct att_err *err)
{
    if (measured->level < 1 || measured->level > CERTS_MEASURED_LEVEL_MAX) {
        return att_fail(err, ATT_E_INVAL, "measured: level %u, expected 1 … %d", measured->level,
                        CERTS_MEASURED_LEVEL_MAX);
    }
    static const uint8_t version[] = {1};
    const uint8_t level[] = {(uint8_t)measured->level};
    size_t seq = certs_der_begin(ret_der, DER_SEQUENCE);
    certs_der_put_uint(ret_der, ATT_SLICE_ARRAY(version));
    certs_der_put_uint(ret_der, ATT_SLICE_ARRAY(level));
    certs_der_put(ret_der, DER_OCTETS, ATT_SLICE_ARRAY(measured->root));
    certs_der_end(ret_der, seq);
    return att_buf_ok(ret_der, err);
}

enum att_rc certs_measured_parse(struct att_slice der, struct certs_measured *ret_measured,
                                 struct att_err *err)
{
    struct att_cur cur = att_cur_init(der);
    struct att_cur in = att_cur_init(certs_der_take(&cur, DER_SEQUENCE));
    struct att_slice version = certs_der_take(&in, DER_INTEGER);
    struct att_slice level = certs_der_take(&in, DER_INTEGER);
    struct att_slice root = certs_der_take(&in, DER_OCTETS);
    if (!att_cur_done(&in) || !att_cur_done(&cur) || level.len != 1 ||
        root.len != sizeof ret_measured->root) {
        return att_fail(err, ATT_E_PARSE,
                        "measured: expected SEQUENCE { version, level, manifestRoot }");
    }
    if (version.len != 1 || version.ptr[0] != 1) {
        return att_fail(err, ATT_E_UNSUPPORTED, "measured: expected version 1");
    }
    if (level.ptr[0] < 1 || level.ptr[0] > CERTS_MEASURED_LEVEL_MAX) {
        return att_fail(err, ATT_E_PARSE, "measured: expected level 1 … %d",
                        CERTS_MEASURED_LEVEL_MAX);
    }
    ret_measured->level = level.ptr[0];
    memcpy(ret_measured->root, root.ptr, root.len);
    return ATT_OK;
}

enum att_rc certs_measured_get(const X509 *cert, struct certs_measured *ret_measured,
                               struct att_err *err)
{
    struct att_slice value;
    enum att_rc rc = certs_extension(cert, CERTS_OID_MEASURED, "measured files", &value, err);
    return rc == ATT_OK ? certs_measured_parse(value, ret_measured, err) : rc;
}
