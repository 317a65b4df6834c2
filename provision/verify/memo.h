/* Replays and judgements of IMA lists that were made before. A replay is a function of the list's
 * bytes, the bank and the value that PCR 10 starts with, so what it gave may be used again for
 * whatever begins with the same bytes, whoever sent it. Of a fixed size, in memory only, for any
 * number of threads. */
#ifndef ATTESTD_VERIFY_MEMO_H
#define ATTESTD_VERIFY_MEMO_H

#include "attestd/base/hash.h"
#include "provision/verify/findings.h"
#include "tpm/parse/ima.h"

#define VERIFY_MEMO_FOUND    VERIFY_FINDINGS_MAX
#define VERIFY_MEMO_EXCLUDES 64

struct verify_memo;

/* How far an IMA list was judged by an ima rule, and what was seen (imajudge.c). */
struct verify_ima_seen {
    size_t offset, number; /* of an entry, in the list */
    size_t tries;          /* that were left for its signature */
};
struct verify_ima_judged {
    size_t used, n_entries; /* bytes and entries of the list */
    size_t n_listed, n_signed, n_excluded, n_violations;
    uint32_t excluded[VERIFY_MEMO_EXCLUDES]; /* by each of the rule's prefixes */
    struct verify_ima_seen found[VERIFY_MEMO_FOUND];
    size_t n_found;
    size_t tries; /* signatures that may still turn out not to hold (imasig.h) */
    size_t left_out[VERIFY_FINDING_COUNT]; /* findings beyond those */
};

/* places × about 4 KiB; NULL without memory. */
struct verify_memo *verify_memo_new(size_t places);
void verify_memo_free(struct verify_memo *memo);

/* start: PCR 10's value before the list, of the bank's length. False: not there. */
bool verify_memo_get(struct verify_memo *memo, const uint8_t list_sha256[ATT_SHA256_LEN],
                     uint16_t bank, const uint8_t *start, struct parse_ima_pcrs *ret_pcrs);
/* Of a replay of the whole list. Takes the place of the one that was used longest ago. */
void verify_memo_put(struct verify_memo *memo, const uint8_t list_sha256[ATT_SHA256_LEN],
                     const uint8_t *start, const struct parse_ima_pcrs *pcrs);

/* The same of judging: a function of the list's bytes and of the rule, which rule_sha256 names with
 * all that it depends on. */
bool verify_memo_get_judged(struct verify_memo *memo, const uint8_t list_sha256[ATT_SHA256_LEN],
                            const uint8_t rule_sha256[ATT_SHA256_LEN],
                            struct verify_ima_judged *ret);
void verify_memo_put_judged(struct verify_memo *memo, const uint8_t list_sha256[ATT_SHA256_LEN],
                            const uint8_t rule_sha256[ATT_SHA256_LEN],
                            const struct verify_ima_judged *judged);

#endif
