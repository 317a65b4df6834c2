/* The relay as p11-kit's server meets it: through this program's read() and write(). */
#include "pkcs11/token/relay.h"

#include "attestd/base/buf.h"
#include "pkcs11/token/frame.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static int workload, client, server; /* server: the stand-in */

static int setup(void **state)
{
    int ends[2];
    const int on = 1;
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    workload = ends[0];
    client = ends[1];
    assert_int_equal(setsockopt(client, SOL_SOCKET, SO_PASSCRED, &on, sizeof on), 0);
    server = token_relay_begin(client, getpid());
    assert_true(server >= 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    (void)token_relay_end();
    close(workload);
    close(client);
    return 0;
}

/* A call of p11-kit's wire: its number and signature, no arguments. */
static size_t call(uint8_t *ret, uint32_t code, uint32_t number, const char *signature,
                   struct att_slice arguments)
{
    att_autobuf message = {0}, out = {0};
    att_buf_be32(&message, number);
    att_buf_field_be32(&message, att_slice_str(signature));
    att_buf_put_slice(&message, arguments);
    att_buf_be32(&out, code);
    att_buf_be32(&out, 7);
    att_buf_be32(&out, (uint32_t)message.len);
    att_buf_put_str(&out, "attestd");
    att_buf_put_slice(&out, att_buf_slice(&message));
    memcpy(ret, out.ptr, out.len);
    return out.len;
}

/* C_Initialize (1): "ayyay", the handshake, a byte, no reserved; C_Finalize (2); C_GetInfo (3) */
#define HANDSHAKE "PRIVATE-GNOME-KEYRING-PKCS11-PROTOCOL-V-1"
static size_t initialize(uint8_t *ret)
{
    att_autobuf arguments = {0};
    att_buf_u8(&arguments, 1);
    att_buf_field_be32(&arguments, att_slice_str(HANDSHAKE));
    att_buf_u8(&arguments, 0);
    att_buf_u8(&arguments, 1);
    att_buf_field_be32(&arguments, ATT_SLICE_LIT("\0"));
    return call(ret, 16, 1, "ayyay", att_buf_slice(&arguments));
}

static void greet(void)
{
    uint8_t version = 0xff;
    assert_int_equal(send(workload, "\1", 1, 0), 1);
    assert_int_equal(read(server, &version, 1), 1);
    assert_int_equal(version, 1);
}

/* As p11-kit asks: head, options, message. */
static bool comes(const uint8_t *frame, size_t len)
{
    uint8_t got[512];
    for (size_t at = 0; at < len;) {
        size_t step = at == 0 ? 12 : at == 12 ? 7 : len - at;
        if (read(server, got + at, step) != (ssize_t)step) {
            return false;
        }
        at += step;
    }
    return memcmp(got, frame, len) == 0;
}

static void the_systems_read_of_the_stand_in_gives_nothing(void **state)
{
    uint8_t byte;
    (void)state;
    assert_int_equal(send(workload, "\1", 1, 0), 1);
    assert_int_equal(syscall(SYS_read, server, &byte, 1), 0);
    assert_int_equal(syscall(SYS_write, server, "x", 1), -1);
    assert_int_equal(recv(workload, &byte, 1, MSG_DONTWAIT), -1);
}

static void other_descriptors_are_the_systems(void **state)
{
    int ends[2];
    char got[4] = "";
    (void)state;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], "abc", 3), 3);
    assert_int_equal(read(ends[0], got, 3), 3);
    assert_string_equal(got, "abc");
    close(ends[1]);
    assert_int_equal(read(ends[0], got, 3), 0);
    close(ends[0]);
    errno = 0;
    assert_int_equal(read(ends[0], got, 3), -1);
    assert_int_equal(errno, EBADF);
}

static void frames_pass_whole_in_pieces_and_in_a_row(void **state)
{
    uint8_t first[512], second[512], both[1024];
    (void)state;
    greet();
    size_t len = initialize(first);
    size_t more = call(second, 17, 3, "", (struct att_slice){0});
    memcpy(both, first, len);
    memcpy(both + len, second, more);
    assert_int_equal(send(workload, both, len + more, 0), (ssize_t)(len + more));
    assert_true(comes(first, len));
    assert_true(comes(second, more));
    pid_t reader = fork(); /* the writer is this process, which connected */
    if (reader == 0) {
        _exit(!comes(second, more));
    }
    for (size_t i = 0; i < more; i++) {
        assert_int_equal(send(workload, second + i, 1, 0), 1);
        usleep(500);
    }
    int status = -1;
    assert_int_equal(waitpid(reader, &status, 0), reader);
    assert_int_equal(status, 0);
}

static void a_call_that_is_not_served_is_replaced_and_what_follows_is_kept(void **state)
{
    uint8_t first[512], unserved[512], last[512], both[1024], got[64], refusal[64];
    (void)state;
    greet();
    size_t len = initialize(first);
    assert_int_equal(send(workload, first, len, 0), (ssize_t)len);
    assert_true(comes(first, len));
    size_t bad = call(unserved, 21, 58, "w", (struct att_slice){0}); /* C_GenerateKey */
    size_t more = call(last, 22, 3, "", (struct att_slice){0});
    assert_true(bad < TOKEN_FRAME_REFUSAL_LEN); /* what takes its place is longer */
    memcpy(both, unserved, bad);
    memcpy(both + bad, last, more);
    token_frame_refusal(21, refusal);
    assert_int_equal(send(workload, both, bad + more, 0), (ssize_t)(bad + more));
    assert_int_equal(read(server, got, sizeof got), TOKEN_FRAME_REFUSAL_LEN);
    assert_memory_equal(got, refusal, TOKEN_FRAME_REFUSAL_LEN);
    assert_true(comes(last, more));
}

