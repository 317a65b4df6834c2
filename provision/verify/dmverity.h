/* Level 3 of measured files: a device whose every block the kernel checks against a root hash, and
 * a boot that named that hash. Two questions, both answered by logs that lead to the quoted PCRs:
 *
 * 1. What is the device? IMA's list has what device-mapper was told (tpm/parse/ima_dm.h). Since IMA
 *    lists the same words once in a boot, a table that came back would not be seen: so all tables
 *    that were ever loaded for this device number must be one verity target with one root hash, and
 *    each that came into force must be one of these.
 * 2. Did the boot name that root hash? As the value of "roothash" or "usrhash"
 *    (systemd-veritysetup-generator(8)) in text whose digest is that of an event, in a PCR that the
 *    boot policy judges without a finding, and the policy names that event by its digest or its
 *    text, or by a pattern in which the word itself stands: whoever becomes root later can extend a
 *    PCR and write to a log what he likes, but not what the policy had not named. */
#ifndef ATTESTD_VERIFY_DMVERITY_H
#define ATTESTD_VERIFY_DMVERITY_H

#include "provision/verify/quote.h"

/* list: IMA's, as far as it was replayed. False: it does not say so; ret_why is a sentence. */
bool verify_dmverity_device(struct att_slice list, uint32_t major, uint32_t minor,
                            uint8_t ret_root[ATT_SHA256_LEN], char *ret_why, size_t why_size);

struct verify_dmverity_boot {
    const struct verify_boot *boot;
    const struct verify_quoted *quoted; /* accepted by verify_agent */
    size_t systemd_used;                /* bytes of systemd's log and tail that were replayed */
    /* What the host says its kernel's command line is: counts where an event has its digest. May be
     * empty. */
    const char *command_line;
    const struct verify_verdict *verdict; /* with what the policy found */
};
/* True: ret_text names the event. False: why not. */
bool verify_dmverity_booted(const struct verify_dmverity_boot *in,
                            const uint8_t root[ATT_SHA256_LEN], char *ret_text, size_t text_size);

#endif
