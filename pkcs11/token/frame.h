/* The scanner in front of p11-kit's RPC server: is this frame from a workload one that may pass?
 * Pure: bytes in, verdict out. p11-kit allocates what a peer announces, and its versions before
 * 0.26.3 can be crashed by one; so nothing reaches it but whole frames of known calls whose every
 * length, count and type has been walked through here.
 *
 * The wire (p11-kit rpc-transport.c, rpc-message.c; versions 0 and 1): one byte of version, then
 * frames: be32 code, be32 length of options, be32 length of message, options, message. A message:
 * be32 call, be32 length and text of the call's signature, the arguments. */
#ifndef TOKEN_FRAME_H
#define TOKEN_FRAME_H

#include "attestd/base/err.h"
#include "attestd/base/slice.h"

#define TOKEN_FRAME_HEAD        12
#define TOKEN_FRAME_OPTIONS_MAX 256u   /* the client's name of the module */
#define TOKEN_FRAME_MESSAGE_MAX 65536u /* bytes */
#define TOKEN_FRAME_MAX         (TOKEN_FRAME_HEAD + TOKEN_FRAME_OPTIONS_MAX + TOKEN_FRAME_MESSAGE_MAX)
#define TOKEN_FRAME_ATTRS_MAX   128u    /* attributes of a template */
#define TOKEN_FRAME_ROOM_MAX    65536u  /* bytes of room that a client offers for one answer */
#define TOKEN_FRAME_ROOMS_MAX   262144u /* … and in one call, together */
#define TOKEN_FRAME_LIST_MAX    16384u /* handles, slots, mechanisms at once; GnuTLS asks for 8192 */
#define TOKEN_FRAME_REFUSAL_LEN 35

struct token_frame_head {
    uint32_t code, options_len, message_len;
};

/* Ends the connection when it fails: the framing is lost. ATT_E_LIMIT, ATT_E_PARSE. */
ATT_MUST_USE enum att_rc token_frame_head(const uint8_t bytes[TOKEN_FRAME_HEAD],
                                          struct token_frame_head *ret_head, struct att_err *err);

enum token_frame_verdict {
    TOKEN_FRAME_REFUSED = 0, /* the connection ends: no stock client sends this */
    TOKEN_FRAME_PASS,
    TOKEN_FRAME_UNSERVED, /* well formed, but not served: a call that is answered with
                             CKR_FUNCTION_NOT_SUPPORTED takes its place */
};

/* What lasts from frame to frame of a connection. {0} before the first. */
struct token_frame_state {
    bool initialized; /* C_Initialize must be the first call, and comes once */
};

/* message: without head and options. err says why when the verdict is not PASS. */
enum token_frame_verdict token_frame_check(struct token_frame_state *state,
                                           struct att_slice message, struct att_err *err);

/* A whole frame with this code whose call (C_GetOperationState) is answered by
 * CKR_FUNCTION_NOT_SUPPORTED: p11-kit's server stays the only one that writes to the client. */
void token_frame_refusal(uint32_t code, uint8_t ret_frame[TOKEN_FRAME_REFUSAL_LEN]);

#endif
