#include "pkcs11/token/frame.h"

#include <string.h>

/* A call's number on the wire and its arguments: u CK_ULONG (8 bytes), y byte, ay array of bytes,
 * fy fu room for an answer, aA template, fA room for attributes, M mechanism. The order of
 * rpc-message.h, which never changes; calls that are missing are not served. */
struct call {
    const char *name, *args;
};
static const struct call calls[] = {
    [1] = {"C_Initialize", "ayyay"},
    [2] = {"C_Finalize", ""},
    [3] = {"C_GetInfo", ""},
    [4] = {"C_GetSlotList", "yfu"},
    [5] = {"C_GetSlotInfo", "u"},
    [6] = {"C_GetTokenInfo", "u"},
    [7] = {"C_GetMechanismList", "ufu"},
    [8] = {"C_GetMechanismInfo", "uu"},
    [10] = {"C_OpenSession", "uu"},
    [11] = {"C_CloseSession", "u"},
    [12] = {"C_CloseAllSessions", "u"},
    [13] = {"C_GetSessionInfo", "u"},
    [18] = {"C_Login", "uuay"},
    [19] = {"C_Logout", "u"},
    [20] = {"C_CreateObject", "uaA"},
    [21] = {"C_CopyObject", "uuaA"},
    [22] = {"C_DestroyObject", "uu"},
    [23] = {"C_GetObjectSize", "uu"},
    [24] = {"C_GetAttributeValue", "uufA"},
    [25] = {"C_SetAttributeValue", "uuaA"},
    [26] = {"C_FindObjectsInit", "uaA"},
    [27] = {"C_FindObjects", "ufu"},
    [28] = {"C_FindObjectsFinal", "u"},
    [37] = {"C_DigestInit", "uM"},
    [38] = {"C_Digest", "uayfy"},
    [39] = {"C_DigestUpdate", "uay"},
    [41] = {"C_DigestFinal", "ufy"},
    [42] = {"C_SignInit", "uMu"},
    [43] = {"C_Sign", "uayfy"},
    [44] = {"C_SignUpdate", "uay"},
    [45] = {"C_SignFinal", "ufy"},
    [48] = {"C_VerifyInit", "uMu"},
    [49] = {"C_Verify", "uayay"},
    [50] = {"C_VerifyUpdate", "uay"},
    [51] = {"C_VerifyFinal", "uay"},
    [63] = {"C_SeedRandom", "uay"},
    [64] = {"C_GenerateRandom", "ufy"},
    [65] = {"C_WaitForSlotEvent", "u"},
};
#define CALL_INITIALIZE 1
#define CALL_REFUSAL    16  /* C_GetOperationState */
#define CALL_KNOWN_MAX  255 /* beyond: no version of the protocol has it */

#define MECHANISM_PSS        0xdu        /* CKM_RSA_PKCS_PSS */
#define MECHANISM_SHA256_PSS 0x43u       /* CKM_SHA256_RSA_PKCS_PSS, then SHA384's and SHA512's */
#define NONE                 0xffffffffu /* the length of an array that is not there */

static enum token_frame_verdict refuse(struct att_err *err, enum att_rc rc, const char *what)
{
    (void)!att_fail(err, rc, "%s", what);
    return TOKEN_FRAME_REFUSED;
}

static enum token_frame_verdict not_served(struct att_err *err, const char *what)
{
    (void)!att_fail(err, ATT_E_UNSUPPORTED, "%s", what);
    return TOKEN_FRAME_UNSERVED;
}

enum att_rc token_frame_head(const uint8_t bytes[TOKEN_FRAME_HEAD],
                             struct token_frame_head *ret_head, struct att_err *err)
{
    struct att_cur cur = att_cur_init(ATT_SLICE(bytes, TOKEN_FRAME_HEAD));
    struct token_frame_head head;
    head.code = att_cur_be32(&cur);
    head.options_len = att_cur_be32(&cur);
    head.message_len = att_cur_be32(&cur);
    if (head.code == 0) {
        return att_fail(err, ATT_E_PARSE, "a frame with code 0");
    }
    if (head.options_len > TOKEN_FRAME_OPTIONS_MAX) {
        return att_fail(err, ATT_E_LIMIT, "options of %u bytes, at most %u", head.options_len,
                        TOKEN_FRAME_OPTIONS_MAX);
    }
    if (head.message_len > TOKEN_FRAME_MESSAGE_MAX || head.message_len < 8) {
        return att_fail(err, ATT_E_LIMIT, "a message of %u bytes, 8 to %u expected",
                        head.message_len, TOKEN_FRAME_MESSAGE_MAX);
    }
    *ret_head = head;
    return ATT_OK;
}

