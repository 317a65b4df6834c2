/* The rig of test_dmverity: a manifest of the guest's two files, its logs, its PCRs, a policy. */
#ifndef ATTESTD_TESTS_VERIFY_VERITY_H
#define ATTESTD_TESTS_VERIFY_VERITY_H

#include "attestd/base/hash.h"
#include "tpm/parse/eventlog.h"

#include <stdlib.h>

#define VERITY_WEIGHTS "/opt/agents/weights.bin"
#define VERITY_TOOLS   "/opt/agents/tools.json"
#define VERITY_LINES   16

struct verity_rig {
    struct manifest manifest;
    struct att_buf document, firmware;
    char *lines[VERITY_LINES]; /* of IMA's list */
    size_t n_lines;
    struct evidence_logs logs;
    struct parse_pcr_set pcrs;
    struct verify_policy *policy;
    struct verify_boot boot;
    struct verify_quoted quoted;
    struct verify_agent_facts agent;
    char verity_root[2 * ATT_SHA256_LEN + 1], root[2 * ATT_SHA256_LEN + 1];
    char *roots[1];
    unsigned finding_of_pcr; /* 0: none */
    struct verify_measured_in in;
};

static inline void verity_read(const char *name, struct att_buf *ret)
{
    char path[4300];
    const char *vectors = getenv("ATT_VECTORS");
    (void)snprintf(path, sizeof(path), "%s/verity/%s", vectors ? vectors : "tests/vectors", name);
    assert_int_equal(att_io_read_file(path, (size_t)1 << 20, ret, NULL), ATT_OK);
}

static inline void verity_file(struct verity_rig *r, const char *path, enum manifest_role role)
{
    struct manifest_file file = {.path = (char *)(uintptr_t)path, .role = role, .size = 1};
    memset(file.sha256, 0xee, sizeof(file.sha256));
    memset(file.verity, 0xee, sizeof(file.verity));
    for (size_t i = 0; i < r->n_lines; i++) {
        const char *digest = strstr(r->lines[i], "ima:sha256:");
        if (digest && strstr(r->lines[i], path)) {
            char hex[2 * ATT_SHA256_LEN + 1];
            (void)snprintf(hex, sizeof(hex), "%s", digest + strlen("ima:sha256:"));
            assert_int_equal(att_unhex_exact(file.sha256, ATT_SHA256_LEN, hex, NULL), ATT_OK);
        }
    }
    assert_int_equal(manifest_add_file(&r->manifest, &file, NULL), ATT_OK);
}

static inline void verity_finish(struct verity_rig *r)
{
    assert_int_equal(manifest_finish(&r->manifest, NULL), ATT_OK);
    att_buf_reset(&r->document);
    assert_int_equal(manifest_encode(&r->manifest, &r->document, NULL), ATT_OK);
    memcpy(r->agent.manifest_root, r->manifest.root, ATT_SHA256_LEN);
    att_hex(r->root, ATT_SLICE_ARRAY(r->manifest.root));
    r->in.document = att_buf_slice(&r->document);
}

/* The text of a line of template ima-buf: entry 2 is the table, 3 its coming into force. */
static inline char *verity_text(const struct verity_rig *r, size_t line)
{
    char copy[4096], *save = NULL, *field = copy;
    uint8_t bytes[2048] = {0};
    size_t len = 0;
    (void)snprintf(copy, sizeof(copy), "%s", r->lines[line]);
    for (char *at = strtok_r(copy, " ", &save); at; at = strtok_r(NULL, " ", &save)) {
        field = at;
    }
    len = strlen(field) / 2;
    assert_true(len < sizeof(bytes));
    assert_int_equal(att_unhex_exact(bytes, len, field, NULL), ATT_OK);
    return strdup((char *)bytes);
}

static inline char *verity_line(const char *name, const char *text)
{
    uint8_t sha256[ATT_SHA256_LEN];
    char hex[2 * ATT_SHA256_LEN + 1], *data = calloc(1, 2 * strlen(text) + 1), *line = NULL;
    att_sha256(sha256, att_slice_str(text));
    att_hex(hex, ATT_SLICE_ARRAY(sha256));
    att_hex(data, att_slice_str(text));
    assert_true(asprintf(&line,
                         "10 0123456789abcdef0123456789abcdef01234567 ima-buf sha256:%s %s %s", hex,
                         name, data) > 0);
    free(data);
    return line;
}

/* text with the first from replaced; the caller frees it. */
static inline char *verity_replace(char *text, const char *from, const char *to)
{
    char *at = strstr(text, from), *ret = NULL;
    assert_non_null(at);
    assert_true(asprintf(&ret, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from)) > 0);
    free(text);
    return ret;
}

static inline void verity_put(struct verity_rig *r, size_t line, const char *name, char *text)
{
    assert_true(line < VERITY_LINES);
    free(r->lines[line]);
    r->lines[line] = verity_line(name, text);
    r->n_lines = line < r->n_lines ? r->n_lines : line + 1;
    free(text);
}

