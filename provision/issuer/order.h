/* Orders, between the files that move one from M3 to M6. */
#ifndef PROVISION_ISSUER_ORDER_H
#define PROVISION_ISSUER_ORDER_H

#include "provision/issuer/context.h"

#include "certs/build.h"
#include "provision/enrol/messages.h"
#include "provision/verify/measured.h"

/* The status to tell: "invalid" for one whose time is over. */
const char *issuer_order_status(const struct store_order *order, int64_t now);
json_t *issuer_order_json(const struct issuer *issuer, const struct store_order *order,
                          int64_t now);
/* known: {"firmware": "<sha256>"} of logs that the issuer has; may be NULL. */
json_t *issuer_challenge_json(const struct issuer *issuer, const struct store_order *order,
                              const json_t *known);
bool issuer_profile_allows(const struct conf_profile *profile, enum conf_key_kind key);
bool issuer_profile_allows_type(const struct conf_profile *profile, enum att_keytype type);
/* hsm: a module's name; "": it was not said. */
bool issuer_profile_allows_hsm(const struct conf_profile *profile, const char *hsm);

/* The order call->id names, which must be the account's own. */
ATT_MUST_USE enum att_rc issuer_order_load(struct issuer_call *call, struct store_tx *tx,
                                           struct store_order *ret_order, struct att_err *err);
enum att_rc issuer_challenge_show(struct issuer_call *call, struct att_err *err);

/* Host, entry and AK of an order as they are now: hostBanned, hostUnknown, accountMismatch,
 * notAssigned, akUnknown. Out-parameters are the caller's; ret_parsed may be NULL. */
ATT_MUST_USE enum att_rc issuer_order_check(struct issuer_call *call, struct store_tx *tx,
                                            const struct store_order *order, const char *ak_id,
                                            struct store_host *ret_host, struct store_ak *ret_ak,
                                            struct store_entry *ret_entry,
                                            struct issuer_entry **ret_parsed, struct att_err *err);

/* basis.c: what the verdict of an order rests on is still what is demanded: the profile's boot
 * policy in its version and mode, its signers, PCRs, logs and key's parent, the AK's enrolment, the
 * TPM's firmware. ATT_E_DENIED policyExpired, bootPolicy, policySigner, keyParent, akStale, or the
 * word of verify_firmware. */
ATT_MUST_USE enum att_rc issuer_order_basis(const struct issuer_call *call, struct store_tx *tx,
                                            const struct store_order *order,
                                            const struct store_host *host,
                                            const struct store_ak *ak, struct att_err *err);
/* A verdict of "no" in the host's notes: of the agent, of all that the same boot policy judges, or
 * of the whole host. No later verdict takes it away; it counts against every certificate whose own
 * verdict is not newer (M8). */
ATT_MUST_USE enum att_rc issuer_refusal_note(json_t *notes, const struct store_order *order,
                                             const char *reason, int64_t now, struct att_err *err);
/* ATT_E_DENIED verdictRefused. */
ATT_MUST_USE enum att_rc issuer_refusal_check(const json_t *notes, const struct store_order *order,
                                              struct att_err *err);

/* measured.c: the manifest that came with an order's evidence, against the entry's demand; ATT_OK
 * with facts->level 0 where there is none. judged: what verify_agent accepted. */
ATT_MUST_USE enum att_rc issuer_measured_judge(
    const struct conf_entry *entry, const struct enrol_m4_request *request,
    const struct verify_agent_in *judged, const struct verify_agent_facts *agent,
    struct verify_verdict *verdict, struct verify_measured_facts *ret_facts, struct att_err *err);
/* sealed.c: the parent of an order's key, as a note in the order. counter: by the host's word. */
bool issuer_sealed_note(const struct verify_agent_facts *facts, const struct conf_profile *profile,
                        uint32_t counter, char **ret_text);
ATT_MUST_USE enum att_rc issuer_sealed_leaf(const char *note, struct certs_sealed *ret_sealed,
                                            struct att_err *err);
/* What the profile demands now, of the verdict's note. ATT_E_DENIED keyParent. */
ATT_MUST_USE enum att_rc issuer_sealed_again(const char *note, const struct conf_profile *profile,
                                             struct att_err *err);
json_t *issuer_sealed_json(const char *note); /* NULL where the key is not sealed */
/* For the decision record; NULL where nothing was demanded. */
json_t *issuer_measured_json(const struct verify_measured_facts *facts);
/* Between verdict and certificate, in the order's row. False without memory. */
bool issuer_measured_note(const struct verify_measured_facts *facts, char **ret_text);
ATT_MUST_USE enum att_rc issuer_measured_leaf(const char *note, struct certs_measured *ret_measured,
                                              struct att_err *err);

/* Whether a profile's keys may be of this kind. */
bool issuer_profile_allows(const struct conf_profile *profile, enum conf_key_kind key);

#endif
