#include "attestd/base/metrics.h"

#include <string.h>

static const int64_t bounds_us[ATT_HISTOGRAM_BUCKETS] = {500,     1000,    2500,    5000,    10000,
                                                         25000,   50000,   100000,  250000,  500000,
                                                         1000000, 2500000, 5000000, 10000000};
static const char *const bounds[ATT_HISTOGRAM_BUCKETS] = {
    "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05",
    "0.1",    "0.25",  "0.5",    "1.0",   "2.5",  "5.0",   "10.0"};

void att_histogram_add(struct att_histogram *histogram, int64_t us)
{
    size_t i = 0;
    us = us < 0 ? 0 : us;
    while (i < ATT_HISTOGRAM_BUCKETS && us > bounds_us[i]) {
        i++;
    }
    atomic_fetch_add_explicit(&histogram->bucket[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&histogram->sum_us, (unsigned long long)us, memory_order_relaxed);
}

uint64_t att_histogram_count(const struct att_histogram *histogram)
{
    uint64_t n = 0;
    for (size_t i = 0; i <= ATT_HISTOGRAM_BUCKETS; i++) {
        n += atomic_load_explicit(&histogram->bucket[i], memory_order_relaxed);
    }
    return n;
}

#define OPEN_TYPE "application/openmetrics-text"

enum att_metrics_form att_metrics_accept(const char *accept, const char **ret_type)
{
    bool open = accept && strstr(accept, OPEN_TYPE);
    *ret_type = open ? OPEN_TYPE "; version=1.0.0; charset=utf-8"
                     : "text/plain; version=0.0.4; charset=utf-8";
    return open ? ATT_METRICS_OPEN : ATT_METRICS_TEXT;
}

void att_metrics_family(struct att_metrics *m, const char *name, enum att_metric_kind kind,
                        const char *help)
{
    static const char *const words[] = {"counter", "gauge", "histogram"};
    m->name = name;
    m->kind = kind;
    /* OpenMetrics names a counter's family without the suffix that its samples have. */
    const char *suffix = kind == ATT_COUNTER && m->form == ATT_METRICS_TEXT ? "_total" : "";
    att_buf_printf(m->out, "# HELP %s%s %s\n# TYPE %s%s %s\n", name, suffix, help, name, suffix,
                   words[kind]);
}

/* Backslash, quote and newline are the three that the format escapes. */
static void put_label(struct att_buf *out, const char *label, const char *value)
{
    att_buf_printf(out, "%s=\"", label);
    for (; *value; value++) {
        if (*value == '\\' || *value == '"') {
            att_buf_u8(out, '\\');
        }
        if (*value == '\n') {
            att_buf_put_str(out, "\\n");
        } else {
            att_buf_u8(out, (uint8_t)*value);
        }
    }
    att_buf_u8(out, '"');
}

static void put_number(struct att_buf *out, double sample)
{
    if (sample > -9e15 && sample < 9e15 && (double)(long long)sample == sample) {
        att_buf_printf(out, " %lld\n", (long long)sample);
    } else {
        att_buf_printf(out, " %.6f\n", sample);
    }
}

void att_metrics_value2(struct att_metrics *m, const char *label, const char *value,
                        const char *label2, const char *value2, double sample)
{
    att_buf_printf(m->out, "%s%s", m->name, m->kind == ATT_COUNTER ? "_total" : "");
    if (label) {
        att_buf_u8(m->out, '{');
        put_label(m->out, label, value);
        if (label2) {
            att_buf_u8(m->out, ',');
            put_label(m->out, label2, value2);
        }
        att_buf_u8(m->out, '}');
    }
    put_number(m->out, sample);
}

void att_metrics_value(struct att_metrics *m, const char *label, const char *value, double sample)
{
    att_metrics_value2(m, label, value, NULL, NULL, sample);
}

static void put_series(struct att_metrics *m, const char *suffix, const char *label,
                       const char *value, const char *bound)
{
    att_buf_printf(m->out, "%s_%s", m->name, suffix);
    if (!label && !bound) {
        return;
    }
    att_buf_u8(m->out, '{');
    if (label) {
        put_label(m->out, label, value);
    }
    if (bound) {
        att_buf_printf(m->out, "%sle=\"%s\"", label ? "," : "", bound);
    }
    att_buf_u8(m->out, '}');
}

/* Counts of the buckets once, so that the last is the sum of all. */
void att_metrics_histogram(struct att_metrics *m, const char *label, const char *value,
                           const struct att_histogram *histogram)
{
    uint64_t n = 0;
    for (size_t i = 0; i <= ATT_HISTOGRAM_BUCKETS; i++) {
        n += atomic_load_explicit(&histogram->bucket[i], memory_order_relaxed);
        put_series(m, "bucket", label, value, i < ATT_HISTOGRAM_BUCKETS ? bounds[i] : "+Inf");
        att_buf_printf(m->out, " %llu\n", (unsigned long long)n);
    }
    uint64_t us = atomic_load_explicit(&histogram->sum_us, memory_order_relaxed);
    put_series(m, "sum", label, value, NULL);
    att_buf_printf(m->out, " %llu.%06llu\n", (unsigned long long)(us / 1000000),
                   (unsigned long long)(us % 1000000));
    put_series(m, "count", label, value, NULL);
    att_buf_printf(m->out, " %llu\n", (unsigned long long)n);
}

void att_metrics_end(struct att_metrics *m)
{
    if (m->form == ATT_METRICS_OPEN) {
        att_buf_put_str(m->out, "# EOF\n");
    }
}
