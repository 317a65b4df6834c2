#include "attestd/proc/hsm_proto.h"

#define KEY_ID "keyId", PROC_BYTES, PROC_HSM_KEY_ID_LEN, PROC_HSM_KEY_ID_LEN, 0
#define ATTRS  ((1u << PROC_HSM_ATTR_COUNT) - 1)
/* name, type, least, most, longest item */
const struct proc_op proc_hsm_table[] = {
    {PROC_HSM_INFO,
     PROC_OP_AGAIN,
     "INFO",
     {{{0}}},
     {{{"json", PROC_TEXT, 2, PROC_HSM_INFO_MAX, 0}}}},
    {PROC_HSM_CREATE,
     0,
     "CREATE",
     {{{KEY_ID}, {"type", PROC_TEXT, 1, 16, 0}}},
     {{{"spki", PROC_BYTES, 1, PROC_HSM_SPKI_MAX, 0},
       {"stated", PROC_U32, 0, ATTRS, 0},
       {"holds", PROC_U32, 0, ATTRS, 0}}}},
    {PROC_HSM_READ,
     PROC_OP_AGAIN,
     "READ",
     {{{KEY_ID}}},
     {{{"spki", PROC_BYTES, 1, PROC_HSM_SPKI_MAX, 0},
       {"stated", PROC_U32, 0, ATTRS, 0},
       {"holds", PROC_U32, 0, ATTRS, 0}}}},
    {PROC_HSM_SIGN,
     PROC_OP_AGAIN,
     "SIGN",
     {{{KEY_ID}, {"digest", PROC_BYTES, 32, 32, 0}}},
     {{{"signature", PROC_BYTES, 64, PROC_HSM_SIG_MAX, 0}}}},
    {PROC_HSM_DESTROY, PROC_OP_AGAIN, "DESTROY", {{{KEY_ID}}}, {{{0}}}},
    {PROC_HSM_LIST,
     PROC_OP_AGAIN,
     "LIST",
     {{{"after", PROC_BYTES, 0, PROC_HSM_KEY_ID_LEN, 0}}},
     {{{"keyIds", PROC_LIST, 0, PROC_HSM_PAGE, PROC_HSM_KEY_ID_LEN}}}},
    {0, 0, NULL, {{{0}}}, {{{0}}}},
};
