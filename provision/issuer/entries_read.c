/* Entries, read once: an issuance looks at the same one four times. Found by the text of the row
 * and by nothing else; the row is read each time, so that a changed entry is never judged by from
 * memory. */
#include "provision/issuer/context.h"

#include <stdlib.h>
#include <string.h>

#define TEXT_MAX ((size_t)8192) /* of one that is kept: longer ones are read each time */

struct issuer_entries {
    pthread_mutex_t lock;
    struct issuer_entry *slots[ISSUER_ENTRIES_KEPT];
};

struct issuer_entries *issuer_entries_new(void)
{
    struct issuer_entries *entries = calloc(1, sizeof *entries);
    if (entries) {
        pthread_mutex_init(&entries->lock, NULL);
    }
    return entries;
}

void issuer_entries_free(struct issuer_entries *entries)
{
    for (size_t i = 0; entries && i < ISSUER_ENTRIES_KEPT; i++) {
        issuer_entry_put(entries->slots[i]);
    }
    if (entries) {
        pthread_mutex_destroy(&entries->lock);
    }
    free(entries);
}

void issuer_entry_put(struct issuer_entry *entry)
{
    if (entry && atomic_fetch_sub(&entry->refs, 1) == 1) {
        conf_entry_free(entry->v);
        free(entry->text);
        free(entry);
    }
}

void issuer_entry_cleanup(struct issuer_entry **entry)
{
    issuer_entry_put(*entry);
    *entry = NULL;
}

/* FNV-1a: where a text belongs. Whoever makes texts of one place has them replace each other. */
static struct issuer_entry **slot_of(struct issuer_entries *entries, const char *text)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (const char *c = text; *c; c++) {
        hash = (hash ^ (uint8_t)*c) * 0x100000001b3;
    }
    return &entries->slots[(hash ^ hash >> 32) % ISSUER_ENTRIES_KEPT];
}

static struct issuer_entry *look_up(struct issuer_entries *entries, const char *text)
{
    pthread_mutex_lock(&entries->lock);
    struct issuer_entry *found = *slot_of(entries, text);
    if (found && strcmp(found->text, text) == 0) {
        atomic_fetch_add(&found->refs, 1);
    } else {
        found = NULL;
    }
    pthread_mutex_unlock(&entries->lock);
    return found;
}

static void keep(struct issuer_entries *entries, struct issuer_entry *entry)
{
    if (strlen(entry->text) > TEXT_MAX) {
        return;
    }
    atomic_fetch_add(&entry->refs, 1);
    pthread_mutex_lock(&entries->lock);
    struct issuer_entry **slot = slot_of(entries, entry->text), *old = *slot;
    *slot = entry;
    pthread_mutex_unlock(&entries->lock);
    issuer_entry_put(old);
}

enum att_rc issuer_entry_read(struct issuer_entries *entries, const char *text,
                              struct issuer_entry **ret_entry, struct att_err *err)
{
    struct issuer_entry *found = look_up(entries, text);
    if (found) {
        *ret_entry = found;
        return ATT_OK;
    }
    issuer_autoentry *entry = calloc(1, sizeof *entry);
    if (!entry) {
        return att_fail(err, ATT_E_NOMEM, "no memory for an entry");
    }
    atomic_init(&entry->refs, 1);
    entry->text = strdup(text);
    att_autojson *json = issuer_json(text);
    enum att_rc rc = entry->text ? conf_entry_from_json(json, &entry->v, err)
                                 : att_fail(err, ATT_E_NOMEM, "no memory for an entry");
    if (rc) {
        return rc;
    }
    keep(entries, entry);
    *ret_entry = entry;
    entry = NULL;
    return ATT_OK;
}
