/* Entries that are kept as they were read: by their text, so many, and none that is long. */
#include "tests/unit/issuer/stage.h"

static void text_of(char *ret, size_t room, const char *key, const char *owner)
{
    int n = snprintf(ret, room,
                     "{\"name\": \"" RIG_NAME "\", \"owner\": \"%s\", \"hosts\": [\"ek:%064d\"], "
                     "\"workload\": [{\"uid\": 1}], \"key\": \"%s\", \"profile\": \"trading\"}",
                     owner, 0, key);
    assert_true(n > 0 && (size_t)n < room);
}

static struct issuer_entry *read_ok(struct issuer_entries *entries, const char *text)
{
    struct issuer_entry *entry = NULL;
    rig_ok(issuer_entry_read(entries, text, &entry, &err));
    assert_string_equal(entry->text, text);
    return entry;
}

static void found_by_text_alone(void **state)
{
    (void)state;
    char tpm[512], memory[512];
    struct issuer_entries *entries = issuer_entries_new();
    text_of(tpm, sizeof tpm, "tpm", "x@bank.example");
    text_of(memory, sizeof memory, "memory", "x@bank.example");
    issuer_autoentry *first = read_ok(entries, tpm), *again = read_ok(entries, tpm);
    issuer_autoentry *other = read_ok(entries, memory);
    assert_ptr_equal(first, again);
    assert_ptr_not_equal(first, other);
    assert_int_equal(first->v->key, CONF_KEY_TPM);
    assert_int_equal(other->v->key, CONF_KEY_MEMORY);
    issuer_entries_free(entries);
    assert_string_equal(first->v->name, RIG_NAME); /* still ours */
}

/* What is no entry is none the second time, either. */
static void refused_each_time(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "{}", "[", "{\"name\": \"x\"}"};
    struct issuer_entries *entries = issuer_entries_new();
    for (size_t i = 0; i < 2 * sizeof bad / sizeof bad[0]; i++) {
        struct issuer_entry *entry = NULL;
        struct att_err err = {0};
        assert_int_not_equal(issuer_entry_read(entries, bad[i / 2], &entry, &err), ATT_OK);
        assert_null(entry);
    }
    issuer_entries_free(entries);
}

static void places_are_few(void **state)
{
    (void)state;
    char text[512], longer[16384], owner[9000];
    struct issuer_entries *entries = issuer_entries_new();
    struct issuer_entry *kept[2 * ISSUER_ENTRIES_KEPT];
    size_t same = 0;
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < 2 * ISSUER_ENTRIES_KEPT; i++) {
            snprintf(owner, sizeof owner, "%zu@bank.example", i);
            text_of(text, sizeof text, "tpm", owner);
            struct issuer_entry *entry = read_ok(entries, text);
            assert_string_equal(entry->v->owner, owner);
            if (round == 0) {
                kept[i] = entry;
            } else {
                same += entry == kept[i];
                issuer_entry_put(entry);
            }
        }
    }
    assert_true(same <= ISSUER_ENTRIES_KEPT);
    for (size_t i = 0; i < 2 * ISSUER_ENTRIES_KEPT; i++) {
        issuer_entry_put(kept[i]);
    }
    /* As wide as a text may be that is kept, and wider. */
    text_of(longer, sizeof longer, "tpm", "x@bank.example");
    size_t len = strlen(longer);
    memset(longer + len, ' ', 8192 - len);
    longer[8192] = 0;
    issuer_autoentry *fits = read_ok(entries, longer), *fits_again = read_ok(entries, longer);
    assert_ptr_equal(fits, fits_again);
    strcat(longer, " ");
    issuer_autoentry *wide = read_ok(entries, longer), *wide_again = read_ok(entries, longer);
    assert_ptr_not_equal(wide, wide_again);
    issuer_entries_free(entries);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(found_by_text_alone),
        cmocka_unit_test(refused_each_time),
        cmocka_unit_test(places_are_few),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
