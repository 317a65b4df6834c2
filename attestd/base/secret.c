#include "attestd/base/secret.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static void *map_memfd_secret(size_t len)
{
#ifdef SYS_memfd_secret
    int fd = (int)syscall(SYS_memfd_secret, 0);
    if (fd < 0) {
        return MAP_FAILED;
    }
    void *at = MAP_FAILED;
    if (ftruncate(fd, (off_t)len) == 0) {
        at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    close(fd);
    return at;
#else
    (void)len;
    return MAP_FAILED;
#endif
}

enum att_rc att_secret_new(struct att_secret *ret_secret, size_t len, struct att_err *err)
{
    if (len == 0 || len > (1u << 20)) {
        return att_fail(err, ATT_E_INVAL, "a secret of %zu bytes", len);
    }
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t mapped = (len + page - 1) / page * page;
    bool locked = true;
    void *at = map_memfd_secret(mapped);
    if (at == MAP_FAILED) {
        at = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED) {
            return att_fail_errno(err, ATT_E_NOMEM, "map %zu bytes for a secret", mapped);
        }
        locked = mlock(at, mapped) == 0;
        (void)madvise(at, mapped, MADV_DONTDUMP);
        (void)madvise(at, mapped, MADV_WIPEONFORK);
    }
    *ret_secret = (struct att_secret){at, len, mapped, locked};
    return ATT_OK;
}

enum att_rc att_secret_copy(struct att_secret *ret_secret, struct att_slice bytes,
                            struct att_err *err)
{
    enum att_rc rc = att_secret_new(ret_secret, bytes.len, err);
    if (rc == ATT_OK) {
        memcpy(ret_secret->ptr, bytes.ptr, bytes.len);
    }
    return rc;
}

void att_secret_done(struct att_secret *secret)
{
    if (secret && secret->ptr) {
        OPENSSL_cleanse(secret->ptr, secret->mapped);
        munmap(secret->ptr, secret->mapped);
        *secret = (struct att_secret){0};
    }
}

struct att_slice att_secret_slice(const struct att_secret *secret)
{
    return (struct att_slice){secret->ptr, secret->len};
}

void att_wipe(void *bytes, size_t len)
{
    OPENSSL_cleanse(bytes, len);
}

/* Not instrumented: a sanitizer would put the array elsewhere than on the stack. */
__attribute__((noinline, no_sanitize_address)) void att_wipe_stack(void)
{
    uint8_t below[65536];
    OPENSSL_cleanse(below, sizeof below);
}
