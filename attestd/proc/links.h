/* How many connections the token and SPIFFE services hold at those whom they ask, at most, and how
 * many places these have. A link is given its place when it connects and keeps it; one that finds
 * none is hung up on, and its calls fail: so the sums are checked where they are said. */
#ifndef ATTESTD_PROC_LINKS_H
#define ATTESTD_PROC_LINKS_H

#define PROC_LINKS_HSMS_MAX 5 /* modules of a host, and the default without its name */

/* attestd's workload.sock */
#define PROC_LINKS_TOKEND_IDENTIFY  8
#define PROC_LINKS_TOKEND_VIEWS     2
#define PROC_LINKS_TOKEND_CHANGES   1
#define PROC_LINKS_SPIFFED_IDENTIFY 2
#define PROC_LINKS_SPIFFED_AGAIN    1
#define PROC_LINKS_SPIFFED_VIEWS    1
#define PROC_LINKS_SPIFFED_WATCH    1
#define PROC_LINKS_SPIFFED_TOKENS   2
#define PROC_PLACES_WORKLOAD        40

/* keyd's sign.sock */
#define PROC_LINKS_TOKEND_KEYD  8
#define PROC_LINKS_TOKEND_HSM   4 /* for each module: one that hangs holds what it is asked on */
#define PROC_LINKS_SPIFFED_KEYD 2
#define PROC_LINKS_SPIFFED_HSM  1
#define PROC_PLACES_SIGN        64

/* whod's whod.sock, beside attestd's own */
#define PROC_LINKS_TOKEND_SAME  2
#define PROC_LINKS_SPIFFED_SAME 1
#define PROC_LINKS_SAME_MAX     4

/* At workload.sock twice: who was started again has its predecessor's places beside its own for a
 * moment. */
_Static_assert(2 * (PROC_LINKS_TOKEND_IDENTIFY + PROC_LINKS_TOKEND_VIEWS +
                    PROC_LINKS_TOKEND_CHANGES + PROC_LINKS_SPIFFED_IDENTIFY +
                    PROC_LINKS_SPIFFED_AGAIN + PROC_LINKS_SPIFFED_VIEWS + PROC_LINKS_SPIFFED_WATCH +
                    PROC_LINKS_SPIFFED_TOKENS) <=
                   PROC_PLACES_WORKLOAD,
               "places at workload.sock");
_Static_assert(PROC_LINKS_TOKEND_KEYD + PROC_LINKS_SPIFFED_KEYD +
                       PROC_LINKS_HSMS_MAX * (PROC_LINKS_TOKEND_HSM + PROC_LINKS_SPIFFED_HSM) <=
                   PROC_PLACES_SIGN,
               "places at sign.sock");
_Static_assert(PROC_LINKS_TOKEND_SAME + PROC_LINKS_SPIFFED_SAME <= PROC_LINKS_SAME_MAX,
               "places at whod.sock for those who ask for SAME");

#endif