/* ---- arguments ----------------------------------------------------------------------------- */

/* p11_rpc_buffer_get_byte_array: NONE stands for NULL. */
static struct att_slice take_bytes(struct att_cur *cur)
{
    uint32_t len = att_cur_be32(cur);
    return len == NONE ? ATT_SLICE(NULL, 0) : att_cur_take(cur, len);
}

/* "ay": a byte says whether an array follows; without it, the length that somebody has room for
 * stands there only in answers. */
static void walk_array(struct att_cur *cur)
{
    if (att_cur_u8(cur)) {
        (void)take_bytes(cur);
    }
}

enum value_kind { VALUE_BYTES, VALUE_BYTE, VALUE_ULONG, VALUE_MECHANISMS, VALUE_NESTED };

/* map_attribute_to_value_type of rpc-message.c, by the numbers of PKCS#11. */
static enum value_kind kind_of(uint32_t type)
{
    switch (type) {
    case 0x001: /* TOKEN */
    case 0x002: /* PRIVATE */
    case 0x086: /* TRUSTED */
    case 0x103: /* SENSITIVE */
    case 0x104: /* ENCRYPT */
    case 0x105: /* DECRYPT */
    case 0x106: /* WRAP */
    case 0x107: /* UNWRAP */
    case 0x108: /* SIGN */
    case 0x109: /* SIGN_RECOVER */
    case 0x10a: /* VERIFY */
    case 0x10b: /* VERIFY_RECOVER */
    case 0x10c: /* DERIVE */
    case 0x162: /* EXTRACTABLE */
    case 0x163: /* LOCAL */
    case 0x164: /* NEVER_EXTRACTABLE */
    case 0x165: /* ALWAYS_SENSITIVE */
    case 0x170: /* MODIFIABLE */
    case 0x171: /* COPYABLE */
    case 0x200: /* SECONDARY_AUTH */
    case 0x202: /* ALWAYS_AUTHENTICATE */
    case 0x210: /* WRAP_WITH_TRUSTED */
    case 0x301: /* RESET_ON_INIT */
    case 0x302: /* HAS_RESET */
    case 0x405: /* COLOR */
        return VALUE_BYTE;
    case 0x000: /* CLASS */
    case 0x080: /* CERTIFICATE_TYPE */
    case 0x087: /* CERTIFICATE_CATEGORY */
    case 0x088: /* JAVA_MIDP_SECURITY_DOMAIN */
    case 0x100: /* KEY_TYPE */
    case 0x121: /* MODULUS_BITS */
    case 0x133: /* PRIME_BITS */
    case 0x134: /* SUB_PRIME_BITS */
    case 0x160: /* VALUE_BITS */
    case 0x161: /* VALUE_LEN */
    case 0x166: /* KEY_GEN_MECHANISM */
    case 0x201: /* AUTH_PIN_FLAGS */
    case 0x300: /* HW_FEATURE_TYPE */
    case 0x400: /* PIXEL_X */
    case 0x401: /* PIXEL_Y */
    case 0x402: /* RESOLUTION */
    case 0x403: /* CHAR_ROWS */
    case 0x404: /* CHAR_COLUMNS */
    case 0x406: /* BITS_PER_PIXEL */
    case 0x500: /* MECHANISM_TYPE */
        return VALUE_ULONG;
    case 0x40000600: /* ALLOWED_MECHANISMS */
        return VALUE_MECHANISMS;
    case 0x40000211: /* WRAP_TEMPLATE */
    case 0x40000212: /* UNWRAP_TEMPLATE */
    case 0x40000213: /* DERIVE_TEMPLATE */
        return VALUE_NESTED;
    default:
        return VALUE_BYTES;
    }
}

/* The announced length must be the one that is decoded: p11-kit allocates the one and writes the
 * other. */
