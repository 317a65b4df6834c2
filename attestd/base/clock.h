/* Clocks. Times of day are UTC seconds (int64_t); intervals run on CLOCK_BOOTTIME, which counts
 * while the machine sleeps. */
#ifndef ATTESTD_BASE_CLOCK_H
#define ATTESTD_BASE_CLOCK_H

#include "attestd/base/err.h"

#include <stddef.h>

int64_t att_now_utc_s(void);
int64_t att_now_utc_ms(void);
int64_t att_boottime_ms(void);
int64_t att_boottime_us(void);

#define ATT_TIME_TEXT_LEN 21 /* "2026-11-23T15:53:21Z" and its NUL */
/* RFC 3339, UTC, whole seconds. */
void att_time_text(char ret[ATT_TIME_TEXT_LEN], int64_t utc_s);
ATT_MUST_USE enum att_rc att_time_parse(const char *text, int64_t *ret_utc_s, struct att_err *err);
/* "90s", "5m", "1h", "7d" or plain seconds; 0 < value ≤ 10 years. */
ATT_MUST_USE enum att_rc att_duration_parse(const char *text, int64_t *ret_s, struct att_err *err);

#endif
