/* A ticket's MAC key leaves no copy in this process's memory. */
#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "attestd/host/ticket.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define NEEDLE 24
#define MASK   0x5a

/* The needle is kept masked, so that it does not find itself. */
struct needle {
    uint8_t masked[NEEDLE];
};

static uint8_t window[65536 + NEEDLE];

static struct needle hide(const void *bytes)
{
    struct needle n;
    for (size_t i = 0; i < NEEDLE; i++) {
        n.masked[i] = ((const uint8_t *)bytes)[i] ^ MASK;
    }
    return n;
}

static bool matches(const uint8_t *at, const struct needle *n)
{
    size_t i = 0;
    while (i < NEEDLE && (at[i] ^ MASK) == n->masked[i]) {
        i++;
    }
    return i == NEEDLE;
}

static size_t count_in(int mem, uintptr_t start, uintptr_t end, const struct needle *n)
{
    size_t found = 0;
    for (uintptr_t at = start; at < end; at += 65536) {
        ssize_t got = pread(mem, window, sizeof(window), (off_t)at);
        for (ssize_t i = 0; i + NEEDLE <= got && i < 65536; i++) {
            found += matches(window + i, n);
        }
    }
    memset(window, 0, sizeof(window));
    return found;
}

/* In every writable mapping but the window's own and the sanitizer's shadow. */
static size_t count(const struct needle *n)
{
    char line[512], mode[8];
    size_t found = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    int mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
    assert_non_null(maps);
    assert_true(mem >= 0);
    while (fgets(line, sizeof(line), maps)) {
        unsigned long start, end;
        if (sscanf(line, "%lx-%lx %7s", &start, &end, mode) != 3 || mode[0] != 'r' ||
            mode[1] != 'w' || end - start > ((unsigned long)256 << 20) ||
            ((uintptr_t)window >= start && (uintptr_t)window < end)) {
            continue;
        }
        found += count_in(mem, start, end, n);
    }
    close(mem);
    fclose(maps);
    return found;
}

static void test_mac_key_is_wiped(void **state)
{
    (void)state;
    uint8_t key[32];
    char text[64], path[] = "/tmp/att-secret.XXXXXX";
    att_autobuf b64 = {0};
    FILE *random = fopen("/dev/urandom", "r");
    assert_non_null(random);
    setvbuf(random, NULL, _IONBF, 0);
    assert_int_equal(fread(key, 1, sizeof(key), random), sizeof(key));
    fclose(random);
    att_buf_b64u(&b64, ATT_SLICE_ARRAY(key));
    snprintf(text, sizeof(text), "%s", att_buf_cstr(&b64));
    struct needle raw = hide(key), coded = hide(text);
    int fd = mkstemp(path);
    static const char head[] = "{\"url\":\"https://127.0.0.1:1/acme\",\"kid\":\"k\",\"caSha256\":\""
                               "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\""
                               ",\"macKey\":\"";
    assert_int_equal(write(fd, head, sizeof(head) - 1), sizeof(head) - 1);
    assert_int_equal(write(fd, text, 43), 43);
    assert_int_equal(write(fd, "\"}", 2), 2);
    close(fd);
    assert_true(count(&coded) >= 1); /* the search does find */
    att_wipe(b64.ptr, b64.cap);
    att_wipe(text, sizeof(text));
    att_wipe(key, sizeof(key));
    assert_int_equal(count(&coded), 0);
    assert_int_equal(count(&raw), 0);

    struct host_ticket ticket = {0};
    assert_int_equal(host_ticket_load(path, &ticket, NULL), ATT_OK);
    assert_int_equal(ticket.mac_key.len, 32);
    assert_int_equal(count(&coded), 0);
    assert_true(count(&raw) <= 1); /* the locked copy; 0 where the kernel keeps it secret */
    host_ticket_done(&ticket);
    assert_int_equal(count(&raw), 0);
    unlink(path);
}

/* A buffer that grew with a secret in it, as a control socket's frame with a ticket does. */
static void test_buffers_are_wiped(void **state)
{
    (void)state;
    uint8_t key[32];
    FILE *random = fopen("/dev/urandom", "r");
    assert_non_null(random);
    setvbuf(random, NULL, _IONBF, 0);
    assert_int_equal(fread(key, 1, sizeof(key), random), sizeof(key));
    fclose(random);
    struct needle raw = hide(key);
    struct att_buf buf = {0};
    att_buf_put_str(&buf, "an allocator writes over the first bytes of what is freed: ");
    att_buf_put(&buf, key, sizeof(key));
    for (int i = 0; i < 5000; i++) {
        att_buf_u8(&buf, 'x');
    }
    att_wipe(key, sizeof(key));
    assert_int_equal(count(&raw), 1); /* growing left no copy behind */
    att_buf_done(&buf);
    assert_int_equal(count(&raw), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_mac_key_is_wiped),
                                       cmocka_unit_test(test_buffers_are_wiped)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
