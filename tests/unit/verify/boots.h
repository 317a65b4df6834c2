/* Real boots for the tests of policies: a firmware log, its events made anew where a test says so,
 * and the PCRs that a TPM would hold after it. */
#ifndef ATTESTD_TESTS_VERIFY_BOOTS_H
#define ATTESTD_TESTS_VERIFY_BOOTS_H

#include "tests/unit/verify/harness.h"

#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "attestd/base/clock.h"
#include "provision/verify/bootlog.h"
#include "provision/verify/draft.h"
#include "provision/verify/policy_signed.h"
#include "tpm/parse/eventlog_explain.h"

#include <stdlib.h>
#include <unistd.h>

#define BOOT_EVENTS 200
#define BOOT_PCRS   0x43ffU /* 0-9, 14 */

struct boot_event {
    uint32_t pcr, type;
    uint8_t digest[ATT_SHA256_LEN];
    struct att_slice data; /* borrowed from log, or static */
};

struct boot {
    struct att_buf log; /* as recorded */
    size_t header;      /* bytes of its Spec ID event */
    struct boot_event events[BOOT_EVENTS];
    size_t n;
    /* -- made by boot_finish -- */
    struct att_buf made;
    struct evidence_logs logs;
    struct parse_pcr_set pcrs;
};

static inline void boot_done(struct boot *boot)
{
    att_buf_done(&boot->log);
    att_buf_done(&boot->made);
    evidence_logs_done(&boot->logs);
}

static inline struct boot boot_of(struct att_buf *log)
{
    struct boot boot = {.log = *log};
    struct parse_eventlog walk;
    struct parse_eventlog_event event;
    *log = (struct att_buf){0};
    assert_int_equal(parse_eventlog_init(&walk, att_buf_slice(&boot.log), NULL), ATT_OK);
    while (!parse_eventlog_next(&walk, &event, NULL)) {
        if (event.number == 0) {
            boot.header = walk.pos;
            continue;
        }
        assert_true(boot.n < BOOT_EVENTS);
        struct boot_event *mine = &boot.events[boot.n++];
        struct att_slice digest = parse_eventlog_digest_of(&event, PARSE_ALG_SHA256);
        *mine = (struct boot_event){.pcr = event.pcr, .type = event.type, .data = event.data};
        assert_int_equal(digest.len, ATT_SHA256_LEN);
        memcpy(mine->digest, digest.ptr, digest.len);
    }
    return boot;
}

/* The guest of tests/vectors/boot: OVMF and a kernel with its EFI stub. */
static inline struct boot boot_ovmf(void)
{
    char path[4300];
    const char *vectors = getenv("ATT_VECTORS");
    att_autobuf log = {0};
    (void)snprintf(path, sizeof(path), "%s/boot/eventlog.bin", vectors ? vectors : "tests/vectors");
    assert_int_equal(att_io_read_file(path, PARSE_EVENTLOG_MAX, &log, NULL), ATT_OK);
    return boot_of(&log);
}

/* A real machine's, where the shared vectors are; false: they are not here. */
static inline bool boot_shared(const char *name, struct boot *ret)
{
    char path[4300];
    const char *source = getenv("ATT_SOURCE_DIR"), *dir = getenv("ATTESTD_VECTORS");
    att_autobuf log = {0};
    if (dir) {
        (void)snprintf(path, sizeof(path), "%s/eventlogs/%s", dir, name);
    } else {
        (void)snprintf(path, sizeof(path), "%s/../shared/vectors/eventlogs/%s",
                       source ? source : ".", name);
    }
    if (access(path, R_OK) != 0 && source && !dir) {
        (void)snprintf(path, sizeof(path), "%s/../../shared/vectors/eventlogs/%s", source, name);
    }
    if (att_io_read_file(path, PARSE_EVENTLOG_MAX, &log, NULL)) {
        return false;
    }
    *ret = boot_of(&log);
    return true;
}

static inline void boot_put_le(struct att_buf *buf, uint64_t value, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        att_buf_u8(buf, (uint8_t)(value >> (8 * i)));
    }
}

/* SHA-256 only, whatever the recording had: the header is made new. */
static inline void boot_encode(struct boot *boot)
{
    static const uint8_t sha1[20] = {0};
    struct att_buf *log = &boot->made;
    att_buf_reset(log);
    boot_put_le(log, 0, 4);
    boot_put_le(log, PARSE_EV_NO_ACTION, 4);
    att_buf_put(log, sha1, sizeof(sha1));
    boot_put_le(log, 33, 4);
    att_buf_put(log, "Spec ID Event03", 16);
    boot_put_le(log, 0, 4);
    att_buf_put(log, "\x00\x02\x00\x02", 4);
    boot_put_le(log, 1, 4);
    boot_put_le(log, PARSE_ALG_SHA256, 2);
    boot_put_le(log, ATT_SHA256_LEN, 2);
    att_buf_u8(log, 0);
    for (size_t i = 0; i < boot->n; i++) {
        const struct boot_event *event = &boot->events[i];
        boot_put_le(log, event->pcr, 4);
        boot_put_le(log, event->type, 4);
        boot_put_le(log, 1, 4);
        boot_put_le(log, PARSE_ALG_SHA256, 2);
        att_buf_put(log, event->digest, sizeof(event->digest));
        boot_put_le(log, event->data.len, 4);
        att_buf_put_slice(log, event->data);
    }
}

