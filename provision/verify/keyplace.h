/* The key's place in its TPM: SRK, parent, key. Private to this folder. */
#ifndef ATTESTD_VERIFY_KEYPLACE_H
#define ATTESTD_VERIFY_KEYPLACE_H

#include "provision/verify/agent.h"
#include "tpm/parse/public.h"

struct verify_key_place {
    struct parse_public srk, parent;
    struct parse_name names[3]; /* SRK, parent where there is one, room for the key */
    size_t n;                   /* of them without the key; 0: no_parents */
};

/* malformed: srkPub and parentPub. */
bool verify_key_place_read(const struct verify_agent_in *in, struct verify_key_place *ret,
                           struct verify_verdict *verdict);
/* Is a storage parent with a certain policy demanded? */
bool verify_key_place_demanded(const struct verify_agent_in *in);
/* keyParent. */
bool verify_key_place_check(const struct verify_agent_in *in, const struct verify_key_place *place,
                            const struct parse_name *key, struct att_slice qualified_name,
                            struct verify_verdict *verdict);

#endif
