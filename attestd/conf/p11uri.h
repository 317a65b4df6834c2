/* Which PKCS#11 token: the subset of RFC 7512 that names one token for good, and where its PIN is.
 * p11-kit's own parser stays where vendor code is; this one is strict and opens nothing. */
#ifndef CONF_P11URI_H
#define CONF_P11URI_H

#include "attestd/base/err.h"
#include "attestd/base/slice.h"

#define CONF_P11URI_MAX 2048 /* bytes of the text */

struct conf_p11uri {
    char token[33], serial[17];       /* both required */
    char manufacturer[33], model[17]; /* empty: not given */
    char pin_source[1025];            /* absolute path; empty: not given */
};

/* "pkcs11:token=…;serial=…[;manufacturer=…][;model=…][?pin-source=file:/PATH]", attributes of each
 * part in any order, none twice, percent-encoded where the RFC wants it (§2.3). Refused with their
 * names: pin-value (a PIN is no configuration), slot-id and the other names of slots and libraries
 * (they change), object, id and type (a key, not a token), module-path and module-name.
 * ATT_E_PARSE; the message never holds a value. */
ATT_MUST_USE enum att_rc conf_p11uri_parse(struct att_slice text, struct conf_p11uri *ret_uri,
                                           struct att_err *err);

#endif
