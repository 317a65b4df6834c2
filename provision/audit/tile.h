/* Where things of a log stand and how (C2SP tlog-tiles): "checkpoint", "tile/<L>/<N>[.p/<W>]",
 * "tile/entries/<N>[.p/<W>]". Pure. */
#ifndef PROVISION_AUDIT_TILE_H
#define PROVISION_AUDIT_TILE_H

#include "attestd/base/buf.h"
#include "provision/audit/tree.h"

#define AUDIT_PATH_MAX  80
#define AUDIT_ENTRY_MAX 512 /* bytes of one of our entries (leaf.h) */
#define AUDIT_TILE_MAX  ((size_t)AUDIT_TILE_WIDTH * (2 + AUDIT_ENTRY_MAX))

#define AUDIT_ENTRIES (-1)

struct audit_tile {
    int level; /* AUDIT_ENTRIES, or 0 … 7 */
    uint64_t index;
    unsigned width; /* 256: full; else .p/<width>, 1 … 255 */
};

/* ret has AUDIT_PATH_MAX bytes. */
void audit_tile_path(const struct audit_tile *tile, char *ret);
/* Exactly what audit_tile_path writes; ATT_E_PARSE for all else. */
ATT_MUST_USE enum att_rc audit_tile_parse(const char *path, struct audit_tile *ret_tile,
                                          struct att_err *err);

/* An entry bundle: each entry with a be16 length before it. Appends. */
void audit_bundle_put(struct att_buf *bundle, struct att_slice entry);
/* Takes the next entry off *rest; ATT_E_PARSE (reason "logEntries") when it does not end there. */
ATT_MUST_USE enum att_rc audit_bundle_next(struct att_slice *rest, struct att_slice *ret_entry,
                                           struct att_err *err);

#endif
