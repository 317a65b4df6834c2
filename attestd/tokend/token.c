/* The token process: one connection, no file, no socket but two, nothing that outlasts it. */
#include "attestd/tokend/internal.h"

#include "attestd/base/clock.h"
#include "attestd/base/hash.h"
#include "pkcs11/token/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define ANSWER_MS  25000 /* beyond every time-out of tokend's */
#define READ_AHEAD 1024  /* bytes: most answers come whole by one call */
#define AS_BYTES   ((rlim_t)256 << 20)
#define FD_CLIENT  3
#define FD_CHANNEL 4
#define FD_LIMIT   8 /* the two, the relay's pipe, standard error */

/* ---- the store behind the token: tokend -------------------------------------------------------
 */

static struct {
    int channel;
    uint32_t id;
    struct att_buf in;
    struct proc_msg msg;
} store_state;

static size_t wanted(const struct att_buf *in)
{
    struct att_cur cur = att_cur_init(att_buf_slice(in));
    return in->len < 4 ? 4 : (size_t)att_cur_be32(&cur) + 4;
}

/* tokend says nothing that it was not asked, so that more than one answer is none. The socket ends
 * a wait that is in vain (SO_RCVTIMEO). */
static enum att_rc receive_answer(struct att_slice *ret_frame, struct att_err *err)
{
    struct att_buf *in = &store_state.in;
    att_buf_reset(in);
    for (size_t want = 4; in->len < want; want = wanted(in)) {
        if (want > PROC_FRAME_MAX + 4) {
            return att_fail(err, ATT_E_LIMIT, "an answer of %zu bytes", want);
        }
        size_t step = (want < READ_AHEAD ? READ_AHEAD : want) - in->len;
        uint8_t *at = att_buf_extend(in, step);
        if (!at) {
            return att_buf_ok(in, err);
        }
        ssize_t got = recv(store_state.channel, at, step, 0);
        in->len -= step - (got > 0 ? (size_t)got : 0);
        if (got == 0 || (got < 0 && errno != EINTR)) {
            bool late = got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
            return att_fail(err, late ? ATT_E_TIMEOUT : ATT_E_GONE, "tokend's answer");
        }
    }
    if (in->len != wanted(in)) {
        return att_fail(err, ATT_E_PROTOCOL, "more than an answer");
    }
    *ret_frame = ATT_SLICE(in->ptr + 4, in->len - 4);
    return ATT_OK;
}

static enum att_rc ask(uint16_t which, const struct proc_value *values, struct att_err *err)
{
    const struct proc_op *op = proc_op_find(tokend_inner_table, which);
    att_autobuf payload = ATT_BUF_INIT(TOKEND_INNER_REQUEST_MAX);
    att_autobuf out = ATT_BUF_INIT(TOKEND_INNER_REQUEST_MAX);
    struct proc_frame frame;
    int64_t deadline = att_boottime_ms() + ANSWER_MS;
    enum att_rc rc = proc_msg_encode(&op->request, values, &payload, err);
    if (rc == ATT_OK) {
        rc = proc_frame_encode(++store_state.id, which, att_buf_slice(&payload), &out, err);
    }
    if (rc == ATT_OK) {
        rc = proc_frame_send(store_state.channel, att_buf_slice(&out), deadline, err);
    }
    if (rc == ATT_OK && which != TOKEND_INNER_BYE) {
        struct att_slice whole;
        rc = receive_answer(&whole, err);
        if (rc == ATT_OK) {
            rc = proc_frame_parse(whole, &frame, err);
        }
        if (rc == ATT_OK && (frame.id != store_state.id || frame.op != (which | PROC_REPLY))) {
            rc = ATT_E_GONE;
        }
        if (rc == ATT_OK) {
            rc = proc_reply_parse(op, frame.payload, &store_state.msg, err);
        }
    }
    return rc;
}

static void take_text(struct att_slice from, char *ret, size_t room)
{
    size_t len = from.len < room ? from.len : room - 1;
    memcpy(ret, from.ptr, len);
    ret[len] = 0;
}

static enum att_rc store_view(void *user, uint64_t known, struct token_view *ret_view,
                              struct att_err *err)
{
    const struct proc_value values[] = {{.num = known}}, *v = store_state.msg.v;
    (void)user;
    enum att_rc rc = ask(TOKEND_INNER_VIEW, values, err);
    if (rc != ATT_OK) {
        return rc;
    }
    ret_view->same = v[TOKEND_VIEW_REP_SAME].num == 1;
    ret_view->generation = v[TOKEND_VIEW_REP_GENERATION].num;
    if (!ret_view->same) {
        take_text(v[TOKEND_VIEW_REP_SPIFFE_ID].bytes, ret_view->spiffe_id,
                  sizeof ret_view->spiffe_id);
        take_text(v[TOKEND_VIEW_REP_KEY_ID].bytes, ret_view->key_id, sizeof ret_view->key_id);
        ret_view->chain = v[TOKEND_VIEW_REP_CHAIN].items;
        ret_view->chain_count = v[TOKEND_VIEW_REP_CHAIN].item_count;
        ret_view->bundle = v[TOKEND_VIEW_REP_BUNDLE].items;
        ret_view->bundle_count = v[TOKEND_VIEW_REP_BUNDLE].item_count;
    }
    return ATT_OK;
}

