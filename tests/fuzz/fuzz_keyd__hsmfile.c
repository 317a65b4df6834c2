/* keyd's file of a key in the HSM: refused, or every part has its form. */
#include "attestd/keyd/internal.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct keyd_hsm_file file;
    enum att_keytype type = ATT_KEYTYPE_NONE;
    if (keyd_hsm_file_parse(ATT_SLICE(data, size), &file, NULL) != ATT_OK) {
        return 0;
    }
    if (!proc_key_id_ok(att_slice_str(file.id)) || !proc_agent_name_ok(att_slice_str(file.agent)) ||
        (!file.waste &&
         (att_keytype_of_spki(ATT_SLICE(file.spki, file.spki_len), &type, NULL) != ATT_OK ||
          type != file.type))) {
        abort();
    }
    return 0;
}
