/* Level 3 of measured files, one thing wrong at a time. What IMA and the firmware say is of a real
 * guest (tests/vectors/verity: a dm-verity device of Linux 6.1, its root hash in the command line,
 * which the EFI stub measures as a digest alone). */
#include "tests/unit/verify/harness.h"

#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "provision/verify/measured.h"
#include "tests/unit/verify/verity.h"

#define CMDLINE_EVENT "0x8f3b22ed"

static void accepted(struct verity_rig *r)
{
    struct verify_measured_facts facts = {0};
    char root[2 * ATT_SHA256_LEN + 1];
    verify_autoverdict *verdict = verity_judge(r, &facts);
    assert_accepted(verdict, "level 3");
    assert_int_equal(facts.level, 3);
    att_hex(root, ATT_SLICE_ARRAY(facts.verity_root));
    assert_string_equal(root, r->verity_root);
    verity_done(r);
}

/* Refused for the level, with a sentence that has these words; and good enough for level 2. */
static void refused(struct verity_rig *r, const char *one, const char *two)
{
    struct verify_measured_facts facts = {0};
    verify_autoverdict *verdict = verity_judge(r, &facts);
    assert_refused(verdict, VERIFY_REASON_MEASURED_LEVEL, one);
    const struct verify_check *refusal = verify_verdict_refusal(verdict);
    if (!strstr(refusal->detail, one) || !strstr(refusal->detail, two) ||
        !strstr(refusal->detail, "level 3 is demanded, level 2 is reached")) {
        fail_msg("expected \"%s\" and \"%s\": %s", one, two, refusal->detail);
    }
    r->in.level = 2;
    verify_autoverdict *lower = verity_judge(r, &facts);
    assert_accepted(lower, "level 2");
    assert_int_equal(facts.level, 2);
    verity_done(r);
}

static void test_reached(void **state)
{
    (void)state;
    struct verity_rig r;
    verity_new(&r);
    accepted(&r); /* the command line by its digest, PCR 9 by its value */
    verity_new(&r);
    verity_policy(&r, CMDLINE_EVENT, "digest", NULL);
    accepted(&r); /* the event by its digest */
    verity_new(&r);
    r.in.level = 1; /* what is reached is said, whatever is demanded */
    accepted(&r);
}

/* GRUB's measured text. */
static void test_text(void **state)
{
    (void)state;
    struct verity_rig r;
    char text[300];
    verity_new(&r);
    r.agent.command_line[0] = '\0';
    (void)snprintf(text, sizeof(text), "/vmlinuz ro roothash=%s quiet", r.verity_root);
    verity_grub(&r, text);
    verity_policy(&r, "kernel_cmdline", "text", text);
    accepted(&r);
    verity_new(&r);
    r.agent.command_line[0] = '\0';
    verity_grub(&r, text);
    verity_policy(&r, "kernel_cmdline", "pattern", "/vmlinuz ro *");
    refused(&r, "pcr8 event", "a pattern with the word in it");
    verity_new(&r);
    r.agent.command_line[0] = '\0';
    (void)snprintf(text, sizeof(text), "/vmlinuz ro roothash=%s quiet", r.verity_root);
    verity_grub(&r, text);
    (void)snprintf(text, sizeof(text), "/vmlinuz* roothash=%s *", r.verity_root);
    verity_policy(&r, "kernel_cmdline", "pattern", text);
    accepted(&r);
}

/* GRUB measures a menu entry's block, too: what stands in one of its lines need not have been
 * booted. With a newline at its end only it is one line. */