static inline void verity_change_table(struct verity_rig *r, const char *from, const char *to)
{
    verity_put(r, 2, "dm_table_load", verity_replace(verity_text(r, 2), from, to));
}

static inline void verity_load(struct verity_rig *r, const char *from, const char *to)
{
    verity_put(r, r->n_lines, "dm_table_load", verity_replace(verity_text(r, 2), from, to));
}

static inline void verity_resume(struct verity_rig *r, const char *from, const char *to)
{
    verity_put(r, r->n_lines, "dm_device_resume", verity_replace(verity_text(r, 3), from, to));
}

static inline void verity_drop_resume(struct verity_rig *r)
{
    free(r->lines[3]);
    memmove(&r->lines[3], &r->lines[4], (VERITY_LINES - 4) * sizeof(r->lines[0]));
    r->lines[VERITY_LINES - 1] = NULL;
    r->n_lines--;
}

/* The device has another root hash than the command line names, and so has what came into force. */
static inline void verity_other_root(struct verity_rig *r)
{
    char with[2 * ATT_SHA256_LEN + 1], old[2 * ATT_SHA256_LEN + 1], now[2 * ATT_SHA256_LEN + 1];
    uint8_t sha256[ATT_SHA256_LEN];
    (void)snprintf(with, sizeof(with), "%s", r->verity_root);
    with[0] = with[0] == '0' ? '1' : '0';
    char *text = verity_text(r, 2);
    att_sha256(sha256, att_slice_str(text));
    att_hex(old, ATT_SLICE_ARRAY(sha256));
    text = verity_replace(text, r->verity_root, with);
    att_sha256(sha256, att_slice_str(text));
    att_hex(now, ATT_SLICE_ARRAY(sha256));
    verity_put(r, 2, "dm_table_load", text);
    verity_put(r, 3, "dm_device_resume", verity_replace(verity_text(r, 3), old, now));
}

static inline void verity_unlisted_file(struct verity_rig *r)
{
    verity_file(r, "/opt/agents/none", MANIFEST_FILE);
    verity_finish(r);
}

static inline void verity_le(struct att_buf *buf, uint64_t n, unsigned bytes)
{
    for (; bytes; bytes--, n >>= 8) {
        att_buf_u8(buf, n & 0xff);
    }
}

/* An event of GRUB's in PCR 8, with its digest. */
static inline void verity_grub(struct verity_rig *r, const char *text)
{
    uint8_t digest[ATT_SHA256_LEN];
    const char *label = "kernel_cmdline: ";
    const uint32_t numbers[] = {8, PARSE_EV_IPL, 1};
    att_sha256(digest, att_slice_str(text));
    for (size_t i = 0; i < 3; i++) {
        verity_le(&r->firmware, numbers[i], 4);
    }
    verity_le(&r->firmware, PARSE_ALG_SHA256, 2);
    att_buf_put(&r->firmware, digest, sizeof(digest));
    verity_le(&r->firmware, strlen(label) + strlen(text) + 1, 4);
    att_buf_put_str(&r->firmware, label);
    att_buf_put_str(&r->firmware, text);
    att_buf_u8(&r->firmware, 0);
}

/* A policy of format 2 that judges the PCR of one event, all others left open. "digest" with text
 * NULL: the guest's command line, whose digest is computed here. */
static inline void verity_policy(struct verity_rig *r, const char *name, const char *kind,
                                 const char *text)
{
    char json[3000], hex[2 * ATT_SHA256_LEN + 1], open[100] = "";
    unsigned pcr = strcmp(name, "kernel_cmdline") == 0 ? 8 : 9;
    if (!text) {
        uint8_t wide[2 * sizeof(r->agent.command_line)] = {0}, digest[ATT_SHA256_LEN];
        char line[sizeof(r->agent.command_line)];
        (void)snprintf(line, sizeof(line), "%s", r->agent.command_line);
        if (!line[0]) {
            (void)snprintf(line, sizeof(line), "another");
        }
        for (size_t i = 0; line[i]; i++) {
            wide[2 * i] = (uint8_t)line[i];
        }
        att_sha256(digest, ATT_SLICE(wide, 2 * (strlen(line) + 1)));
        att_hex(hex, ATT_SLICE_ARRAY(digest));
        text = hex;
    }
    for (unsigned i = 0; i < 10; i++) {
        if (i != pcr) {
            (void)snprintf(open + strlen(open), sizeof(open) - strlen(open), "%s%u",
                           open[0] ? "," : "", i);
        }
    }
    (void)snprintf(json, sizeof(json),
                   "{\"format\":2,\"name\":\"verity\",\"version\":1,\"bank\":\"sha256\","
                   "\"components\":[{\"id\":\"cmdline\",\"pcr\":%u,\"type\":\"%s\",\"name\":\"%s\","
                   "\"variants\":[{\"%s\":\"%s\",\"notAfter\":\"2090-01-01T00:00:00Z\"}]}],"
                   "\"unjudged\":[%s,10,14],\"logs\":[\"firmware\",\"ima\"]}",
                   pcr, pcr == 8 ? "EV_IPL" : "EV_EVENT_TAG", name, kind, text, open);
    struct att_err err = {0};
    verify_policy_free(r->policy);
    r->policy = NULL;
    if (verify_policy_parse(att_slice_str(json), &r->policy, &err)) {
        fail_msg("%s: %s", err.msg, json);
    }
    r->boot.policy = r->policy;
}