static enum token_frame_verdict walk_value(struct att_cur *cur, enum value_kind kind, uint32_t len,
                                           struct att_err *err)
{
    uint64_t decoded = 1;
    switch (kind) {
    case VALUE_BYTE:
        (void)att_cur_u8(cur);
        break;
    case VALUE_ULONG:
        (void)att_cur_be64(cur);
        decoded = 8;
        break;
    case VALUE_MECHANISMS: {
        uint32_t count = att_cur_be32(cur);
        (void)att_cur_take(cur, (size_t)count * 8);
        decoded = (uint64_t)count * 8;
        break;
    }
    case VALUE_BYTES:
        decoded = take_bytes(cur).len;
        break;
    case VALUE_NESTED: /* kept out before */
        return refuse(err, ATT_E_INTERNAL, "nested template");
    }
    if (!cur->failed && decoded != len) {
        return not_served(err, "an attribute whose length is not its value's");
    }
    return TOKEN_FRAME_PASS;
}

static enum token_frame_verdict walk_template(struct att_cur *cur, struct att_err *err)
{
    uint32_t count = att_cur_be32(cur);
    if (count > TOKEN_FRAME_ATTRS_MAX) {
        return refuse(err, ATT_E_LIMIT, "too many attributes in a template");
    }
    for (uint32_t i = 0; i < count && !cur->failed; i++) {
        uint32_t type = att_cur_be32(cur);
        enum value_kind kind = kind_of(type);
        bool valid = att_cur_u8(cur) != 0;
        if (type & 0x80000000u) { /* makers' own: versions of p11-kit differ in their shape */
            return not_served(err, "a maker's own attribute");
        }
        if (kind == VALUE_NESTED) {
            return not_served(err, "a template within a template");
        }
        if (!valid) {
            continue;
        }
        enum token_frame_verdict verdict = walk_value(cur, kind, att_cur_be32(cur), err);
        if (verdict != TOKEN_FRAME_PASS) {
            return verdict;
        }
    }
    return TOKEN_FRAME_PASS;
}

static enum token_frame_verdict walk_attribute_rooms(struct att_cur *cur, struct att_err *err)
{
    uint32_t count = att_cur_be32(cur);
    uint64_t rooms = 0;
    if (count > TOKEN_FRAME_ATTRS_MAX) {
        return refuse(err, ATT_E_LIMIT, "too many attributes asked for");
    }
    for (uint32_t i = 0; i < count && !cur->failed; i++) {
        enum value_kind kind = kind_of(att_cur_be32(cur));
        uint32_t room = att_cur_be32(cur);
        if (kind == VALUE_NESTED) { /* version 1 nests here; nothing of ours has such a thing */
            return not_served(err, "a nested template asked for");
        }
        rooms += room;
    }
    if (rooms > TOKEN_FRAME_ROOMS_MAX) {
        return not_served(err, "more room for attributes than is served");
    }
    return TOKEN_FRAME_PASS;
}

/* Of bytes, NONE is a buffer of no bytes since version 1 (0: no buffer); version 0 takes it for
 * more than it allocates, and answers CKR_DEVICE_MEMORY. */
static enum token_frame_verdict walk_room(bool bytes, uint32_t room, struct att_err *err)
{
    bool served =
        bytes ? room <= TOKEN_FRAME_ROOM_MAX || room == NONE : room <= TOKEN_FRAME_LIST_MAX;
    return served ? TOKEN_FRAME_PASS : not_served(err, "more room for an answer than is served");
}

static bool is_pss(uint32_t mechanism)
{
    return mechanism == MECHANISM_PSS ||
           (TOKEN_PSS_WITH_HASH && mechanism >= MECHANISM_SHA256_PSS &&
            mechanism <= MECHANISM_SHA256_PSS + 2);
}

/* One argument; *args is moved behind it. */
static enum token_frame_verdict walk_argument(const char **args, struct att_cur *cur,
                                              struct att_err *err)
{
    const char *at = *args;
    bool pair = at[0] == 'a' || at[0] == 'f';
    *args = at + (pair ? 2 : 1);
    if (at[0] == 'u') {
        (void)att_cur_be64(cur);
    } else if (at[0] == 'y') {
        (void)att_cur_u8(cur);
    } else if (at[0] == 'M') { /* plain ones: no parameter, or bytes; PSS: hash, MGF, salt */
        if (is_pss(att_cur_be32(cur))) {
            (void)att_cur_take(cur, 24);
        } else {
            (void)take_bytes(cur);
        }
    } else if (at[0] == 'a' && at[1] == 'y') {
        walk_array(cur);
    } else if (at[0] == 'a') {
        return walk_template(cur, err);
    } else if (at[1] == 'A') {
        return walk_attribute_rooms(cur, err);
    } else {
        return walk_room(at[1] == 'y', att_cur_be32(cur), err);
    }
    return TOKEN_FRAME_PASS;
}

