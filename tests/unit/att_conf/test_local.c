/* Host-local rules: what is refused first, then what two files give together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "attestd/base/io.h"
#include "attestd/conf/local.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct conf_errors errors;

static void refused(const char *yaml, int line, const char *field, const char *words)
{
    struct conf_local *local = NULL;
    assert_int_equal(conf_local_parse(att_slice_str(yaml), &local, &errors, NULL), ATT_E_PARSE);
    assert_null(local);
    for (size_t i = 0; i < errors.n; i++) {
        const struct conf_error *e = &errors.v[i];
        if (e->line == line && strcmp(e->field, field) == 0 && strstr(e->text, words)) {
            return;
        }
        print_message("  %d: %s: %s\n", e->line, e->field, e->text);
    }
    fail_msg("no error at line %d, field %s: %s", line, field, words);
}

static void test_refused(void **state)
{
    (void)state;
    refused("agents: x\n", 1, "agents", "expected a list");
    refused("more: 1\nagents: []\n", 1, "more", "unknown key");
    refused("agents:\n  - workload: { uid: 1 }\n", 2, "agents[0].name", "required");
    refused("agents:\n  - name: a\n", 2, "agents[0].workload", "required");
    refused("agents:\n  - name: a\n    key: tpm\n    workload: { uid: 1 }\n", 3, "agents[0].key",
            "unknown key, expected one of: name, workload"); /* nothing but selectors */
    refused("agents:\n  - name: Bad\n    workload: { uid: 1 }\n", 2, "agents[0].name",
            "expected a name");
    refused("agents:\n  - name: a\n    workload:\n      uid: root\n", 4,
            "agents[0].workload[0].uid", "user id");
    refused("agents:\n  - name: a\n    workload: { exe_sha256: [] }\n", 3, "agents[0].workload[0]",
            "uid or unit");
    refused(
        "agents:\n  - name: a\n    workload:\n      uid: 1\n      manifest: { path: /m, sha256: "
        "\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\" }\n",
        5, "agents[0].workload[0].manifest", "issuer's entries only");
    refused("agents:\n  - { name: a, workload: { uid: 1 } }\n  - { name: a, workload: { uid: 2 } "
            "}\n",
            3, "agents[1].name", "twice");
}

/* ---- a folder ---- */

static char told[2048];
static void on_errors(const char *path, const struct conf_errors *found)
{
    for (size_t i = 0; i < found->n; i++) {
        snprintf(told + strlen(told), sizeof told - strlen(told), "%s:%d: %s\n", path,
                 found->v[i].line, found->v[i].text);
    }
}

static void put(const char *dir, const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(att_io_write_file(path, att_slice_str(text), 0644, NULL), ATT_OK);
}

static uint64_t number_of(const char *dir)
{
    struct conf_local *local = NULL;
    assert_int_equal(conf_local_load(dir, &local, on_errors, NULL), ATT_OK);
    uint64_t number = local->number;
    conf_local_free(local);
    return number;
}

static void test_folder(void **state)
{
    (void)state;
    char dir[] = "/tmp/att-local.XXXXXX", path[128];
    struct conf_local *local = NULL;
    struct att_err err = {0};
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/none", dir);
    assert_int_equal(number_of(path), 0); /* no folder */
    assert_int_equal(number_of(dir), 0);
    put(dir, "b.yaml", "agents:\n  - { name: b, workload: [ { uid: 1 }, { uid: 2 } ] }\n");
    put(dir, "a.yaml", "agents:\n  - { name: a, workload: { uid: 7 } }\n");
    put(dir, ".hidden.yaml", "nonsense");
    put(dir, "a.yaml.orig", "nonsense");
    assert_int_equal(conf_local_load(dir, &local, on_errors, NULL), ATT_OK);
    assert_int_equal(local->n, 2);
    const struct conf_local_rule *rule = conf_local_find(local, "b");
    assert_int_equal(rule->n_workload, 2);
    assert_string_equal(rule->file, "b.yaml");
    assert_null(conf_local_find(local, "c"));
    assert_null(conf_local_find(NULL, "a"));
    uint64_t before = local->number;
    assert_true(before);
    conf_local_free(local);
    put(dir, "a.yaml", "# a remark\nagents:\n  - { name: a, workload: { uid: 7 } }\n");
    assert_true(number_of(dir) == before); /* of what it says, not of how */
    put(dir, "a.yaml", "agents:\n  - { name: a, workload: { uid: 8 } }\n");
    assert_true(number_of(dir) != before);
    /* Both are told of, and nothing is given. */
    put(dir, "a.yaml", "agents:\n  - { name: a, workload: { uid: -8 } }\n");
    put(dir, "c.yaml", "agents:\n  - { name: b, workload: { uid: 1 } }\n");
    local = NULL;
    assert_int_equal(conf_local_load(dir, &local, on_errors, &err), ATT_E_PARSE);
    assert_null(local);
    assert_non_null(strstr(told, "a.yaml:2: expected a user id"));
    assert_non_null(strstr(told, "c.yaml:0: agent \"b\" stands in b.yaml, too"));
    assert_non_null(strstr(err.msg, "a.yaml"));
    /* Read by nobody it would narrow nothing. */
    put(dir, "a.yaml", "agents:\n  - { name: a, workload: { uid: 8 } }\n");
    put(dir, "c.yaml", "agents: []\n");
    assert_true(number_of(dir) != before);
    att_err_clear(&err);
    put(dir, "d.yml", "agents:\n  - { name: d, workload: { uid: 1 } }\n");
    assert_int_equal(conf_local_load(dir, &local, on_errors, &err), ATT_E_PARSE);
    assert_null(local);
    assert_non_null(strstr(told, "d.yml:0: name it .yaml"));
    assert_non_null(strstr(err.msg, "d.yml: name it .yaml"));
    char command[160];
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_folder)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
