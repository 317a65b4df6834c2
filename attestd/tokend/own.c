#include "attestd/tokend/own.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define SLAB_LEN ((size_t)64 << 10)
#define ALIGN    16

void *tokend_own_new(size_t len)
{
    void *ptr = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ptr == MAP_FAILED) {
        return NULL;
    }
    if (madvise(ptr, len, MADV_DONTFORK) != 0) {
        munmap(ptr, len);
        return NULL;
    }
    return ptr;
}

void tokend_own_free(void *ptr, size_t len)
{
    if (ptr) {
        munmap(ptr, len);
    }
}

struct att_buf tokend_own_buf(size_t max)
{
    uint8_t *ptr = tokend_own_new(max);
    return (struct att_buf){.ptr = ptr, .cap = ptr ? max : 0, .max = max, .failed = !ptr};
}

void tokend_own_buf_free(struct att_buf *buf)
{
    tokend_own_free(buf->ptr, buf->cap);
    *buf = (struct att_buf){0};
}

void *tokend_slab_take(struct tokend_slab *slab)
{
    size_t item = (slab->item + ALIGN - 1) / ALIGN * ALIGN;
    if (!slab->free) {
        uint8_t *pages = tokend_own_new(SLAB_LEN);
        for (size_t at = 0; pages && at + item <= SLAB_LEN; at += item) {
            tokend_slab_give(slab, pages + at);
        }
    }
    void *taken = slab->free;
    if (taken) {
        memcpy(&slab->free, taken, sizeof slab->free);
        memset(taken, 0, item);
    }
    return taken;
}

void tokend_slab_give(struct tokend_slab *slab, void *item)
{
    memcpy(item, &slab->free, sizeof slab->free);
    slab->free = item;
}
