/* Answers of a gRPC server, written by hand: frames (RFC 9113 §4.1), header fields as literals
 * (RFC 7541 §6.2.2). */
#ifndef ATTESTD_TESTS_UNIT_CLIENT_FRAMES_H
#define ATTESTD_TESTS_UNIT_CLIENT_FRAMES_H

#include "attestd/base/buf.h"

#include <string.h>

enum { DATA = 0, HEADERS = 1, RST = 3, SETTINGS = 4, GOAWAY = 7, END_STREAM = 1, END_HEADERS = 4 };

static void frame(struct att_buf *out, uint8_t type, uint8_t flags, uint32_t stream,
                  struct att_slice payload)
{
    att_buf_u8(out, (uint8_t)(payload.len >> 16));
    att_buf_be16(out, (uint16_t)payload.len);
    att_buf_u8(out, type);
    att_buf_u8(out, flags);
    att_buf_be32(out, stream);
    att_buf_put_slice(out, payload);
}

/* name, value, … NULL, each shorter than 127 bytes. */
static void headers(struct att_buf *out, uint8_t flags, uint32_t stream, const char *const *pairs)
{
    att_autobuf block = {0};
    for (size_t i = 0; pairs[i]; i++) {
        if (i % 2 == 0) {
            att_buf_u8(&block, 0);
        }
        att_buf_u8(&block, (uint8_t)strlen(pairs[i]));
        att_buf_put_str(&block, pairs[i]);
    }
    frame(out, HEADERS, flags | END_HEADERS, stream, att_buf_slice(&block));
}

static const char *const ok200[] = {":status", "200", "content-type", "application/grpc", NULL};

static void status(struct att_buf *out, uint32_t stream, const char *code, const char *text)
{
    const char *const pairs[] = {"grpc-status", code, "grpc-message", text, NULL};
    headers(out, END_STREAM, stream, pairs);
}

static void message(struct att_buf *out, uint32_t stream, struct att_slice bytes)
{
    att_autobuf payload = {0};
    att_buf_u8(&payload, 0);
    att_buf_field_be32(&payload, bytes);
    frame(out, DATA, 0, stream, att_buf_slice(&payload));
}

static void start(struct att_buf *bytes)
{
    att_buf_reset(bytes);
    frame(bytes, SETTINGS, 0, 0, ATT_SLICE(NULL, 0));
}

#endif
