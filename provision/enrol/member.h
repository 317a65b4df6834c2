/* Members that several messages have. Internal to this folder. */
#ifndef ATTESTD_PROVISION_ENROL_MEMBER_H
#define ATTESTD_PROVISION_ENROL_MEMBER_H

#include "provision/enrol/messages.h"

/* Parses text into an object; the error's reason is "malformed" when strict. */
ATT_MUST_USE enum att_rc enrol_member_object(struct att_slice text, size_t max, json_t **ret_obj,
                                             struct att_err *err);
/* No member beside names[n]? */
ATT_MUST_USE enum att_rc enrol_member_only(const json_t *obj, const char *const *names, size_t n,
                                           struct att_err *err);
/* 1 … max bytes of base64url into ret_bytes, which is empty; an absent optional one leaves it so.
 */
ATT_MUST_USE enum att_rc enrol_member_bytes(const json_t *obj, const char *name, size_t max,
                                            bool optional, struct att_buf *ret_bytes,
                                            struct att_err *err);
/* Exactly len bytes. */
ATT_MUST_USE enum att_rc enrol_member_exact(const json_t *obj, const char *name, uint8_t *ret,
                                            size_t len, struct att_err *err);
ATT_MUST_USE enum att_rc enrol_member_quote(const json_t *obj, struct enrol_quote *ret_quote,
                                            struct att_err *err);
/* quote, pcrs and logs, as M2 and M4 have them; sets or reads all three. */
ATT_MUST_USE enum att_rc enrol_member_put_evidence(json_t *obj, const struct enrol_quote *quote,
                                                   const struct parse_pcr_set *pcrs,
                                                   const struct evidence_logs *logs,
                                                   const uint8_t (*known)[ATT_SHA256_LEN],
                                                   size_t n_known, struct att_err *err);
ATT_MUST_USE enum att_rc enrol_member_evidence(const json_t *obj, struct enrol_quote *ret_quote,
                                               struct parse_pcr_set *ret_pcrs,
                                               struct evidence_logs *ret_logs, struct att_err *err);
void enrol_quote_done(struct enrol_quote *quote);
/* Marks the error of a request parser "malformed"; gives rc back. */
enum att_rc enrol_malformed(enum att_rc rc, struct att_err *err);

#endif
