/* The leaf's extension on what opens its key's parent; declared in build.h. */
#include "certs/build.h"

#include "certs/der.h"
#include "certs/oid.h"

#include <string.h>

enum att_rc certs_sealed_encode(const struct certs_sealed *sealed, struct att_buf *ret_der,
                                struct att_err *err)
{
    if (!sealed->sealed) {
        return att_fail(err, ATT_E_INVAL, "sealed: the key's parent has no policy");
    }
    static const uint8_t version[] = {1};
    uint8_t counter[sizeof sealed->counter];
    for (size_t i = 0; i < sizeof counter; i++) {
        counter[i] = (uint8_t)(sealed->counter >> (8 * (sizeof counter - 1 - i)));
    }
    size_t seq = certs_der_begin(ret_der, DER_SEQUENCE);
    certs_der_put_uint(ret_der, ATT_SLICE_ARRAY(version));
    certs_der_put(ret_der, DER_OCTETS, ATT_SLICE_ARRAY(sealed->policy));
    certs_der_put(ret_der, DER_OCTETS, ATT_SLICE(counter, sealed->counter ? sizeof counter : 0));
    certs_der_end(ret_der, seq);
    return att_buf_ok(ret_der, err);
}

enum att_rc certs_sealed_parse(struct att_slice der, struct certs_sealed *ret_sealed,
                               struct att_err *err)
{
    struct att_cur cur = att_cur_init(der);
    struct att_cur in = att_cur_init(certs_der_take(&cur, DER_SEQUENCE));
    struct att_slice version = certs_der_take(&in, DER_INTEGER);
    struct att_slice policy = certs_der_take(&in, DER_OCTETS);
    struct att_slice counter = certs_der_take(&in, DER_OCTETS);
    if (!att_cur_done(&in) || !att_cur_done(&cur) || policy.len != sizeof ret_sealed->policy ||
        (counter.len != 0 && counter.len != sizeof ret_sealed->counter)) {
        return att_fail(err, ATT_E_PARSE,
                        "sealed: expected SEQUENCE { version, authPolicy, counter }");
    }
    if (version.len != 1 || version.ptr[0] != 1) {
        return att_fail(err, ATT_E_UNSUPPORTED, "sealed: expected version 1");
    }
    struct certs_sealed sealed = {.sealed = true};
    struct att_cur index = att_cur_init(counter);
    sealed.counter = counter.len ? att_cur_be32(&index) : 0;
    if (counter.len && !sealed.counter) {
        return att_fail(err, ATT_E_PARSE, "sealed: counter 0 is written as an empty one");
    }
    memcpy(sealed.policy, policy.ptr, policy.len);
    *ret_sealed = sealed;
    return ATT_OK;
}

enum att_rc certs_sealed_get(const X509 *cert, struct certs_sealed *ret_sealed, struct att_err *err)
{
    struct att_slice value;
    enum att_rc rc =
        certs_extension(cert, CERTS_OID_SEALED, "what opens its key's parent", &value, err);
    return rc == ATT_OK ? certs_sealed_parse(value, ret_sealed, err) : rc;
}