/* Mechanisms with parameters have shapes of their own on the wire, more with each version: only
 * those without pass, PSS, whose three numbers are the same in all, and the null mechanism of
 * version 1, which ends an operation. The token says by itself which of them it has. */
static bool mechanism_is_plain(uint32_t mechanism)
{
    static const uint32_t plain[] = {
        0x1041, 0x1042, 0x1043, 0x1044, 0x1045, 0x1046, /* ECDSA, ECDSA_SHA1 … SHA512 */
        0x220,  0x250,  0x255,  0x260,  0x270,          /* digests */
        0x1,    0x3,    0x6,    0x40,   0x41,   0x42,   /* RSA_PKCS, X_509, SHA*_RSA_PKCS */
        NONE,
    };
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
        if (plain[i] == mechanism) {
            return true;
        }
    }
    return false;
}

static bool mechanism_passes(const struct call *call, struct att_slice arguments)
{
    struct att_cur cur = att_cur_init(arguments);
    if (strncmp(call->args, "uM", 2) != 0) {
        return true;
    }
    (void)att_cur_be64(&cur);
    uint32_t mechanism = att_cur_be32(&cur);
    return cur.failed || is_pss(mechanism) || mechanism_is_plain(mechanism);
}

static enum token_frame_verdict walk(const struct call *call, struct att_cur *cur,
                                     struct att_err *err)
{
    if (!mechanism_passes(call, ATT_SLICE(cur->ptr, cur->left))) {
        return not_served(err, "a mechanism that is not served");
    }
    for (const char *args = call->args; *args;) {
        enum token_frame_verdict verdict = walk_argument(&args, cur, err);
        if (verdict != TOKEN_FRAME_PASS) {
            return verdict;
        }
        if (cur->failed) {
            return refuse(err, ATT_E_PARSE, "a call's arguments are cut short");
        }
    }
    return cur->left == 0 ? TOKEN_FRAME_PASS
                          : refuse(err, ATT_E_PARSE, "bytes behind a call's arguments");
}

enum token_frame_verdict token_frame_check(struct token_frame_state *state,
                                           struct att_slice message, struct att_err *err)
{
    struct att_cur cur = att_cur_init(message);
    uint32_t number = att_cur_be32(&cur);
    struct att_slice signature = att_cur_take_be32(&cur, 64);
    if (cur.failed) {
        return refuse(err, ATT_E_PARSE, "a message cut short");
    }
    if (number == 0 || number > CALL_KNOWN_MAX) {
        return refuse(err, ATT_E_PARSE, "no call has this number");
    }
    if ((number == CALL_INITIALIZE) == state->initialized) {
        return refuse(err, ATT_E_PROTOCOL,
                      state->initialized ? "C_Initialize comes again"
                                         : "a call before C_Initialize");
    }
    const struct call *call = number < sizeof calls / sizeof calls[0] ? &calls[number] : NULL;
    if (!call || !call->name) {
        return not_served(err, "a call that is not served");
    }
    if (!att_slice_eq_str(signature, call->args)) {
        return refuse(err, ATT_E_PARSE, "a call with another call's arguments");
    }
    enum token_frame_verdict verdict = walk(call, &cur, err);
    state->initialized = state->initialized || verdict == TOKEN_FRAME_PASS;
    return verdict;
}

static uint8_t *put_be32(uint8_t *at, uint32_t v)
{
    for (int shift = 24; shift >= 0; shift -= 8) {
        *at++ = (uint8_t)(v >> shift);
    }
    return at;
}

void token_frame_refusal(uint32_t code, uint8_t ret_frame[TOKEN_FRAME_REFUSAL_LEN])
{
    static const char args[] = "ufy"; /* of C_GetOperationState */
    memset(ret_frame, 0, TOKEN_FRAME_REFUSAL_LEN);
    uint8_t *at = put_be32(ret_frame, code);
    at = put_be32(at, 0);
    at = put_be32(at, TOKEN_FRAME_REFUSAL_LEN - TOKEN_FRAME_HEAD);
    at = put_be32(at, CALL_REFUSAL);
    at = put_be32(at, sizeof args - 1);
    memcpy(at, args, sizeof args - 1);
    /* session 0, room 0: 12 bytes of zero */
}
