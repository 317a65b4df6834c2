/* SoftHSM tokens in a folder of the test's own. */
#ifndef ATT_TESTS_SUPPORT_SOFTHSM_H
#define ATT_TESTS_SUPPORT_SOFTHSM_H

#include <stdbool.h>

#define SOFTHSM_MODULE "/usr/lib/softhsm/libsofthsm2.so"
#define SOFTHSM_PIN    "1234-abcd"
#define SOFTHSM_SO_PIN "5678-efgh"

/* Is softhsm2 installed? */
bool softhsm_available(void);
/* A new folder with softhsm2.conf, which SOFTHSM2_CONF then names. */
void softhsm_init(char ret_dir[64]);
void softhsm_done(const char *dir);
/* Makes a token; its serial number is in ret_serial. */
void softhsm_token(const char *dir, const char *label, char ret_serial[17]);
/* The folder of a token within dir/tokens, by its serial number. */
void softhsm_token_dir(const char *dir, const char *serial, char *ret, unsigned long room);
/* Runs a command by the shell; the test fails when it fails. */
void softhsm_run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
