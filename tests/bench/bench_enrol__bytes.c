/* Area "bytes": how long M4's payload is at the first contact, at a renewal in the same boot (the
 * issuer has the logs; IMA's list has grown by 20 entries), and by the list's length. Without JWS
 * (4/3 of it and about 600 bytes) and HTTP. Firmware log and statements are those of tests/vectors,
 * the list has paths of 9 to 74 bytes. argv: a number that is not used,
 * tests/vectors. */
#include "attestd/base/hash.h"
#include "attestd/base/io.h"
#include "provision/enrol/messages.h"
#include "tests/support/imalist.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MORE 20 /* entries since */

static void must(enum att_rc rc, const struct att_err *err)
{
    if (rc != ATT_OK) {
        fprintf(stderr, "bench_enrol__bytes: %s: %s\n", att_rc_name(rc), err->msg);
        exit(1);
    }
}

static void read_vector(const char *dir, const char *name, struct att_buf *ret)
{
    char path[4300];
    struct att_err err = {0};
    snprintf(path, sizeof path, "%s/%s", dir, name);
    must(att_io_read_file(path, (size_t)4 << 20, ret, &err), &err);
}

static size_t make_list(size_t n, struct att_buf *ret)
{
    static const char path[] = "/usr/lib/x86_64-linux-gnu/some-package/libexec/some-program-of-it";
    size_t before = 0;
    *ret = ATT_BUF_INIT((size_t)8 << 20);
    for (size_t i = 0; i < n + MORE; i++) {
        uint8_t digest[ATT_SHA256_LEN];
        char name[96];
        snprintf(name, sizeof name, "%.*s%08zu", (int)(1 + i % (sizeof path - 1)), path, i);
        struct imalist_entry entry = imalist_file(name, digest);
        before = i == n ? ret->len : before;
        imalist_binary(&entry, ret);
    }
    return before;
}

/* What travels; known: digests that the issuer has. */
static size_t payload(const char *dir, const struct evidence_logs *logs,
                      const uint8_t (*known)[ATT_SHA256_LEN], size_t n_known)
{
    struct att_err err = {0};
    att_autobuf out = ATT_BUF_INIT((size_t)16 << 20);
    struct enrol_m4_request m4 = {.ak_url = strdup("https://issuer.example:8443/acme/ak/"
                                                   "XRKMXLMYPPOqTU7Vo4ugoKg7pA"),
                                  .logs = *logs};
    read_vector(dir, "tpm/certify.attest", &m4.attobj);
    read_vector(dir, "tpm/certify.sig", &m4.attobj);
    read_vector(dir, "tpm/agent.area", &m4.attobj);
    read_vector(dir, "tpm/ak.area", &m4.evidence);
    read_vector(dir, "tpm/quote.attest", &m4.quote.attest);
    read_vector(dir, "tpm/quote.sig", &m4.quote.sig);
    read_vector(dir, "tpm/srk.area", &m4.srk_pub);
    read_vector(dir, "tpm/parent.area", &m4.parent_pub);
    m4.pcrs = (struct parse_pcr_set){.sel = {PARSE_ALG_SHA256, 0x7ff}, .digest_len = 32};
    must(enrol_m4_request_encode(&m4, known, n_known, &out, &err), &err);
    m4.logs = (struct evidence_logs){0}; /* lent */
    enrol_m4_request_done(&m4);
    return out.len;
}

static void row(const char *name, size_t entries, size_t bytes)
{
    printf("{\"name\":\"bytes/%s-ima%zu\",\"unit\":\"bytes\",\"p50\":%zu,\"n\":1}\n", name, entries,
           bytes);
}

static void rows(const char *dir, struct att_slice firmware, size_t entries)
{
    struct att_err err = {0};
    att_autobuf list = {0};
    struct evidence_logs first = {0}, later = {0};
    uint8_t known[2][ATT_SHA256_LEN];
    size_t before = make_list(entries, &list);
    struct att_slice then = ATT_SLICE(list.ptr, before);
    must(evidence_logs_add(&first, "firmware", firmware, &err), &err);
    must(evidence_logs_add(&first, "ima", then, &err), &err);
    row("first", entries, payload(dir, &first, NULL, 0));
    att_sha256(known[0], firmware);
    att_sha256(known[1], then);
    must(evidence_logs_add(&later, "firmware", firmware, &err), &err);
    must(evidence_logs_add(&later, "ima", att_buf_slice(&list), &err), &err);
    must(evidence_logs_set_base(&later, "ima", before, known[1], &err), &err);
    row("renewal", entries, payload(dir, &later, (const uint8_t(*)[ATT_SHA256_LEN])known, 2));
    evidence_logs_done(&first);
    evidence_logs_done(&later);
}

int main(int argc, char **argv)
{
    att_autobuf firmware = {0};
    if (argc != 3) {
        fprintf(stderr, "usage: %s SAMPLES VECTORS\n", argv[0]);
        return 2;
    }
    read_vector(argv[2], "boot/eventlog.bin", &firmware);
    rows(argv[2], att_buf_slice(&firmware), 100);
    rows(argv[2], att_buf_slice(&firmware), 1000);
    rows(argv[2], att_buf_slice(&firmware), 10000);
    return 0;
}
