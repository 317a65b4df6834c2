/* The keys of an agent that were replaced while their certificates were still good. A session that
 * holds one signs on with it until the certificate has ended; then the key is destroyed. Pure: the
 * caller has read the clocks, and asks keyd. */
#ifndef ATTESTD_AGENT_RETIRED_H
#define ATTESTD_AGENT_RETIRED_H

#include "attestd/agent/registry.h"

/* The key in force is about to be replaced: it goes to the retired ones, or, when its certificate
 * is over already, to old_key_id; so does the oldest of the retired where there is no room. Nothing
 * when there is no key in force. */
void agent_retired_take(struct agent_record *rec, struct agent_now now);
/* next was planned from now with agent_retired_take, and now may have heard of revocations since:
 * next's retired keys hear of them, too. current_revoked: the certificate that next replaces is. */
void agent_retired_pass_on(struct agent_record *next, const struct agent_record *now,
                           bool current_revoked);
/* A record that was read: when its retired keys end on CLOCK_BOOTTIME. */
void agent_retired_loaded(struct agent_record *rec, struct agent_now now);
/* NULL when this is none of them. */
const struct agent_retired *agent_retired_find(const struct agent_record *rec, const char *key_id);
/* One whose certificate has ended, as soon as either clock says so, or was revoked; NULL: none. */
const struct agent_retired *agent_retired_over(const struct agent_record *rec,
                                               struct agent_now now);
/* False when it was none of them. */
bool agent_retired_drop(struct agent_record *rec, const char *key_id);
/* Milliseconds until the next one ends, 0 when it is now; INT64_MAX when there is none. */
int64_t agent_retired_wait_ms(const struct agent_record *rec, struct agent_now now);

#endif
