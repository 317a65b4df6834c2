/* Area "manifest": 100 files of 1 MiB, measured as whod does, one after the other: read and hashed
 * each time, remembered from before, and by fs-verity where this file system has it; beside SHA-256
 * of as many bytes in memory. argv: samples, a folder to make them in. */
#include "attestd/base/hash.h"
#include "attestd/base/io.h"
#include "attestd/workload/measure.h"
#include "tests/bench/bench.h"

#include <fcntl.h>
#include <linux/fsverity.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define FILES 100
#define SIZE  ((size_t)1 << 20)

static struct bench ours, bare;
static uint8_t content[SIZE];
static char paths[FILES][300];

static enum att_rc hash_all(void)
{
    uint8_t digest[ATT_SHA256_LEN];
    for (size_t i = 0; i < FILES; i++) {
        att_sha256(digest, ATT_SLICE(content, SIZE));
    }
    return ATT_OK;
}

static enum att_rc measure_all(int root, struct workload_measures *measures, bool by_verity)
{
    const struct workload_measuring how = {
        .measures = measures, .max_age_s = 3600, .deadline_ms = INT64_MAX, .size = SIZE};
    for (size_t i = 0; i < FILES; i++) {
        struct workload_measured seen;
        workload_measure(root, paths[i], &how, &seen);
        if (by_verity ? !seen.has_verity : !seen.has_sha256) {
            return ATT_E_IO;
        }
    }
    return ATT_OK;
}

static void make_files(const char *dir)
{
    memset(content, 0x5a, sizeof content);
    for (size_t i = 0; i < FILES; i++) {
        struct att_err err = {0};
        snprintf(paths[i], sizeof paths[i], "%.200s/file-%zu", dir, i);
        content[0] = (uint8_t)i;
        if (att_io_write_file(paths[i], ATT_SLICE(content, SIZE), 0644, &err) != ATT_OK) {
            fprintf(stderr, "bench_workload__manifest: %s\n", err.msg);
            exit(1);
        }
    }
}

static bool enable_verity(void)
{
    const struct fsverity_enable_arg arg = {
        .version = 1, .hash_algorithm = FS_VERITY_HASH_ALG_SHA256, .block_size = 4096};
    for (size_t i = 0; i < FILES; i++) {
        att_autofd fd = open(paths[i], O_RDONLY | O_CLOEXEC);
        if (fd < 0 || ioctl(fd, FS_IOC_ENABLE_VERITY, &arg) != 0) {
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    struct workload_measures *measures = NULL;
    if (argc != 3 || workload_measures_new(&measures, NULL) != ATT_OK) {
        fprintf(stderr, "usage: %s SAMPLES FOLDER\n", argv[0]);
        return 2;
    }
    size_t n = (size_t)strtoul(argv[1], NULL, 10) / 50 + 3;
    att_autofd root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    make_files(argv[2]);
    BENCH_RUN(&bare, n, hash_all());
    BENCH_RUN(&ours, n, measure_all(root, NULL, false));
    bench_row("manifest/100-files-read", &ours, &bare);
    sleep(3); /* what changed in the last two seconds is not remembered */
    if (measure_all(root, measures, false) == ATT_OK) {
        BENCH_RUN(&ours, n, measure_all(root, measures, false));
        bench_row("manifest/100-files-remembered", &ours, &bare);
    }
    if (enable_verity()) {
        BENCH_RUN(&ours, n, measure_all(root, NULL, true));
        bench_row("manifest/100-files-verity", &ours, &bare);
    } else {
        fprintf(stderr, "manifest: no row for fs-verity: %s has none\n", argv[2]);
    }
    workload_measures_free(measures);
    return 0;
}