static enum att_rc store_sign(void *user, const char *key_id, struct att_slice digest,
                              uint8_t ret_signature[TOKEN_SIGNATURE_LEN], struct att_err *err)
{
    const struct proc_value values[] = {{.bytes = att_slice_str(key_id)}, {.bytes = digest}};
    (void)user;
    enum att_rc rc = ask(TOKEND_INNER_SIGN, values, err);
    if (rc == ATT_OK) { /* 64 bytes: the table's shape */
        memcpy(ret_signature, store_state.msg.v[TOKEND_SIGN_REP_SIGNATURE].bytes.ptr,
               TOKEN_SIGNATURE_LEN);
    }
    return rc;
}

static enum att_rc store_sign_rsa(void *user, const char *key_id, enum att_rsa_scheme scheme,
                                  struct att_slice digest,
                                  uint8_t ret_signature[ATT_RSA_MODULUS_MAX], size_t *ret_len,
                                  struct att_err *err)
{
    const struct proc_value values[] = {
        {.bytes = att_slice_str(key_id)}, {.num = scheme}, {.bytes = digest}};
    (void)user;
    enum att_rc rc = ask(TOKEND_INNER_SIGN_RSA, values, err);
    if (rc == ATT_OK) { /* as many bytes as the table's shape allows */
        struct att_slice signature = store_state.msg.v[TOKEND_SIGN_REP_SIGNATURE].bytes;
        memcpy(ret_signature, signature.ptr, signature.len);
        *ret_len = signature.len;
    }
    return rc;
}

/* The kernel's generator: libcrypto's would seed one for each process. */
static enum att_rc store_random(void *user, uint8_t *ret, size_t len, struct att_err *err)
{
    (void)user;
    while (len) {
        ssize_t got = getrandom(ret, len, 0);
        if (got < 0 && errno != EINTR) {
            return att_fail_errno(err, ATT_E_IO, "getrandom");
        }
        ret += got > 0 ? got : 0;
        len -= got > 0 ? (size_t)got : 0;
    }
    return ATT_OK;
}

static struct token_store store = {
    .view = store_view,
    .sign = store_sign,
    .sign_rsa = store_sign_rsa,
    .random = store_random,
};

/* ---- the process --------------------------------------------------------------------------------
 */

/* Between two that stay. */
static bool close_between(int low, int high)
{
    return high - low < 2 || close_range((unsigned)low + 1, (unsigned)high - 1, 0) == 0;
}

/* client and channel become 3 and 4; everything else of tokend's is closed, first of all, since
 * tokend may have used up its descriptors. */
static bool keep_two(int client, int channel)
{
    int low = client < channel ? client : channel, top = client < channel ? channel : client;
    if (!close_between(STDERR_FILENO, low) || !close_between(low, top) ||
        close_range((unsigned)top + 1, ~0u, 0) != 0) {
        return false;
    }
    int high_client = fcntl(client, F_DUPFD_CLOEXEC, FD_CHANNEL + 1);
    int high_channel = fcntl(channel, F_DUPFD_CLOEXEC, FD_CHANNEL + 1);
    bool ok = high_client >= 0 && high_channel >= 0 && dup2(high_client, FD_CLIENT) == FD_CLIENT &&
              dup2(high_channel, FD_CHANNEL) == FD_CHANNEL &&
              close_range(FD_CHANNEL + 1, ~0u, 0) == 0;
    if (!ATT_SANITIZED) { /* whoever took a token over writes no line in tokend's name */
        close(STDERR_FILENO);
    }
    close(STDIN_FILENO);
    close(STDOUT_FILENO);
    return ok;
}

static bool set_limits(void)
{
    static const struct rlimit none = {0, 0}, files = {FD_LIMIT, FD_LIMIT},
                               memory = {AS_BYTES, AS_BYTES};
    return setrlimit(RLIMIT_NOFILE, &files) == 0 && setrlimit(RLIMIT_FSIZE, &none) == 0 &&
           (ATT_SANITIZED || setrlimit(RLIMIT_AS, &memory) == 0); /* ASan reserves terabytes */
}

static bool bound_waits(void)
{
    static const struct timeval answer = {.tv_sec = ANSWER_MS / 1000};
    return setsockopt(FD_CHANNEL, SOL_SOCKET, SO_RCVTIMEO, &answer, sizeof answer) == 0;
}

static bool confine(void *user)
{
    const struct proc_sandbox_ready *sandbox = user;
    return proc_sandbox_enter_ready(sandbox, NULL) == ATT_OK;
}

_Noreturn void tokend_token_main(const struct tokend_token *token)
{
    sigset_t all;
    sigemptyset(&all);
    if (!keep_two(token->client, token->channel) || !set_limits() || !bound_waits()) {
        _exit(EXIT_FAILURE);
    }
    sigprocmask(SIG_SETMASK, &all, NULL);
    (void)prctl(PR_SET_NAME, "attestd-token", 0, 0, 0);
    struct proc_sandbox_ready sandbox = token->sandbox;
    store.no_slots = token->unknown;
    store_state.channel = FD_CHANNEL;
    store_state.in = ATT_BUF_INIT(PROC_FRAME_MAX + 4);
    const struct token_serve_opts opts = {FD_CLIENT, token->pid, &store, confine, &sandbox};
    const char *why = token_serve(&opts);
    if (why) {
        const struct proc_value values[] = {{.bytes = att_slice_str(why)}};
        (void)!ask(TOKEND_INNER_BYE, values, NULL);
    }
    _exit(EXIT_SUCCESS);
}