static inline void verity_new(struct verity_rig *r)
{
    att_autobuf ima = {0}, json = {0};
    char *save = NULL;
    memset(r, 0, sizeof(*r));
    verity_read("ima.ascii", &ima);
    verity_read("policy.json", &json);
    verity_read("eventlog.bin", &r->firmware);
    for (char *at = strtok_r((char *)(uintptr_t)att_buf_cstr(&ima), "\n", &save); at;
         at = strtok_r(NULL, "\n", &save)) {
        assert_true(r->n_lines < VERITY_LINES);
        r->lines[r->n_lines++] = strdup(at);
    }
    char *table = verity_text(r, 2), *root = strstr(table, "root_digest=");
    assert_non_null(root);
    (void)snprintf(r->verity_root, sizeof(r->verity_root), "%s", root + strlen("root_digest="));
    free(table);
    (void)snprintf(r->agent.command_line, sizeof(r->agent.command_line),
                   "console=ttyS0 quiet panic=1 ima_policy=critical_data ima_template=ima-ngv2 "
                   "roothash=%s initrd=initrd",
                   r->verity_root);
    verity_file(r, VERITY_WEIGHTS, MANIFEST_MODEL);
    verity_file(r, VERITY_TOOLS, MANIFEST_TOOLS);
    assert_int_equal(verify_policy_parse(att_buf_slice(&json), &r->policy, NULL), ATT_OK);
    r->pcrs = (struct parse_pcr_set){.sel = {.bank = PARSE_ALG_SHA256, .mask = 0x47ff},
                                     .digest_len = ATT_SHA256_LEN};
    r->boot = (struct verify_boot){
        .logs = VERIFY_LOG_FIRMWARE | VERIFY_LOG_IMA, .policy = r->policy, .now = 1800000000};
    r->quoted = (struct verify_quoted){.pcrs = &r->pcrs, .logs = &r->logs};
    r->agent.have_manifest_root = r->agent.has_device = true;
    r->agent.device_major = 254;
    r->roots[0] = r->root;
    r->in = (struct verify_measured_in){.demanded = true,
                                        .wanted = {r->roots, 1, NULL, 0},
                                        .level = 3,
                                        .logs = &r->logs,
                                        .logs_asked = VERIFY_LOG_IMA | VERIFY_LOG_FIRMWARE,
                                        .agent = &r->agent,
                                        .boot = &r->boot,
                                        .quoted = &r->quoted};
    verity_finish(r);
}

static inline struct verify_verdict *verity_judge(struct verity_rig *r,
                                                  struct verify_measured_facts *ret)
{
    att_autobuf ima = {0};
    struct verify_verdict *verdict = verify_verdict_new();
    for (size_t i = 0; i < r->n_lines; i++) {
        att_buf_put_str(&ima, r->lines[i]);
        att_buf_put_str(&ima, "\n");
    }
    evidence_logs_done(&r->logs);
    assert_int_equal(evidence_logs_add(&r->logs, "ima", att_buf_slice(&ima), NULL), ATT_OK);
    assert_int_equal(evidence_logs_add(&r->logs, "firmware", att_buf_slice(&r->firmware), NULL),
                     ATT_OK);
    r->agent.ima_used = ima.len;
    if (r->finding_of_pcr) {
        const struct verify_finding finding = {.id = VERIFY_FINDING_EVENT_UNEXPECTED,
                                               .severity = VERIFY_SEVERITY_WARN,
                                               .pcr = r->finding_of_pcr};
        verify_finding_add(verdict, &finding);
    }
    if (verify_measured(&r->in, verdict, ret) == VERIFY_ACCEPTED) {
        assert_int_equal(verify_verdict_result(verdict), VERIFY_ACCEPTED);
    }
    return verdict;
}

static inline void verity_done(struct verity_rig *r)
{
    for (size_t i = 0; i < VERITY_LINES; i++) {
        free(r->lines[i]);
    }
    manifest_done(&r->manifest);
    att_buf_done(&r->document);
    att_buf_done(&r->firmware);
    evidence_logs_done(&r->logs);
    verify_policy_free(r->policy);
}

#endif
