/* The host's policy counter: an NV counter of the owner's, with an authValue of its own and without
 * dictionary-attack protection (tpm/parse/seal_policy.h has its public area). It never goes back,
 * not even over undefine or TPM2_Clear: a counter starts above any that this TPM ever had (TPM 2.0
 * Part 1, clause 37.2.4). Where it starts is therefore the TPM's to say. */
#ifndef ATT_TPM_COUNTER_H
#define ATT_TPM_COUNTER_H

#include "tpm/context.h"

/* Increments in one go at most: a policy's version far above the counter is a slip of the pen, and
 * NV wears. */
#define TPM_COUNTER_STEPS_MAX 1024u

struct tpm_counter {
    bool defined; /* something is at that index */
    bool ours;    /* its Name is the policy counter's: attributes, size, written */
    bool begun;   /* it would be, had it been incremented: what an end in tpm_counter_define left */
    uint64_t value;
};

/* What is there; a missing index is no error. */
ATT_MUST_USE enum att_rc tpm_counter_read(struct tpm_context *ctx, uint32_t index,
                                          struct tpm_counter *ret_counter, struct att_err *err);
/* Defines it and increments it once. auth: 1 … 32 bytes, the last not zero; it crosses the bus
 * encrypted. ATT_E_CONFLICT when the index is taken. */
ATT_MUST_USE enum att_rc tpm_counter_define(struct tpm_context *ctx, uint32_t index,
                                            struct att_slice auth, struct att_err *err);
/* Takes what is there for what tpm_counter_define made, where it is: by its public area and by its
 * authValue, which is tried and is auth. Its value stays as it is; one that was defined and not
 * incremented is incremented once. *ret_adopted is false, and nothing is done, where nothing is
 * there, something else, or a counter with another authValue. */
ATT_MUST_USE enum att_rc tpm_counter_adopt(struct tpm_context *ctx, uint32_t index,
                                           struct att_slice auth, bool *ret_adopted,
                                           struct att_err *err);
/* Increments until it is target; at or above it nothing is done. ATT_E_LIMIT beyond
 * TPM_COUNTER_STEPS_MAX steps, none of them done; ATT_E_AUTH for a wrong auth. */
ATT_MUST_USE enum att_rc tpm_counter_raise(struct tpm_context *ctx, uint32_t index,
                                           struct att_slice auth, uint64_t target,
                                           struct att_err *err);
/* Takes it away, whoever's it is: for one whose authValue nobody knows, before it is defined anew.
 * ATT_OK when there is none. */
ATT_MUST_USE enum att_rc tpm_counter_undefine(struct tpm_context *ctx, uint32_t index,
                                              struct att_err *err);

#endif
