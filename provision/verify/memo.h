/* Replays of IMA lists that were made before. A replay is a function of the list's bytes, the bank
 * and the value that PCR 10 starts with, so what it gave may be used again for whatever begins with
 * the same bytes, whoever sent it. Of a fixed size, in memory only, for any number of threads. */
#ifndef ATTESTD_VERIFY_MEMO_H
#define ATTESTD_VERIFY_MEMO_H

#include "attestd/base/hash.h"
#include "tpm/parse/ima.h"

struct verify_memo;

/* places × about 2 KiB; NULL without memory. */
struct verify_memo *verify_memo_new(size_t places);
void verify_memo_free(struct verify_memo *memo);

/* start: PCR 10's value before the list, of the bank's length. False: not there. */
bool verify_memo_get(struct verify_memo *memo, const uint8_t list_sha256[ATT_SHA256_LEN],
                     uint16_t bank, const uint8_t *start, struct parse_ima_pcrs *ret_pcrs);
/* Of a replay of the whole list. Takes the place of the one that was used longest ago. */
void verify_memo_put(struct verify_memo *memo, const uint8_t list_sha256[ATT_SHA256_LEN],
                     const uint8_t *start, const struct parse_ima_pcrs *pcrs);

#endif
