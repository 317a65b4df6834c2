/* PKCS#11 URIs: refused with a message, or each part has its form. */
#include "attestd/conf/p11uri.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const char *text, size_t room, bool needed)
{
    size_t len = strnlen(text, room);
    if (len == room || (needed && len == 0)) {
        abort();
    }
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f) {
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conf_p11uri uri;
    struct att_err err = {0};
    if (conf_p11uri_parse(ATT_SLICE(data, size), &uri, &err) != ATT_OK) {
        if (!err.msg[0]) {
            abort();
        }
        return 0;
    }
    check(uri.token, sizeof uri.token, true);
    check(uri.serial, sizeof uri.serial, true);
    check(uri.manufacturer, sizeof uri.manufacturer, false);
    check(uri.model, sizeof uri.model, false);
    check(uri.pin_source, sizeof uri.pin_source, false);
    if (uri.pin_source[0] && uri.pin_source[0] != '/') {
        abort();
    }
    return 0;
}
