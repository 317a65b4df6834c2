/* Members of a boot policy's objects. Private to this folder. ATT_E_PARSE names the member and what
 * was expected; texts are borrowed from the JSON. */
#ifndef ATTESTD_VERIFY_MEMBERS_H
#define ATTESTD_VERIFY_MEMBERS_H

#include "attestd/base/err.h"
#include "provision/verify/findings.h"

/* An object with no other members than these (known ends in NULL). */
ATT_MUST_USE enum att_rc verify_member_only(const json_t *object, const char *const *known,
                                            struct att_err *err);
/* A text of 1 … max bytes; NULL where it is absent and may be. */
ATT_MUST_USE enum att_rc verify_member_text(const json_t *object, const char *member, size_t max,
                                            bool optional, const char **ret, struct att_err *err);
/* RFC 3339; absent: *ret stays as it is. */
ATT_MUST_USE enum att_rc verify_member_time(const json_t *object, const char *member, int64_t *ret,
                                            struct att_err *err);
/* len bytes in hex. */
ATT_MUST_USE enum att_rc verify_member_hex(const json_t *value, const char *member, size_t len,
                                           uint8_t *ret, struct att_err *err);
/* "severity"; absent: *ret stays as it is. */
ATT_MUST_USE enum att_rc verify_member_severity(const json_t *object, enum verify_severity *ret,
                                                struct att_err *err);

#endif
