/* Entries: what the file's reader accepts, the JSON's reader accepts, and both mean the same. */
#include "attestd/base/json.h"
#include "attestd/conf/entries.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct conf_errors errors;
    struct conf_entries *entries = NULL, *again = NULL;
    json_t *json = NULL, *second = NULL;
    enum att_rc rc = conf_entries_parse(ATT_SLICE(data, size), &entries, &errors, NULL);
    if ((rc == ATT_OK) != (entries != NULL) || (rc == ATT_OK) != (errors.n == 0)) {
        abort();
    }
    if (rc == ATT_OK) {
        if (conf_entries_to_json(entries, &json, NULL) != ATT_OK ||
            conf_entries_from_json(json, &again, NULL) != ATT_OK ||
            conf_entries_to_json(again, &second, NULL) != ATT_OK || !json_equal(json, second)) {
            abort();
        }
        json_decref(json);
        json_decref(second);
        conf_entries_free(again);
        conf_entries_free(entries);
    } else if (att_json_parse(ATT_SLICE(data, size), CONF_FILE_MAX, &json, NULL) == ATT_OK) {
        struct conf_entry *entry = NULL;
        if (conf_entry_from_json(json, &entry, NULL) == ATT_OK) {
            conf_entry_free(entry);
        }
        json_decref(json);
    }
    return 0;
}
