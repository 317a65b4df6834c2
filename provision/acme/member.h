/* Members of JSON objects, with bounds. Internal to this folder. */
#ifndef ATTESTD_PROVISION_ACME_MEMBER_H
#define ATTESTD_PROVISION_ACME_MEMBER_H

#include "attestd/base/json.h"

#define ACME_TEXT_MAX ((size_t)1024)

/* A malloc'd copy of a text of 1 … max bytes without control characters. Absent: ATT_OK and NULL
 * when optional. */
ATT_MUST_USE enum att_rc acme_member_text(const json_t *obj, const char *name, size_t max,
                                          bool optional, char **ret_text, struct att_err *err);
/* Likewise an https URL of printable ASCII. */
ATT_MUST_USE enum att_rc acme_member_url(const json_t *obj, const char *name, bool optional,
                                         char **ret_url, struct att_err *err);
/* A text into a fixed room. */
ATT_MUST_USE enum att_rc acme_member_fixed(const json_t *obj, const char *name, char *ret,
                                           size_t room, struct att_err *err);
/* RFC 3339; 0 when absent. */
ATT_MUST_USE enum att_rc acme_member_time(const json_t *obj, const char *name, int64_t *ret_utc_s,
                                          struct att_err *err);
/* False when absent; only true and false otherwise. */
ATT_MUST_USE enum att_rc acme_member_bool(const json_t *obj, const char *name, bool *ret_v,
                                          struct att_err *err);
bool acme_url_ok(const char *url);
bool acme_text_ok(const char *text);

/* The writers return nonzero on failure, to be or'ed up. NULL texts and 0 times are left out. */
int acme_put_text(json_t *obj, const char *name, const char *text);
int acme_put_time(json_t *obj, const char *name, int64_t utc_s);

/* An object, or "malformed". */
ATT_MUST_USE enum att_rc acme_request_object(struct att_slice payload, json_t **ret_obj,
                                             struct att_err *err);
/* Marks a failed request parser's error "malformed" and gives rc back. */
enum att_rc acme_malformed(enum att_rc rc, struct att_err *err);

#endif
