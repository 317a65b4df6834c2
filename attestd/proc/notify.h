/* What a daemon tells systemd (sd_notify(3)). Without $NOTIFY_SOCKET all of these do nothing. */
#ifndef ATTESTD_PROC_NOTIFY_H
#define ATTESTD_PROC_NOTIFY_H

#include "attestd/base/err.h"

void proc_notify_ready(const char *status);
void proc_notify_status(const char *status); /* one line; control characters become spaces */
void proc_notify_reloading(void);            /* RELOADING=1 with MONOTONIC_USEC; READY ends it */
void proc_notify_stopping(const char *status);
void proc_notify_watchdog(void);
/* How often the watchdog wants to hear from us: half of WATCHDOG_USEC; 0 when there is none. */
int64_t proc_notify_watchdog_period_ms(void);
/* The listening unix socket of this path that systemd handed over (LISTEN_FDS), made non-blocking;
 * the caller's to close. -1: none. */
int proc_notify_socket(const char *path);

#endif
