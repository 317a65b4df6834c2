#include "attestd/agent/registry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct agent_entry entry(const char *name)
{
    return (struct agent_entry){.name = name,
                                .spiffe_id = "spiffe://bank.example/agent/x",
                                .profile = "trading",
                                .key_store = "tpm",
                                .lifetime_s = 3600};
}

static int setup(void **state)
{
    return agent_registry_new((struct agent_registry **)state, NULL) == ATT_OK ? 0 : -1;
}

static int teardown(void **state)
{
    agent_registry_free(*state);
    return 0;
}

static void refused_whole(struct agent_registry *reg, struct agent_entry bad, enum att_rc want)
{
    struct agent_entry entries[2] = {entry("good"), bad};
    struct agent_sync sync = {.added = 77};
    assert_int_equal(agent_registry_sync(reg, entries, 2, &sync, NULL), want);
    assert_int_equal(sync.added, 77);
    assert_int_equal(agent_registry_count(reg), 0);
}

/* Another server's: a permanent identifier in place of the SPIFFE ID; the lifetime is what the
 * certificate has, and a view without one does not take it back. */
static void test_identifiers(void **state)
{
    struct agent_registry *reg = *state;
    struct agent_sync sync = {0};
    struct agent_entry web = {
        .name = "web", .spiffe_id = "", .profile = "", .key_store = "tpm", .identifier = "id-1"};
    struct agent_entry bad = web;
    bad.identifier = "";
    refused_whole(reg, bad, ATT_E_INVAL);
    bad = web;
    bad.identifier = NULL;
    refused_whole(reg, bad, ATT_E_INVAL); /* then a SPIFFE ID and a profile are missing */
    assert_int_equal(agent_registry_sync(reg, &web, 1, &sync, NULL), ATT_OK);
    struct agent *agent = agent_registry_find(reg, "web");
    assert_string_equal(agent->rec.identifier, "id-1");
    agent->rec.life.state = AGENT_VALID;
    agent->rec.lifetime_s = 600;
    assert_int_equal(agent_registry_sync(reg, &web, 1, &sync, NULL), ATT_OK);
    assert_int_equal(sync.changed, 0);
    assert_int_equal(agent->rec.lifetime_s, 600);
    assert_false(agent->forced);
    agent->not_before_ms = INT64_MAX;
    web.identifier = "id-2"; /* what is in service names another device */
    assert_int_equal(agent_registry_sync(reg, &web, 1, &sync, NULL), ATT_OK);
    assert_int_equal(sync.changed, 1);
    assert_true(agent->forced);
    assert_int_equal(agent->not_before_ms, 0);
}

static void test_a_bad_entry_refuses_the_view(void **state)
{
    struct agent_registry *reg = *state;
    refused_whole(reg, entry("good"), ATT_E_INVAL); /* twice */
    refused_whole(reg, entry("Upper"), ATT_E_INVAL);
    refused_whole(reg, entry("../etc"), ATT_E_INVAL);
    refused_whole(reg, entry(".hidden"), ATT_E_INVAL);
    refused_whole(reg, entry(""), ATT_E_INVAL);
    refused_whole(reg, entry("a/b"), ATT_E_INVAL);
    char name[AGENT_NAME_MAX + 2];
    memset(name, 'a', AGENT_NAME_MAX + 1);
    name[AGENT_NAME_MAX + 1] = '\0';
    refused_whole(reg, entry(name), ATT_E_INVAL);
    struct agent_entry bad = entry("b");
    bad.lifetime_s = -1;
    refused_whole(reg, bad, ATT_E_INVAL);
    bad = entry("b");
    bad.profile = "";
    refused_whole(reg, bad, ATT_E_INVAL);
    bad = entry("b");
    bad.key_store = "a-key-store-too-long";
    refused_whole(reg, bad, ATT_E_INVAL);
    char id[AGENT_SPIFFE_ID_MAX + 2];
    memset(id, 'x', sizeof(id) - 1);
    id[sizeof(id) - 1] = '\0';
    bad = entry("b");
    bad.spiffe_id = id;
    refused_whole(reg, bad, ATT_E_INVAL);
}

