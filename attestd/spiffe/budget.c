#include "attestd/spiffe/budget.h"

void grpc_budget_init(struct grpc_budget *budget, int64_t now_ms)
{
    *budget = (struct grpc_budget){GRPC_BUDGET_MAX, now_ms};
}

void grpc_budget_give(struct grpc_budget *budget, int points)
{
    budget->points += points;
    budget->points = budget->points > GRPC_BUDGET_MAX ? GRPC_BUDGET_MAX : budget->points;
}

bool grpc_budget_take(struct grpc_budget *budget, int cost, int64_t now_ms)
{
    int64_t earned = (now_ms - budget->filled_at_ms) * GRPC_BUDGET_A_SECOND / 1000;
    if (earned > 0) { /* below a point the time stays to be counted */
        budget->filled_at_ms = now_ms;
        grpc_budget_give(budget, earned > GRPC_BUDGET_MAX ? GRPC_BUDGET_MAX : (int)earned);
    }
    budget->points -= cost;
    return budget->points >= 0;
}
