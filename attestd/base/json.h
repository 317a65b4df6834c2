/* JSON by jansson, with the limits that hostile input needs. */
#ifndef ATTESTD_BASE_JSON_H
#define ATTESTD_BASE_JSON_H

#include "attestd/base/buf.h"

#include <jansson.h>

/* A value costs jansson up to 200 bytes, whatever it costs the sender. */
#define ATT_JSON_VALUES_MAX 500000

/* Duplicate names, trailing bytes, NUL in strings and anything nested deeper than 32 are refused;
 * more than max bytes or ATT_JSON_VALUES_MAX values is ATT_E_LIMIT. The caller owns the result
 * (json_decref). */
ATT_MUST_USE enum att_rc att_json_parse(struct att_slice text, size_t max, json_t **ret_json,
                                        struct att_err *err);
/* The same for at most this many values (members, items and what they hold): for what strangers
 * send. */
ATT_MUST_USE enum att_rc att_json_parse_few(struct att_slice text, size_t max, size_t values_max,
                                            json_t **ret_json, struct att_err *err);
/* Compact, keys in insertion order (sorted: byte order, for anything that is hashed). Appends. */
ATT_MUST_USE enum att_rc att_json_dump(const json_t *json, bool sorted, struct att_buf *ret_text,
                                       struct att_err *err);
/* A required string member; borrowed from obj. ATT_E_PARSE names the member when it is missing or
 * not a string. */
ATT_MUST_USE enum att_rc att_json_str(const json_t *obj, const char *name, const char **ret_str,
                                      struct att_err *err);
/* A required base64url member, decoded and appended; more than max bytes is ATT_E_LIMIT. */
ATT_MUST_USE enum att_rc att_json_b64u(const json_t *obj, const char *name, size_t max,
                                       struct att_buf *ret_bytes, struct att_err *err);
/* Sets obj[name] to the base64url of bytes. */
ATT_MUST_USE enum att_rc att_json_set_b64u(json_t *obj, const char *name, struct att_slice bytes,
                                           struct att_err *err);
void att_json_done(json_t **json); /* for ATT_CLEANUP */

#define att_autojson ATT_CLEANUP(att_json_done) json_t

#endif