static void test_script(void **state)
{
    (void)state;
    static const struct {
        const char *before, *after;
        bool good;
    } cases[] = {
        {"menuentry a {\nlinux /vmlinuz ro ", " quiet\n}\n", false},
        {"set a=b\n", "", false},
        {"", "\n\n", false},
        {"", "\rset a=b", false},
        {"/vmlinuz ", "\n", true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct verity_rig r;
        char text[300], json[400] = "";
        verity_new(&r);
        r.agent.command_line[0] = '\0';
        (void)snprintf(text, sizeof(text), "%sroothash=%s%s", cases[i].before, r.verity_root,
                       cases[i].after);
        for (const char *at = text; *at; at++) {
            const char plain[] = {*at, '\0'};
            strcat(json, *at == '\n' ? "\\n" : *at == '\r' ? "\\r" : plain);
        }
        verity_grub(&r, text);
        verity_policy(&r, "kernel_cmdline", "text", json);
        if (cases[i].good) {
            accepted(&r);
        } else {
            refused(&r, "no event of the boot", "");
        }
    }
}

static void test_not_in_boot(void **state)
{
    (void)state;
    struct verity_rig r;
    char text[300];
    verity_new(&r); /* no text at all: a digest says nothing by itself */
    r.agent.command_line[0] = '\0';
    refused(&r, "no event of the boot", r.verity_root);
    verity_new(&r); /* a command line that no event has the digest of */
    strcat(r.agent.command_line, " quiet");
    refused(&r, "no event of the boot", "in its text");
    verity_new(&r); /* that was measured, and names another image */
    verity_other_root(&r);
    refused(&r, "no event of the boot", "roothash=");
    verity_new(&r); /* another word with the same value */
    r.agent.command_line[0] = '\0';
    (void)snprintf(text, sizeof(text), "/vmlinuz noroothash=%s", r.verity_root);
    verity_grub(&r, text);
    verity_policy(&r, "kernel_cmdline", "text", text);
    refused(&r, "no event of the boot", "");
    verity_new(&r); /* a longer value that begins like it */
    r.agent.command_line[0] = '\0';
    (void)snprintf(text, sizeof(text), "/vmlinuz roothash=%s0", r.verity_root);
    verity_grub(&r, text);
    verity_policy(&r, "kernel_cmdline", "text", text);
    refused(&r, "no event of the boot", "");
}

/* An event that nobody answers for may have been extended by whoever became root since. */
static void test_not_judged(void **state)
{
    (void)state;
    struct verity_rig r;
    char text[300];
    verity_new(&r);
    r.boot.boot_none = true;
    r.boot.policy = NULL;
    refused(&r, "no boot policy", "firmware");
    verity_new(&r); /* PCR 8 is left open */
    r.agent.command_line[0] = '\0';
    (void)snprintf(text, sizeof(text), "/vmlinuz ro roothash=%s quiet", r.verity_root);
    verity_grub(&r, text);
    verity_policy(&r, CMDLINE_EVENT, "digest", NULL);
    refused(&r, "no event of the boot", "");
    verity_new(&r); /* the policy had something to say of that PCR, and only warned */
    r.finding_of_pcr = 9;
    refused(&r, "pcr9 event", "without a finding");
    verity_new(&r); /* of another PCR it may */
    r.finding_of_pcr = 4;
    accepted(&r);
    verity_new(&r); /* a variant whose time is over */
    verity_policy(&r, CMDLINE_EVENT, "digest", NULL);
    r.boot.now = 4000000000;
    refused(&r, "pcr9 event", "does not name that event");
}

static void test_device(void **state)
{
    (void)state;
    struct verity_rig r;
    verity_new(&r); /* the files lie on several, or the host does not say */
    r.agent.has_device = false;
    refused(&r, "the host names no device", "all of the files");
    verity_new(&r); /* on another than the verity one */
    r.agent.device_minor = 1;
    refused(&r, "IMA's list does not say what device 254:1 is", "device-mapper");
    verity_new(&r); /* a disk */
    r.agent.device_major = 8;
    refused(&r, "IMA's list does not say what device 8:0 is", "");
}

/* Tables that the kernel told of, other than the one that would do. */
static void test_tables(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *say;
    } cases[] = {
        {"target_name=verity", "target_name=linear", "its target is not verity"},
        {"num_targets=1", "num_targets=2", "it has other than one target"},
        {"target_begin=0", "target_begin=8", "it has other than one target"},
        {"verity_algorithm=sha256", "verity_algorithm=sha512", "not one of SHA-256"},
        {"check_at_most_once=n", "check_at_most_once=y", "at its first read only"},
        {"check_at_most_once=n", "check_at_most_once=n,verity_mode=ignore_corruption",
         "returns what does not have its digest"},
        {"name=agents,", "name=agents,major=254,", "device-mapper's text is not"},
        {"dm_version=", "version=", "device-mapper's text is not"},
        {"root_digest=", "root_digest=00", "not one of SHA-256"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct verity_rig r;
        verity_new(&r);
        verity_change_table(&r, cases[i].from, cases[i].to);
        refused(&r, cases[i].say, "pcr10 entry 2");
    }
}

/* A second table of the device in this boot: IMA would not list the first one again. */
static void test_tables_after(void **state)
{
    (void)state;
    struct verity_rig r;
    verity_new(&r);
    verity_load(&r, "target_name=verity", "target_name=linear");
    refused(&r, "its target is not verity", "device 254:0");
    verity_new(&r);
    verity_load(&r, "root_digest=",
                "root_digest=0000000000000000000000000000000000000000000000"
                "000000000000000000,was=");
    refused(&r, "another root hash than before", "device 254:0");
    verity_new(&r); /* the same under another name is the same */
    verity_load(&r, "name=agents", "name=other");
    accepted(&r);
    verity_new(&r); /* in force is what was not seen being loaded */
    verity_resume(&r, "active_table_hash=sha256:", "active_table_hash=sha256:00");
    refused(&r, "a table came into force that was not seen", "device 254:0");
    verity_new(&r); /* loaded, and never in force */
    verity_drop_resume(&r);
    refused(&r, "IMA's list does not say what device 254:0 is", "");
    verity_new(&r); /* of another device is nothing to us */
    verity_load(&r, "minor=0,minor_count", "minor=7,minor_count");
    accepted(&r);
}

/* Level 3 is level 2 and more: without IMA's word on each file it is not reached. */
static void test_without_ima(void **state)
{
    (void)state;
    struct verity_rig r;
    struct verify_measured_facts facts = {0};
    verity_new(&r);
    verity_unlisted_file(&r);
    verify_autoverdict *verdict = verity_judge(&r, &facts);
    assert_refused(verdict, VERIFY_REASON_MEASURED_LEVEL, "unlisted");
    assert_non_null(strstr(verify_verdict_refusal(verdict)->detail, "level 1 is reached"));
    verity_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reached),     cmocka_unit_test(test_text),
        cmocka_unit_test(test_not_in_boot), cmocka_unit_test(test_script),
        cmocka_unit_test(test_not_judged),  cmocka_unit_test(test_device),
        cmocka_unit_test(test_tables),      cmocka_unit_test(test_tables_after),
        cmocka_unit_test(test_without_ima),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
