/* One line per event, key=value or JSON, to stderr (the journal). Only the daemons' edges log;
 * libraries return errors. Control characters and quotes in values are escaped, so that nobody
 * forges a line. Safe from any thread: one write(2) per line. */
#ifndef ATTESTD_BASE_LOG_H
#define ATTESTD_BASE_LOG_H

#include "attestd/base/err.h"

#include <stdbool.h>
#include <stddef.h>

enum att_log_level { ATT_DEBUG, ATT_INFO, ATT_WARN, ATT_ERROR };

struct att_log_field {
    const char *key; /* NULL ends the list */
    const char *str; /* NULL: the number is meant */
    int64_t num;
};

static inline const char *att_log_text(const char *s)
{
    return s ? s : "";
}

#define ATT_S(k, v)                                                                                \
    {                                                                                              \
        (k), att_log_text(v), 0                                                                    \
    }
#define ATT_N(k, v)                                                                                \
    {                                                                                              \
        (k), NULL, (int64_t)(v)                                                                    \
    }

/* Each line that this thread writes from now on has "request" with this id (up to 63 characters;
 * NULL: no more). What belongs to one request is found by it. */
void att_log_request(const char *id);
const char *att_log_request_id(void); /* "" when there is none */
void att_log_setup(const char *program, enum att_log_level least, bool json);
void att_log_level(enum att_log_level least); /* from now on */
void att_log_fields(enum att_log_level level, const char *event,
                    const struct att_log_field *fields);
/* att_log(ATT_INFO, "agent.renewed", ATT_S("agent", name), ATT_N("ms", 12)) */
#define att_log(level, event, ...)                                                                 \
    att_log_fields((level), (event), (const struct att_log_field[]){__VA_ARGS__, {NULL, NULL, 0}})
/* The event with rc, reason, message and origin of err. */
void att_log_err(enum att_log_level level, const char *event, const struct att_err *err);

#endif
