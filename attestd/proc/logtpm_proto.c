#include "attestd/proc/logtpm_proto.h"

#define NUMBER(name) name, PROC_U64, 0, 0, 0
/* name, type, least, most, longest item */
const struct proc_op proc_logtpm_table[] = {
    {PROC_LOGTPM_STATE,
     PROC_OP_AGAIN,
     "STATE",
     {{{0}}},
     {{{"spki", PROC_BYTES, PROC_LOGTPM_SPKI_LEN, PROC_LOGTPM_SPKI_LEN, 0},
       {NUMBER("counter")},
       {NUMBER("was")},
       {"origin", PROC_TEXT, 0, PROC_LOGTPM_ORIGIN_MAX, 0},
       {NUMBER("size")},
       {"root", PROC_BYTES, PROC_LOGTPM_HASH_LEN, PROC_LOGTPM_HASH_LEN, 0},
       {NUMBER("lastCounter")},
       {"before", PROC_TEXT, 0, PROC_LOGTPM_BEFORE_MAX, 0}}}},
    {PROC_LOGTPM_SIGN,
     PROC_OP_AGAIN,
     "SIGN",
     {{{"text", PROC_BYTES, 1, PROC_LOGTPM_TEXT_MAX, 0},
       {NUMBER("old")},
       {"proof", PROC_LIST, 0, PROC_LOGTPM_PROOF_MAX, PROC_LOGTPM_HASH_LEN}}},
     {{{"signature", PROC_BYTES, 8, PROC_LOGTPM_SIG_MAX, 0}}}},
    {PROC_LOGTPM_RAISE, PROC_OP_AGAIN, "RAISE", {{{NUMBER("counter")}}}, {{{0}}}},
    {0, 0, NULL, {{{0}}}, {{{0}}}},
};
