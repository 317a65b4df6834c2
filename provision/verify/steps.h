/* Steps that the verifications share. Private to this folder. Each returns true when the
 * verification may go on. */
#ifndef ATTESTD_VERIFY_STEPS_H
#define ATTESTD_VERIFY_STEPS_H

#include "provision/verify/quote.h"
#include "tpm/parse/attest.h"
#include "tpm/parse/public.h"

/* A statement whose header was looked at; attest is set only where parsed. */
struct verify_statement {
    uint32_t magic;
    uint16_t type;
    bool parsed;
    struct parse_attest attest;
};

/* malformed: an area that must parse. */
bool verify_step_area(struct att_slice area, const char *what, struct parse_public *ret_pub,
                      struct verify_verdict *verdict);
/* malformed: caps, header, and where the header is what it should be the whole; a wrong header is
 * for the checks of magic and type to refuse. */
bool verify_step_statement(struct att_slice bytes, uint16_t type, const char *what,
                           struct verify_statement *ret_statement, struct verify_verdict *verdict);
/* malformed: a signature that must parse. */
bool verify_step_signature(struct att_slice bytes, const char *what,
                           struct verify_verdict *verdict);
/* "a TPM2_NV_Certify": for people. */
const char *verify_statement_name(uint16_t type);

/* akAttributes of a public area that was parsed. */
bool verify_step_ak(const struct parse_public *ak, struct verify_verdict *verdict);
/* malformed, for everything that a quote consists of. Does not pass the check yet. */
bool verify_step_quote_form(const struct verify_quoted *quoted, struct verify_statement *ret_quote,
                            struct verify_verdict *verdict);
/* quoteMagic … pcrDigest. other: a second statement whose signer must be in the same hierarchy, or
 * NULL. */
bool verify_step_quote(const struct verify_quoted *quoted, const struct verify_statement *quote,
                       const struct parse_attest *other, const struct parse_public *ak,
                       struct att_slice extra_data, const struct parse_pcr_sel *selection,
                       struct verify_verdict *verdict);
/* tpmCleared, clockRollback. previous NULL: both are skipped with this sentence. */
bool verify_step_clock(const struct verify_clock *previous, const char *why_skipped,
                       const struct verify_clock *now, struct verify_verdict *verdict);
/* logReplay, of logs that are there and a firmware log that has its grammar. */
void verify_step_replay(const struct verify_logs_wanted *wanted, const struct parse_pcr_set *quoted,
                        const struct evidence_logs *logs, struct verify_verdict *verdict);
/* A log and its tail in one piece; copied into room only where there is a tail. */
struct att_slice verify_step_whole(const struct evidence_log *log, struct att_buf *room);
/* logMissing … bootPolicy. ret_replayed may be NULL. */
bool verify_step_boot(const struct verify_boot *boot, const struct verify_quoted *quoted,
                      struct verify_replayed *ret_replayed, struct verify_verdict *verdict);
/* The facts of a quote whose checks all passed. False: VERIFY_REASON_INTERNAL was added. */
bool verify_step_facts(const struct verify_boot *boot, const struct verify_quoted *quoted,
                       const struct verify_statement *quote, struct verify_quote_facts *ret,
                       struct verify_verdict *verdict);
struct verify_clock verify_clock_of(const struct parse_attest *attest);

/* firmwareDenied, of what M1 and the certificate say. */
bool verify_step_deny(const struct verify_ek_in *in, const struct verify_ek_facts *facts,
                      struct verify_verdict *verdict);

#endif
