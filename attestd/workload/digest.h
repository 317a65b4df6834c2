/* SHA-256 of files by descriptor, and a bounded cache of those of executables.
 *
 * What is cached, and why that is sound: the kernel lets nobody write to a file while it runs
 * (ETXTBSY), so an executable's content changes between two runs or not at all, and each change
 * moves its ctime, which nobody can set. A ctime of the last two seconds is not trusted (its clock
 * ticks coarsely). A file with fs-verity cannot change at all. Scripts and manifests may be written
 * to at any time: they are read anew each time. */
#ifndef ATTESTD_WORKLOAD_DIGEST_H
#define ATTESTD_WORKLOAD_DIGEST_H

#include "attestd/base/hash.h"

#include <sys/stat.h>

#define WORKLOAD_EXE_MAX   ((uint64_t)1 << 30) /* bytes of an executable */
#define WORKLOAD_FILE_MAX  ((uint64_t)4 << 20) /* bytes of a script or manifest */
#define WORKLOAD_HASH_MS   8000                /* for one file */
#define WORKLOAD_CACHE_MAX 256                 /* executables remembered */

/* fd: a regular file, open for reading (its offset is not used). ATT_E_INVAL notRegular;
 * ATT_E_LIMIT fileTooLarge; ATT_E_TIMEOUT; ATT_E_RETRY fileChanging: it changed while it was read,
 * twice. */
ATT_MUST_USE enum att_rc workload_digest(int fd, uint64_t max, uint8_t ret[ATT_SHA256_LEN],
                                         struct att_err *err);
/* The same with another deadline (CLOCK_BOOTTIME). */
ATT_MUST_USE enum att_rc workload_digest_until(int fd, uint64_t max, int64_t deadline_ms,
                                               uint8_t ret[ATT_SHA256_LEN], struct att_err *err);

/* Thread-safe. */
struct workload_cache;
ATT_MUST_USE enum att_rc workload_cache_new(size_t entries, struct workload_cache **ret_cache,
                                            struct att_err *err);
void workload_cache_free(struct workload_cache *cache);
/* The same for an executable, through the cache. Who asks for a file that another thread is reading
 * waits for that one's result. */
ATT_MUST_USE enum att_rc workload_cache_digest(struct workload_cache *cache, int fd,
                                               uint8_t ret[ATT_SHA256_LEN], struct att_err *err);
struct workload_cache_counts {
    uint64_t hits, misses, evictions;
    size_t used;
};
void workload_cache_count(struct workload_cache *cache, struct workload_cache_counts *ret);

#endif
