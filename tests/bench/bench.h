/* Measuring: medians and 99th percentiles of single operations, printed as rows of JSON for
 * scripts/bench. No verdicts here: machines are noisy. */
#ifndef TESTS_BENCH_BENCH_H
#define TESTS_BENCH_BENCH_H

#include "attestd/base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define BENCH_SAMPLES_MAX 20000
/* Another one before the include: CLOCK_THREAD_CPUTIME_ID where one thread computes and nothing
 * waits. */
#ifndef BENCH_CLOCK
#define BENCH_CLOCK CLOCK_MONOTONIC
#endif

struct bench {
    double us[BENCH_SAMPLES_MAX];
    size_t n;
};

static inline double bench_now_us(void)
{
    struct timespec ts;
    clock_gettime(BENCH_CLOCK, &ts);
    return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static inline void bench_add(struct bench *bench, double us)
{
    if (bench->n < BENCH_SAMPLES_MAX) {
        bench->us[bench->n++] = us;
    }
}

static inline int bench_compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static inline double bench_percentile_ms(struct bench *bench, double p)
{
    if (bench->n == 0) {
        return 0;
    }
    qsort(bench->us, bench->n, sizeof bench->us[0], bench_compare);
    size_t i = (size_t)(p * (double)(bench->n - 1) + 0.5);
    return bench->us[i] / 1000.0;
}

/* floor may be NULL. */
static inline void bench_row(const char *name, struct bench *bench, struct bench *floor_bench)
{
    printf("{\"name\":\"%s\",\"unit\":\"ms\",\"p50\":%.4f,\"p99\":%.4f", name,
           bench_percentile_ms(bench, 0.5), bench_percentile_ms(bench, 0.99));
    if (floor_bench) {
        printf(",\"floor_p50\":%.4f", bench_percentile_ms(floor_bench, 0.5));
    }
    printf(",\"n\":%zu}\n", bench->n);
}

/* Evaluates an enum att_rc expression n times, each time timed. */
#define BENCH_RUN(bench, times, expression)                                                        \
    do {                                                                                           \
        (bench)->n = 0;                                                                            \
        for (size_t bench_i = 0; bench_i < (times); bench_i++) {                                   \
            double bench_t = bench_now_us();                                                       \
            enum att_rc bench_rc = (expression);                                                   \
            bench_add((bench), bench_now_us() - bench_t);                                          \
            if (bench_rc != ATT_OK) {                                                              \
                fprintf(stderr, "%s: %s\n", #expression, att_rc_name(bench_rc));                   \
                exit(1);                                                                           \
            }                                                                                      \
        }                                                                                          \
    } while (0)

#endif