static void test_limit(void **state)
{
    struct agent_registry *reg = *state;
    static struct agent_entry entries[AGENT_MAX + 1];
    static char names[AGENT_MAX + 1][16];
    for (size_t i = 0; i <= AGENT_MAX; i++) {
        snprintf(names[i], sizeof(names[i]), "agent-%zu", i);
        entries[i] = entry(names[i]);
    }
    struct agent_sync sync;
    assert_int_equal(agent_registry_sync(reg, entries, AGENT_MAX + 1, &sync, NULL), ATT_E_LIMIT);
    assert_int_equal(agent_registry_count(reg), 0);
    assert_int_equal(agent_registry_sync(reg, entries, AGENT_MAX, &sync, NULL), ATT_OK);
    assert_int_equal(sync.added, AGENT_MAX);
    struct agent_record rec = {.name = "one-more"};
    assert_int_equal(agent_registry_add(reg, &rec, NULL, NULL), ATT_E_LIMIT);
    for (size_t i = 0; i + 1 < AGENT_MAX; i++) {
        assert_true(strcmp(agent_registry_at(reg, i)->rec.name,
                           agent_registry_at(reg, i + 1)->rec.name) < 0);
    }
    assert_null(agent_registry_at(reg, AGENT_MAX));
}

/* The key in use is of the store that the entry named before. */
static void test_another_store_renews(void **state)
{
    struct agent_registry *reg = *state;
    struct agent_sync sync;
    struct agent_entry one = entry("alpha");
    assert_int_equal(agent_registry_sync(reg, &one, 1, &sync, NULL), ATT_OK);
    struct agent *alpha = agent_registry_find(reg, "alpha");
    alpha->rec.life.state = AGENT_VALID;
    one.lifetime_s = 900; /* any other change waits for the next renewal */
    assert_int_equal(agent_registry_sync(reg, &one, 1, &sync, NULL), ATT_OK);
    assert_false(alpha->forced);
    one.key_store = "memory";
    assert_int_equal(agent_registry_sync(reg, &one, 1, &sync, NULL), ATT_OK);
    assert_int_equal(sync.changed, 1);
    assert_true(alpha->forced);
    assert_string_equal(alpha->rec.key_store, "memory");
    alpha->forced = false;
    assert_int_equal(agent_registry_sync(reg, &one, 1, &sync, NULL), ATT_OK);
    assert_false(alpha->forced);
}

/* The key in use is of the type before, and a record keeps the new one. */
static void test_another_type_renews(void **state)
{
    struct agent_registry *reg = *state;
    struct agent_sync sync;
    struct agent_entry one = entry("alpha");
    assert_int_equal(agent_registry_sync(reg, &one, 1, &sync, NULL), ATT_OK);
    struct agent *alpha = agent_registry_find(reg, "alpha");
    assert_string_equal(agent_record_key_type(&alpha->rec), "ec-p256");
    alpha->rec.life.state = AGENT_VALID;
    one.key_type = "ec-p256"; /* said in words: nothing new */
    assert_int_equal(agent_registry_sync(reg, &one, 1, &sync, NULL), ATT_OK);
    assert_int_equal(sync.changed, 0);
    assert_false(alpha->forced);
    one.key_type = "a-type-that-is-too-long";
    assert_int_equal(agent_registry_sync(reg, &one, 1, &sync, NULL), ATT_E_INVAL);
    one.key_type = "rsa-2048";
    assert_int_equal(agent_registry_sync(reg, &one, 1, &sync, NULL), ATT_OK);
    assert_int_equal(sync.changed, 1);
    assert_true(alpha->forced);
    assert_string_equal(agent_record_key_type(&alpha->rec), "rsa-2048");
    struct agent_record rec = {.name = "beta", .spiffe_id = "x", .key_type = "rsa-3072"}, back;
    att_autobuf text = {0};
    assert_int_equal(agent_record_encode(&rec, &text, NULL), ATT_OK);
    assert_int_equal(agent_record_parse(att_buf_slice(&text), &back, NULL), ATT_OK);
    assert_string_equal(agent_record_key_type(&back), "rsa-3072");
}

