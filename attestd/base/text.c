#include "attestd/base/text.h"

#include <stdint.h>
#include <string.h>

static bool harmless(uint32_t point)
{
    return point >= 0x20 && !(point >= 0x7f && point <= 0x9f) &&
           !(point >= 0x2028 && point <= 0x202e) && !(point >= 0x2066 && point <= 0x2069);
}

size_t att_text_next(const char *s, bool *ret_ok)
{
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    uint8_t c = (uint8_t)*s;
    if (c < 0x80) {
        *ret_ok = harmless(c);
        return 1;
    }
    *ret_ok = false;
    if (c < 0xc2 || c > 0xf4) {
        return 1;
    }
    size_t more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
    uint32_t point = c & (0x3fu >> more);
    for (size_t k = 1; k <= more; k++) {
        uint8_t next = (uint8_t)s[k]; /* a NUL is no continuation: nothing is read behind it */
        if ((next & 0xc0) != 0x80) {
            return 1;
        }
        point = point << 6 | (next & 0x3fu);
    }
    if (point < least[more] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff)) {
        return 1;
    }
    *ret_ok = harmless(point);
    return more + 1;
}

void att_text_clean(char *text)
{
    char *to = text;
    for (const char *from = text; *from;) {
        bool ok;
        size_t len = att_text_next(from, &ok);
        if (ok) {
            memmove(to, from, len);
            to += len;
        } else {
            *to++ = '?';
        }
        from += len;
    }
    *to = 0;
}
