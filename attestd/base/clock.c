#include "attestd/base/clock.h"

#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static int64_t read_us(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t att_now_utc_s(void)
{
    return read_us(CLOCK_REALTIME) / 1000000;
}

int64_t att_now_utc_ms(void)
{
    return read_us(CLOCK_REALTIME) / 1000;
}

int64_t att_boottime_ms(void)
{
    return read_us(CLOCK_BOOTTIME) / 1000;
}

int64_t att_boottime_us(void)
{
    return read_us(CLOCK_BOOTTIME);
}

void att_time_text(char ret[ATT_TIME_TEXT_LEN], int64_t utc_s)
{
    time_t t = (time_t)utc_s;
    struct tm tm;
    if (!gmtime_r(&t, &tm) || strftime(ret, ATT_TIME_TEXT_LEN, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0) {
        memcpy(ret, "invalid-time", sizeof "invalid-time");
    }
}

enum att_rc att_time_parse(const char *text, int64_t *ret_utc_s, struct att_err *err)
{
    struct tm tm = {0};
    const char *end = text ? strptime(text, "%Y-%m-%dT%H:%M:%SZ", &tm) : NULL;
    if (!end || *end) {
        return att_fail(err, ATT_E_PARSE, "expected a time such as 2026-11-23T15:53:21Z");
    }
    *ret_utc_s = (int64_t)timegm(&tm);
    return ATT_OK;
}

enum att_rc att_duration_parse(const char *text, int64_t *ret_s, struct att_err *err)
{
    const int64_t longest = (int64_t)10 * 366 * 86400;
    char *end = NULL;
    long long n = text && *text >= '0' && *text <= '9' ? strtoll(text, &end, 10) : 0;
    int64_t unit = 0;
    if (end && n > 0) {
        unit = strcmp(end, "") == 0 || strcmp(end, "s") == 0 ? 1
               : strcmp(end, "m") == 0                       ? 60
               : strcmp(end, "h") == 0                       ? 3600
               : strcmp(end, "d") == 0                       ? 86400
                                                             : 0;
    }
    if (unit == 0 || n > longest / unit) {
        return att_fail(err, ATT_E_PARSE,
                        "expected a duration such as 90s, 5m, 1h or 7d, found \"%.30s\"",
                        text ? text : "");
    }
    *ret_s = (int64_t)n * unit;
    return ATT_OK;
}