/* The key in use is in the module before, and a record keeps the new one. */
static void test_another_module_renews(void **state)
{
    struct agent_registry *reg = *state;
    struct agent_sync sync;
    struct agent_entry one = entry("alpha");
    one.key_store = "hsm";
    assert_int_equal(agent_registry_sync(reg, &one, 1, &sync, NULL), ATT_OK);
    struct agent *alpha = agent_registry_find(reg, "alpha");
    assert_string_equal(alpha->rec.hsm, "");
    alpha->rec.life.state = AGENT_VALID;
    one.hsm = "a23456789012345678901234567890123";
    assert_int_equal(agent_registry_sync(reg, &one, 1, &sync, NULL), ATT_E_INVAL);
    assert_false(alpha->forced);
    one.hsm = "payments";
    assert_int_equal(agent_registry_sync(reg, &one, 1, &sync, NULL), ATT_OK);
    assert_int_equal(sync.changed, 1);
    assert_true(alpha->forced);
    alpha->forced = false;
    assert_int_equal(agent_registry_sync(reg, &one, 1, &sync, NULL), ATT_OK);
    assert_int_equal(sync.changed, 0);
    assert_false(alpha->forced);
    struct agent_record rec = {.name = "beta", .spiffe_id = "x", .hsm = "payments"}, back;
    att_autobuf text = {0};
    assert_int_equal(agent_record_encode(&rec, &text, NULL), ATT_OK);
    assert_int_equal(agent_record_parse(att_buf_slice(&text), &back, NULL), ATT_OK);
    assert_string_equal(back.hsm, "payments");
}

static void test_sync(void **state)
{
    struct agent_registry *reg = *state;
    struct agent_sync sync;
    struct agent_entry two[] = {entry("beta"), entry("alpha")};
    assert_int_equal(agent_registry_sync(reg, two, 2, &sync, NULL), ATT_OK);
    assert_int_equal(sync.added, 2);
    struct agent *alpha = agent_registry_find(reg, "alpha");
    struct agent *beta = agent_registry_find(reg, "beta");
    assert_non_null(alpha);
    assert_true(alpha->unsaved && alpha->check_keys);
    assert_string_equal(agent_registry_at(reg, 0)->rec.name, "alpha");
    alpha->unsaved = beta->unsaved = false;

    /* The same view again changes nothing. */
    assert_int_equal(agent_registry_sync(reg, two, 2, &sync, NULL), ATT_OK);
    assert_int_equal(sync.added + sync.changed + sync.removed, 0);
    assert_false(alpha->unsaved);

    /* Another profile; the key of the certificate in force stays. */
    strcpy(alpha->rec.key_id, "0123");
    two[1].profile = "other";
    assert_int_equal(agent_registry_sync(reg, two, 2, &sync, NULL), ATT_OK);
    assert_int_equal(sync.changed, 1);
    assert_true(alpha->unsaved && !beta->unsaved);
    assert_string_equal(alpha->rec.profile, "other");
    assert_string_equal(alpha->rec.key_id, "0123");

    /* alpha leaves. */
    assert_int_equal(agent_registry_sync(reg, two, 1, &sync, NULL), ATT_OK);
    assert_int_equal(sync.removed, 1);
    assert_int_equal(alpha->rec.life.state, AGENT_REMOVED);
    assert_int_equal(beta->rec.life.state, AGENT_ABSENT);
    assert_int_equal(agent_registry_sync(reg, two, 1, &sync, NULL), ATT_OK);
    assert_int_equal(sync.removed, 0);

    /* Back before the removal was carried out: it is still to be carried out. */
    assert_int_equal(agent_registry_sync(reg, two, 2, &sync, NULL), ATT_OK);
    assert_int_equal(sync.added, 1);
    assert_true(alpha->reassigned);
    assert_int_equal(alpha->rec.life.state, AGENT_REMOVED);
    assert_int_equal(agent_registry_sync(reg, two, 1, &sync, NULL), ATT_OK);
    assert_false(alpha->reassigned);

    agent_registry_drop(reg, "alpha");
    assert_null(agent_registry_find(reg, "alpha"));
    agent_registry_drop(reg, "alpha");
    assert_int_equal(agent_registry_count(reg), 1);
}

static void test_frozen_agent_can_be_removed(void **state)
{
    struct agent_registry *reg = *state;
    struct agent_entry one[] = {entry("alpha")};
    struct agent_sync sync;
    assert_int_equal(agent_registry_sync(reg, one, 1, &sync, NULL), ATT_OK);
    struct agent *alpha = agent_registry_find(reg, "alpha");
    assert_int_equal(agent_life_apply(&alpha->rec.life, AGENT_EV_FREEZE, NULL), ATT_OK);
    assert_int_equal(agent_registry_sync(reg, NULL, 0, &sync, NULL), ATT_OK);
    assert_int_equal(alpha->rec.life.state, AGENT_REMOVED);
    assert_int_equal(alpha->rec.life.before, AGENT_ABSENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_identifiers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_bad_entry_refuses_the_view, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sync, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_store_renews, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_type_renews, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_module_renews, setup, teardown),
        cmocka_unit_test_setup_teardown(test_frozen_agent_can_be_removed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
