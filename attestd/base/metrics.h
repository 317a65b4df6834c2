/* Metrics in the text formats that Prometheus reads (0.0.4, and OpenMetrics 1.0). Whoever has
 * numbers keeps them (atomics, histograms) and writes them when asked; nothing is registered. Label
 * values are words of ours or of the configuration: how many there are must not depend on who
 * calls. */
#ifndef ATTESTD_BASE_METRICS_H
#define ATTESTD_BASE_METRICS_H

#include "attestd/base/buf.h"

#include <stdatomic.h>

/* ---- histograms of times ----------------------------------------------------------------------
 */

#define ATT_HISTOGRAM_BUCKETS 14 /* 0.5 ms … 10 s, and beyond */

/* {0} is an empty one. Any thread. */
struct att_histogram {
    atomic_ullong bucket[ATT_HISTOGRAM_BUCKETS + 1], sum_us;
};
void att_histogram_add(struct att_histogram *histogram, int64_t us);
uint64_t att_histogram_count(const struct att_histogram *histogram);

/* ---- writing ----------------------------------------------------------------------------------
 */

enum att_metrics_form { ATT_METRICS_TEXT, ATT_METRICS_OPEN };
enum att_metric_kind { ATT_COUNTER, ATT_GAUGE, ATT_HISTOGRAM };

struct att_metrics {
    struct att_buf *out;
    enum att_metrics_form form;
    const char *name; /* of the family under way */
    enum att_metric_kind kind;
};

/* By the Accept header of a request (may be NULL); ret_type: the Content-Type that goes with it. */
enum att_metrics_form att_metrics_accept(const char *accept, const char **ret_type);
/* Begins a family: name without "_total", help one line. Its samples follow. */
void att_metrics_family(struct att_metrics *m, const char *name, enum att_metric_kind kind,
                        const char *help);
/* One sample of it. label NULL: none; value is escaped. */
void att_metrics_value(struct att_metrics *m, const char *label, const char *value, double sample);
/* The same with two labels. */
void att_metrics_value2(struct att_metrics *m, const char *label, const char *value,
                        const char *label2, const char *value2, double sample);
void att_metrics_histogram(struct att_metrics *m, const char *label, const char *value,
                           const struct att_histogram *histogram);
/* What ends the text. */
void att_metrics_end(struct att_metrics *m);

#endif
