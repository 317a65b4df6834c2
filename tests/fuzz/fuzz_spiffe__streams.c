/* Streams of requests over HTTP/2, from frames to answers, by the services' own jobs: Envoy's SDS,
 * and reflection. The caller is proved; its agent's key stays in its store (first byte even) or may
 * not be had now. The second byte says what the rest is: frames as a client writes them after its
 * preface (even), or what follows on streams that were opened for it, so that HPACK need not be
 * guessed: a byte for the stream and what is done to it, two for a length, and so many bytes. */
#include "attestd/spiffe/service.h"

#include "attestd/base/clock.h"
#include "attestd/base/log.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define INPUT_MAX 32768
#define TURNS_MAX 64
#define SDS       "/envoy.service.secret.v3.SecretDiscoveryService/"

enum { TO_STREAM = 0x03, PREFIXED = 0x20, RESET = 0x40, LAST = 0x80 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct grpc_method methods[] = {
    {SDS "StreamSecrets", GRPC_BIDI, NULL, JOB_SDS_STREAM},
    {SDS "FetchSecrets", GRPC_UNARY, NULL, JOB_SDS_FETCH},
    {"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", GRPC_BIDI, NULL, JOB_REFLECTION},
    {NULL, GRPC_UNARY, NULL, 0},
};
/* Of streams 1, 3, 5, 7. */
static const unsigned char opened[] = {0, 0, 2, 1};

static bool is_open;

static void closed(void *user)
{
    (void)user;
    is_open = false;
}

static const struct grpc_handler handler = {.request = spiffed_request,
                                            .ended = spiffed_ended,
                                            .closed = closed,
                                            .begin = spiffed_begin,
                                            .end = spiffed_end_of_call};

static struct world {
    struct spiffed spiffed;
    struct share share;
    struct agent agent;
    struct peer peer;
    struct grpc_conn *conn;
    int ends[2], pidfd; /* pidfd: readable when the caller has ended, and it has not */
} w;

static void put_der(struct att_buf *buf)
{
    *buf = ATT_BUF_INIT(64);
    att_buf_put(buf, "\x30\x02\x05\x00", 4);
}

static void make_world(struct event_base *base, bool exportable)
{
    int pidfd = w.pidfd > 0 ? w.pidfd : eventfd(0, EFD_CLOEXEC);
    w = (struct world){.pidfd = pidfd};
    w.spiffed.entries = w.spiffed.standing = 1;
    w.spiffed.opts.base = base;
    w.spiffed.federation.there = true; /* with no other trust domain */
    w.spiffed.federation.known = w.spiffed.standing;
    w.spiffed.bundle.message = grpc_bytes_new(0);
    w.spiffed.bundle.generation = 7;
    memcpy(w.spiffed.bundle.trust_domain, "bank.example", 13);
    put_der(&w.spiffed.bundle.roots);
    put_der(&w.spiffed.bundle.crl);
    w.share.exports.saved_ms = INT64_MIN / 2; /* nobody is there who would be asked for a key */
    w.share.told_ms = att_boottime_ms() + 3600000;
    w.agent = (struct agent){.spiffed = &w.spiffed,
                             .name = "alpha",
                             .spiffe_id = "spiffe://bank.example/agent/alpha",
                             .fetched = true,
                             .known = 1,
                             .generation = 5,
                             .not_after = INT64_MAX,
                             .exportable = exportable,
                             .chain = w.spiffed.bundle.message};
    w.peer = (struct peer){.spiffed = &w.spiffed,
                           .share = &w.share,
                           .agent = &w.agent,
                           .identified = true,
                           .entries = 1,
                           .pidfd = pidfd};
}

static void unmake_world(void)
{
    grpc_bytes_unref(w.spiffed.bundle.message);
    att_buf_done(&w.spiffed.bundle.roots);
    att_buf_done(&w.spiffed.bundle.crl);
    spiffed_sds_done(&w.spiffed.sds);
}

static void tell(const void *bytes, size_t len)
{
    (void)!send(w.ends[0], bytes, len, MSG_NOSIGNAL);
}

/* What it answers is read, or it would stop to read. */
static void turn(struct event_base *base)
{
    uint8_t answer[16384];
    w.peer.proved_ms = att_boottime_ms() + 3600000; /* whod is not asked: nobody is there */
    event_base_loop(base, EVLOOP_NONBLOCK);
    while (recv(w.ends[0], answer, sizeof answer, MSG_DONTWAIT) > 0) {
    }
}

static void frame(uint8_t type, uint8_t flags, uint32_t stream, const void *payload, size_t len)
{
    const uint8_t head[9] = {(uint8_t)(len >> 16),
                             (uint8_t)(len >> 8),
                             (uint8_t)len,
                             type,
                             flags,
                             (uint8_t)(stream >> 24),
                             (uint8_t)(stream >> 16),
                             (uint8_t)(stream >> 8),
                             (uint8_t)stream};
    tell(head, sizeof head);
    tell(payload, len);
}

static void put_field(struct att_buf *block, const char *name, const char *value)
{
    att_buf_u8(block, 0); /* literal, not indexed, a new name (RFC 7541 §6.2.2) */
    att_buf_u8(block, (uint8_t)strlen(name));
    att_buf_put_str(block, name);
    att_buf_u8(block, (uint8_t)strlen(value));
    att_buf_put_str(block, value);
}

static void open_stream(uint32_t stream, const char *path)
{
    att_autobuf block = ATT_BUF_INIT(1024);
    put_field(&block, ":method", "POST");
    put_field(&block, ":scheme", "http");
    put_field(&block, ":path", path);
    put_field(&block, ":authority", "localhost");
    put_field(&block, "te", "trailers");
    put_field(&block, "content-type", "application/grpc");
    frame(1, 4, stream, block.ptr, block.len);
}

static void on_streams(struct event_base *base, struct att_slice bytes)
{
    struct att_cur cur = att_cur_init(bytes);
    for (uint32_t stream = 1; stream <= 7; stream += 2) {
        open_stream(stream, methods[opened[stream / 2]].path);
    }
    for (int i = 0; i < TURNS_MAX && is_open && cur.left && !cur.failed; i++) {
        uint8_t what = att_cur_u8(&cur);
        size_t len = att_cur_be16(&cur);
        struct att_slice data = att_cur_take(&cur, len < cur.left ? len : cur.left);
        uint32_t stream = 1 + 2 * (uint32_t)(what & TO_STREAM);
        att_autobuf payload = ATT_BUF_INIT(INPUT_MAX + 8);
        if (what & PREFIXED) {
            att_buf_u8(&payload, 0);
            att_buf_be32(&payload, (uint32_t)data.len);
        }
        att_buf_put_slice(&payload, data);
        if (what & RESET) {
            frame(3, 0, stream, "\0\0\0\x08", 4);
        } else if (payload.len <= 16384) {
            frame(0, what & LAST ? 1 : 0, stream, payload.ptr, payload.len);
        }
        turn(base);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
    static struct event_base *base;
    if (!base) {
        base = event_base_new();
        att_log_setup("fuzz", ATT_ERROR, false);
    }
    const struct grpc_opts opts = {base, methods, &handler, 1000, 1000};
    if (size < 2 || size > INPUT_MAX || !base) {
        return 0;
    }
    make_world(base, data[0] & 1);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, w.ends) != 0) {
        unmake_world();
        return 0;
    }
    is_open = grpc_conn_new(&opts, w.ends[1], 0, &w.peer, &w.conn, NULL) == ATT_OK;
    w.peer.conn = w.conn;
    tell(preface, sizeof preface); /* its NUL is the frame's last byte */
    if (data[1] & 1) {
        on_streams(base, ATT_SLICE(data + 2, size - 2));
    } else {
        tell(data + 2, size - 2);
    }
    for (int i = 0; i < TURNS_MAX && is_open; i++) {
        turn(base);
    }
    if (is_open) {
        grpc_conn_tick(w.conn);
        grpc_conn_free(w.conn);
    }
    close(w.ends[0]);
    if (is_open || w.peer.jobs || w.share.calls || w.spiffed.calls) {
        abort(); /* a call or a job outlived its connection */
    }
    unmake_world();
    return 0;
}
