/* What a peer may ask of a connection that costs it little and us much: resets, SETTINGS, PING,
 * empty frames. Each costs points; time and useful work bring some back. Pure. */
#ifndef ATTESTD_SPIFFE_BUDGET_H
#define ATTESTD_SPIFFE_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

#define GRPC_BUDGET_MAX      1000 /* points at the beginning, and at most */
#define GRPC_BUDGET_A_SECOND 100
#define GRPC_BUDGET_SENT     4 /* for each frame of a message that was sent: a reader acknowledges */

/* For an answer of its own to a message of a stream of requests: who asks one after the other and
 * reads the answers, with the frames that his library adds, may do so as he may make calls. */
#define GRPC_BUDGET_ANSWER 6

/* What one frame costs. A call that is cancelled (RST_STREAM) before it had a message is normal now
 * and then; two hundred at once are CVE-2023-44487. After a message it costs nothing. */
#define GRPC_COST_CALL     1 /* an answered one brings more back */
#define GRPC_COST_MESSAGE  4 /* after the first of a call; an answer pays for it */
#define GRPC_COST_RESET    5
#define GRPC_COST_SETTINGS 20
#define GRPC_COST_SMALL    2  /* PING, WINDOW_UPDATE, PRIORITY, what is not known */
#define GRPC_COST_EMPTY    10 /* DATA without data that ends nothing */

/* And what was made for one message alone: so many bytes a point. The frames that it is sent in
 * bring more back. */
#define GRPC_BYTES_A_POINT 16384

struct grpc_budget {
    int64_t points, filled_at_ms;
};

void grpc_budget_init(struct grpc_budget *budget, int64_t now_ms);
/* False: spent. */
bool grpc_budget_take(struct grpc_budget *budget, int cost, int64_t now_ms);
void grpc_budget_give(struct grpc_budget *budget, int points);

#endif
