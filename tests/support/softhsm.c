#include "tests/support/softhsm.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

bool softhsm_available(void)
{
    return access(SOFTHSM_MODULE, R_OK) == 0 && access("/usr/bin/softhsm2-util", X_OK) == 0;
}

void softhsm_run(const char *fmt, ...)
{
    char command[1024];
    va_list args;
    va_start(args, fmt);
    int len = vsnprintf(command, sizeof command, fmt, args);
    va_end(args);
    assert_true(len > 0 && (size_t)len < sizeof command);
    assert_int_equal(system(command), 0);
}

void softhsm_init(char ret_dir[64])
{
    char path[128];
    strcpy(ret_dir, "/tmp/att-softhsm-XXXXXX");
    assert_non_null(mkdtemp(ret_dir));
    snprintf(path, sizeof path, "%s/softhsm2.conf", ret_dir);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    fprintf(file,
            "directories.tokendir = %s/tokens\nobjectstore.backend = file\nlog.level = ERROR\n",
            ret_dir);
    fclose(file);
    softhsm_run("mkdir %s/tokens", ret_dir);
    assert_int_equal(setenv("SOFTHSM2_CONF", path, 1), 0);
}

void softhsm_done(const char *dir)
{
    softhsm_run("rm -rf %s", dir);
}

void softhsm_token(const char *dir, const char *label, char ret_serial[17])
{
    char line[256];
    softhsm_run("ls %s/tokens > %s/before", dir, dir);
    softhsm_run("softhsm2-util --init-token --free --label '%s' --pin %s --so-pin %s > /dev/null",
                label, SOFTHSM_PIN, SOFTHSM_SO_PIN);
    snprintf(line, sizeof line, "ls %s/tokens | grep -vxFf %s/before", dir, dir);
    FILE *list = popen(line, "re");
    assert_non_null(list);
    assert_non_null(fgets(line, sizeof line, list));
    pclose(list);
    /* A token's folder is a UUID that ends in its serial number: …-sssssss-ssss… */
    char digits[64];
    size_t n = 0;
    for (const char *c = line; *c && *c != '\n'; c++) {
        if (*c != '-') {
            digits[n++] = *c;
        }
    }
    assert_int_equal(n, 32);
    memcpy(ret_serial, digits + 16, 16);
    ret_serial[16] = 0;
}

void softhsm_token_dir(const char *dir, const char *serial, char *ret, unsigned long room)
{
    char line[256];
    snprintf(line, sizeof line, "ls -d %s/tokens/*-%.4s-%s", dir, serial, serial + 4);
    FILE *list = popen(line, "re");
    assert_non_null(list);
    assert_non_null(fgets(line, sizeof line, list));
    pclose(list);
    line[strcspn(line, "\n")] = 0;
    snprintf(ret, room, "%s", line);
}
