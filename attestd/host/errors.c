#include "attestd/host/internal.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <sys/random.h>

static const char *const phases[] = {
    [HOST_STARTING] = "starting",   [HOST_NO_KEYD] = "noKeyd",  [HOST_NO_ISSUER] = "noIssuer",
    [HOST_ENROLLING] = "enrolling", [HOST_PENDING] = "pending", [HOST_ENROLLED] = "enrolled",
};

const char *host_phase_name(enum host_phase phase)
{
    return (unsigned)phase < sizeof(phases) / sizeof(phases[0]) ? phases[phase] : "?";
}

/* Bytes that came from a peer become plain text, so that the record can be written as JSON. */
static void copy_text(char *ret, size_t size, const char *text)
{
    size_t i = 0;
    for (; text[i] && i + 1 < size; i++) {
        unsigned char c = (unsigned char)text[i];
        ret[i] = c < 0x20 || c > 0x7e ? '?' : (char)c;
    }
    ret[i] = '\0';
}

static atomic_uint_fast64_t noted;

uint64_t host_error_newest(void)
{
    return atomic_load(&noted);
}

void host_error_note(struct agent_error *ret_error, const struct att_err *err)
{
    ret_error->number = atomic_fetch_add(&noted, 1) + 1;
    ret_error->at = att_now_utc_s();
    copy_text(ret_error->code, sizeof(ret_error->code), att_rc_name(err->rc));
    copy_text(ret_error->reason, sizeof(ret_error->reason), err->reason);
    copy_text(ret_error->message, sizeof(ret_error->message), err->msg);
}

/* For jitter only. */
uint32_t host_random(void)
{
    uint32_t value;
    if (getrandom(&value, sizeof(value), GRND_NONBLOCK) != (ssize_t)sizeof(value)) {
        value = (uint32_t)att_boottime_us() * 2654435761U;
    }
    return value;
}
