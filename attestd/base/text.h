/* Text that came from elsewhere, on its way to a terminal, a log or JSON. */
#ifndef ATTESTD_BASE_TEXT_H
#define ATTESTD_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes of the character that *s begins with, 1 … 4. ret_ok: it is well-formed UTF-8 (RFC 3629) and
 * harmless to show, that is no C0 or C1 control, DEL, line or paragraph separator, or override of
 * the writing direction. What is not well-formed counts as one byte. s must not be at its NUL. */
size_t att_text_next(const char *s, bool *ret_ok);

/* In place: each character that is not ok becomes '?'. A sequence that was cut off at the end, too:
 * the result is always valid UTF-8. */
void att_text_clean(char *text);

#endif
