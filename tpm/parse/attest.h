/* TPMS_ATTEST: TCG TPM 2.0 Part 2, clause 10.12. What a TPM signs; hostile until the signature has
 * been checked, and after that still no more than its own words. */
#ifndef TPM_PARSE_ATTEST_H
#define TPM_PARSE_ATTEST_H

#include "attestd/base/buf.h"
#include "tpm/parse/types.h"

/* TPMS_CLOCK_INFO, Part 2 clause 10.11.1. */
struct parse_clock {
    uint64_t clock; /* ms the TPM has been powered since its last Clear */
    uint32_t reset_count, restart_count;
    uint8_t safe; /* 0: the clock may have gone back */
};

/* Borrows the bytes it was parsed from. Only the members of the type are set. */
struct parse_attest {
    uint32_t magic;
    uint16_t type;
    struct att_slice qualified_signer; /* TPM2B_NAME's content */
    struct att_slice extra_data;
    struct parse_clock clock;
    uint64_t firmware_version;
    union {
        struct {
            struct att_slice pcr_select; /* TPML_PCR_SELECTION, the raw bytes */
            struct att_slice pcr_digest;
        } quote;
        struct {
            struct att_slice name, qualified_name;
        } certify;
        struct {
            struct att_slice index_name, contents;
            uint16_t offset;
        } nv;
        struct {
            struct att_slice object_name, creation_hash;
        } creation;
    } u;
};

/* Magic and type only, not judged: the first thing to look at, before anything else of the bytes is
 * used. ATT_E_PARSE below 6 bytes. */
ATT_MUST_USE enum att_rc parse_attest_header(struct att_slice bytes, uint32_t *ret_magic,
                                             uint16_t *ret_type, struct att_err *err);
/* The whole structure, exactly. ATT_E_PARSE with reason "magic" or "type" where the header is not
 * TPM_GENERATED or not one of the four types above; other refusals have no reason word. */
ATT_MUST_USE enum att_rc parse_attest_parse(struct att_slice bytes, struct parse_attest *ret_attest,
                                            struct att_err *err);
/* parse_attest_parse, and nothing but a quote (reasons "quoteMagic", "quoteType"). */
ATT_MUST_USE enum att_rc parse_attest_quote(struct att_slice bytes, struct parse_attest *ret_attest,
                                            struct att_err *err);
/* parse_attest_parse, and nothing but a Certify (reason "certifyType" for magic and type alike). */
ATT_MUST_USE enum att_rc parse_attest_certify(struct att_slice bytes,
                                              struct parse_attest *ret_attest, struct att_err *err);
/* Appends the marshalled form; magic and type are written as they are, the body by type, for an
 * unknown type none (so that tests can make wrong ones). */
ATT_MUST_USE enum att_rc parse_attest_encode(const struct parse_attest *attest,
                                             struct att_buf *ret_bytes, struct att_err *err);
/* TPM2B_ATTEST → the TPMS_ATTEST in it (borrows). */
ATT_MUST_USE enum att_rc parse_attest_unwrap(struct att_slice tpm2b, struct att_slice *ret_bytes,
                                             struct att_err *err);

#endif