static void ended(const char *word)
{
    uint8_t byte;
    assert_int_equal(read(server, &byte, 1), 0);
    assert_int_equal(read(server, &byte, 1), 0); /* and stays so */
    const char *why = token_relay_end();
    if (!word) {
        assert_null(why);
        return;
    }
    assert_non_null(why);
    assert_non_null(strstr(why, word));
    assert_int_equal(recv(workload, &byte, 1, MSG_DONTWAIT), -1); /* it sees the end later */
}

static void the_client_closes(void **state)
{
    (void)state;
    greet();
    shutdown(workload, SHUT_WR);
    ended(NULL);
}

static void an_end_within_a_frame_is_told(void **state)
{
    uint8_t first[512];
    (void)state;
    greet();
    size_t len = initialize(first);
    assert_int_equal(send(workload, first, len - 1, 0), (ssize_t)len - 1);
    shutdown(workload, SHUT_WR);
    ended("within a frame");
}

static void a_frame_that_is_refused_ends_it(void **state)
{
    uint8_t first[512];
    (void)state;
    greet();
    size_t len = call(first, 16, 3, "", (struct att_slice){0}); /* not C_Initialize */
    assert_int_equal(send(workload, first, len, 0), (ssize_t)len);
    ended("C_Initialize");
}

static void lengths_that_are_too_great_end_it(void **state)
{
    static const uint8_t head[12] = {0, 0, 0, 16, 0, 0, 0, 7, 0x7f, 0xff, 0xff, 0xff};
    (void)state;
    greet();
    assert_int_equal(send(workload, head, sizeof head, 0), sizeof head);
    ended("");
}

/* Also when its piece is the end of a frame that the caller began. */
static void another_writer_ends_it(void **state)
{
    uint8_t first[512];
    (void)state;
    greet();
    size_t len = initialize(first);
    assert_int_equal(send(workload, first, len - 1, 0), (ssize_t)len - 1);
    pid_t other = fork();
    if (other == 0) {
        _exit(send(workload, first + len - 1, 1, 0) != 1);
    }
    int status = -1;
    assert_int_equal(waitpid(other, &status, 0), other);
    assert_int_equal(status, 0);
    ended("another process");
}

static void an_answer_leaves_as_one_piece(void **state)
{
    static const uint8_t head[12] = {0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 5};
    uint8_t got[64];
    (void)state;
    greet();
    assert_int_equal(write(server, "\0", 1), 1);
    assert_int_equal(recv(workload, got, 1, MSG_DONTWAIT), 1);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(write(server, head, sizeof head), sizeof head);
        assert_int_equal(recv(workload, got, sizeof got, MSG_DONTWAIT), -1); /* held */
        assert_int_equal(write(server, "hel", 3), 3);
        assert_int_equal(recv(workload, got, sizeof got, MSG_DONTWAIT), -1);
        assert_int_equal(write(server, "lo", 2), 2);
        assert_int_equal(recv(workload, got, sizeof got, MSG_DONTWAIT), 17);
        assert_memory_equal(got, head, 12);
        assert_memory_equal(got + 12, "hello", 5);
    }
}

static void a_great_answer_leaves_whole(void **state)
{
    enum { LEN = 200000 };
    static uint8_t body[LEN], got[LEN + 12];
    static const uint8_t head[12] = {0, 0, 0, 16, 0, 0, 0, 0, 0, 3, 0x0d, 0x40};
    (void)state;
    greet();
    assert_int_equal(write(server, "\0", 1), 1);
    assert_int_equal(recv(workload, got, 1, 0), 1);
    for (size_t i = 0; i < LEN; i++) {
        body[i] = (uint8_t)(i * 7);
    }
    pid_t writer = fork();
    if (writer == 0) {
        bool ok = write(server, head, 12) == 12 && write(server, body, 1000) == 1000 &&
                  write(server, body + 1000, LEN - 1000) == LEN - 1000;
        _exit(!ok);
    }
    assert_int_equal(recv(workload, got, sizeof got, MSG_WAITALL), LEN + 12);
    assert_memory_equal(got + 12, body, LEN);
    assert_int_equal(waitpid(writer, NULL, 0), writer);
}

/* No SIGPIPE: this test would end. */
static void a_client_that_went_gives_an_error(void **state)
{
    (void)state;
    greet();
    close(workload);
    workload = -1;
    assert_int_equal(write(server, "\0", 1), -1);
    assert_int_equal(errno, EPIPE);
}

static void refused_before_the_first_byte(void **state)
{
    (void)state;
    assert_int_equal(send(workload, "\1", 1, 0), 1);
    token_relay_refuse("no sandbox");
    uint8_t byte;
    assert_int_equal(read(server, &byte, 1), 0);
    assert_string_equal(token_relay_end(), "no sandbox");
}

#define ON_A_CONNECTION(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_A_CONNECTION(the_systems_read_of_the_stand_in_gives_nothing),
        ON_A_CONNECTION(other_descriptors_are_the_systems),
        ON_A_CONNECTION(frames_pass_whole_in_pieces_and_in_a_row),
        ON_A_CONNECTION(a_call_that_is_not_served_is_replaced_and_what_follows_is_kept),
        ON_A_CONNECTION(the_client_closes),
        ON_A_CONNECTION(an_end_within_a_frame_is_told),
        ON_A_CONNECTION(a_frame_that_is_refused_ends_it),
        ON_A_CONNECTION(lengths_that_are_too_great_end_it),
        ON_A_CONNECTION(another_writer_ends_it),
        ON_A_CONNECTION(an_answer_leaves_as_one_piece),
        ON_A_CONNECTION(a_great_answer_leaves_whole),
        ON_A_CONNECTION(a_client_that_went_gives_an_error),
        ON_A_CONNECTION(refused_before_the_first_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
