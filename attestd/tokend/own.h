/* Memory that token processes do not inherit. Whatever tokend changes after a fork stays behind in
 * the child as a page of its own; so what changes with every request lies here and not on the heap,
 * and a token that is taken over finds no table of other callers. */
#ifndef TOKEND_OWN_H
#define TOKEND_OWN_H

#include "attestd/base/buf.h"

/* Zeroed pages; NULL: no memory. */
void *tokend_own_new(size_t len);
void tokend_own_free(void *ptr, size_t len); /* NULL is fine */

/* A buffer whose whole room is such pages, so that it never goes to the heap (of which only what is
 * touched counts). failed: no memory. Never att_buf_done, but tokend_own_buf_free. */
struct att_buf tokend_own_buf(size_t max);
void tokend_own_buf_free(struct att_buf *buf);

/* Items of one size, handed out zeroed; the pages are kept for the next. {item size} at first. */
struct tokend_slab {
    size_t item;
    void *free;
};
void *tokend_slab_take(struct tokend_slab *slab);
void tokend_slab_give(struct tokend_slab *slab, void *item);

#endif
