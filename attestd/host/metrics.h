/* What a host counts, in the text formats that Prometheus reads, and whether its agents have what
 * they need: GET /metrics, /live and /ready on a listener of its own (docs/OPERATIONS.md), only
 * where metrics_listen says so. In the clear and without authentication: names of agents are among
 * the labels, nothing secret is. */
#ifndef HOST_METRICS_H
#define HOST_METRICS_H

#include "attestd/host/internal.h"

struct web_plain;
/* *ret_server NULL: the configuration wants none. */
ATT_MUST_USE enum att_rc host_metrics_start(struct host *host, struct web_plain **ret_server,
                                            struct att_err *err);

#endif