/* The log and the PCRs that the events lead to: a boot that really was like that. */
static inline void boot_finish(struct boot *boot, uint32_t mask)
{
    struct parse_eventlog_pcrs pcrs;
    boot_encode(boot);
    evidence_logs_done(&boot->logs);
    assert_int_equal(evidence_logs_add(&boot->logs, "firmware", att_buf_slice(&boot->made), NULL),
                     ATT_OK);
    assert_int_equal(
        parse_eventlog_replay(att_buf_slice(&boot->made), PARSE_ALG_SHA256, &pcrs, NULL), ATT_OK);
    boot->pcrs = (struct parse_pcr_set){.sel = {.bank = PARSE_ALG_SHA256, .mask = mask},
                                        .digest_len = ATT_SHA256_LEN};
    for (unsigned pcr = 0; pcr < PARSE_PCR_COUNT; pcr++) {
        if (mask >> pcr & 1) {
            memcpy(boot->pcrs.value[pcr], pcrs.value[pcr], ATT_SHA256_LEN);
        }
    }
}

/* The n-th event (from 0) of this PCR and type. */
static inline size_t boot_find(const struct boot *boot, uint32_t pcr, uint32_t type, unsigned n)
{
    for (size_t i = 0; i < boot->n; i++) {
        if (boot->events[i].pcr == pcr && boot->events[i].type == type && n-- == 0) {
            return i;
        }
    }
    fail_msg("no such event");
    return 0;
}

static inline void boot_remove(struct boot *boot, size_t at)
{
    memmove(&boot->events[at], &boot->events[at + 1], (boot->n - at - 1) * sizeof(boot->events[0]));
    boot->n--;
}

static inline void boot_insert(struct boot *boot, size_t at, struct boot_event event)
{
    assert_true(boot->n < BOOT_EVENTS);
    memmove(&boot->events[at + 1], &boot->events[at], (boot->n - at) * sizeof(boot->events[0]));
    boot->events[at] = event;
    boot->n++;
}

static inline json_t *boot_draft(struct boot *boot, const char *name)
{
    att_autobuf text = {0};
    struct att_err err = {0};
    verify_autoverdict *verdict = verify_verdict_new();
    const struct verify_draft_in in = {
        .name = name, .version = 1, .pcrs = &boot->pcrs, .logs = &boot->logs, .now = FORGE_NOW};
    if (verify_policy_draft(&in, &text, verdict, &err)) {
        print_verdict(verdict);
        fail_msg("no draft: %s", err.msg);
    }
    json_t *json = NULL;
    assert_int_equal(att_json_parse(att_buf_slice(&text), VERIFY_POLICY_BYTES_MAX, &json, NULL),
                     ATT_OK);
    return json;
}

static inline json_t *component_of(const json_t *policy, const char *id)
{
    size_t i = 0;
    json_t *component = NULL;
    json_array_foreach(json_object_get(policy, "components"), i, component)
    {
        if (!strcmp(json_string_value(json_object_get(component, "id")), id)) {
            return component;
        }
    }
    fail_msg("no component %s", id);
    return NULL;
}

static inline json_t *variants_of(const json_t *policy, const char *id)
{
    return json_object_get(component_of(policy, id), "variants");
}

/* Judged at FORGE_NOW + late_s. */
static inline struct verify_verdict *judge_as(const json_t *json, const struct boot *boot,
                                              int64_t late_s, struct verify_policy_in in)
{
    char *text = json_dumps(json, 0);
    verify_autopolicy *policy = NULL;
    struct att_err err = {0};
    if (verify_policy_parse(att_slice_str(text), &policy, &err)) {
        fail_msg("policy: %s", err.msg);
    }
    free(text);
    struct verify_verdict *verdict = verify_verdict_new();
    in.policy = policy;
    in.now = FORGE_NOW + late_s;
    in.quoted = &boot->pcrs;
    (void)!verify_policy_try(&in, &boot->logs, VERIFY_LOG_FIRMWARE, verdict);
    return verdict;
}

static inline struct verify_verdict *judge_at(const json_t *json, const struct boot *boot,
                                              int64_t late_s)
{
    return judge_as(json, boot, late_s, (struct verify_policy_in){0});
}

/* Refused by bootPolicy, with exactly one finding: this id, about this, saying that. */
static inline void assert_finding(struct verify_verdict *verdict, enum verify_finding_id id,
                                  const char *component, const char *says)
{
    if (verdict->n_findings != 1 || verdict->findings[0].id != id ||
        strcmp(verdict->findings[0].component, component) != 0 ||
        !strstr(verdict->findings[0].detail, says)) {
        print_verdict(verdict);
        fail_msg("expected exactly one finding %s of \"%s\" that says \"%s\"",
                 verify_finding_word(id), component, says);
    }
    assert_true(verdict->findings[0].remedy[0] != '\0');
    assert_refused(verdict, VERIFY_REASON_BOOT_POLICY, says);
    assert_non_null(strstr(verify_verdict_refusal(verdict)->detail, says));
    verify_verdict_free(verdict);
}

static inline void assert_good(struct verify_verdict *verdict, const char *name)
{
    assert_accepted(verdict, name);
    verify_verdict_free(verdict);
}

#endif
