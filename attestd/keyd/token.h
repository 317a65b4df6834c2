/* KEY_TOKEN (attestd/proc/keyd_token.h). */
#ifndef ATTESTD_KEYD_TOKEN_H
#define ATTESTD_KEYD_TOKEN_H

#include "attestd/keyd/internal.h"

KEYD_OPERATION(key_token);

#endif
