/* Evidence of a real TPM (swtpm, driven by tpm2-tools and raw commands), judged by the library:
 * what the forge makes and what a TPM makes are accepted alike, and an AK in the owner hierarchy is
 * told from one in the endorsement hierarchy. */
#include "tests/unit/verify/harness.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "provision/evidence/attobj.h"
#include "provision/evidence/formula.h"
#include "tests/support/forge_parts.h"
#include "tests/support/swtpm.h"
#include "tpm/parse/sig.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define AK_HANDLE       0x81010020U
#define KEY_HANDLE      0x81010021U
#define OWNER_AK_HANDLE 0x81010022U

static const char make_objects[] =
    "AK='fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign|noda'\n"
    "SRK='fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|decrypt|noda'\n"
    "KEY='fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign|noda'\n"
    "tpm2_createprimary -Q -C e -G ecc256:ecdsa-sha256:null -g sha256 -a \"$AK\" -c ak.ctx\n"
    "tpm2_evictcontrol -Q -C o -c ak.ctx 0x81010020; tpm2_flushcontext -t\n"
    "tpm2_createprimary -Q -C o -G ecc256:ecdsa-sha256:null -g sha256 -a \"$AK\" -c oak.ctx\n"
    "tpm2_evictcontrol -Q -C o -c oak.ctx 0x81010022; tpm2_flushcontext -t\n"
    "tpm2_createprimary -Q -C o -G ecc256:aes128cfb -g sha256 -a \"$SRK\" -c srk.ctx\n"
    "tpm2_readpublic -Q -c srk.ctx -o srk.pub; tpm2_flushcontext -t\n"
    "tpm2_create -Q -C srk.ctx -G ecc256 -g sha256 -a \"$KEY\" -u k.pub -r k.priv\n"
    "tpm2_flushcontext -t; tpm2_load -Q -C srk.ctx -u k.pub -r k.priv -c k.ctx\n"
    "tpm2_evictcontrol -Q -C o -c k.ctx 0x81010021; tpm2_flushcontext -t\n"
    "tpm2_readpublic -Q -c 0x81010020 -o ak.pub; tpm2_readpublic -Q -c 0x81010022 -o oak.pub\n"
    "tpm2_readpublic -Q -c 0x81010021 -o key.pub\n"
    "tpm2_readpublic -Q -c 0x81010001 -o ek-rsa.pub; tpm2_readpublic -Q -c 0x81010016 -o "
    "ek-ecc.pub\n"
    "tpm2_nvread -Q 0x01c00002 -o ek-rsa.der; tpm2_nvread -Q 0x01c00016 -o ek-ecc.der\n"
    "mkdir roots; cp \"$ROOTS\" roots/ek.pem\n";

struct real {
    struct swtpm tpm;
    struct forge *forge; /* the issuer's side, the log, the AK certificate */
    struct att_buf cert_info, certify_sig, quote, quote_sig, evidence;
    struct parse_pcr_set pcrs;
};

static void sh(struct real *r, const char *command)
{
    att_autobuf line = {0};
    att_buf_printf(&line, "ROOTS='%s'; cd '%s'\n%s", r->tpm.ek_roots, r->tpm.dir, command);
    if (swtpm_sh(&r->tpm, att_buf_cstr(&line)) != 0) {
        fail_msg("a command of the test failed");
    }
}

static void slurp(struct real *r, const char *name, struct att_buf *ret)
{
    char path[300];
    struct att_err err = {0};
    (void)snprintf(path, sizeof(path), "%s/%s", r->tpm.dir, name);
    if (att_io_read_file(path, 65536, ret, &err)) {
        fail_msg("%s", err.msg);
    }
}

/* The TPMT_PUBLIC of a file that holds a TPM2B_PUBLIC, in a buffer of its own. */
static void area_of(struct real *r, const char *name, struct att_buf *ret)
{
    att_autobuf file = {0};
    struct att_slice area;
    slurp(r, name, &file);
    assert_int_equal(parse_public_unwrap(att_buf_slice(&file), &area, NULL), ATT_OK);
    att_buf_reset(ret);
    att_buf_put_slice(ret, area);
}

static void command_head(struct att_buf *cmd, uint32_t code, const uint32_t *handles, size_t n,
                         size_t n_auth)
{
    att_buf_be16(cmd, 0x8002); /* TPM_ST_SESSIONS */
    att_buf_be32(cmd, 0);      /* size, set at the end */
    att_buf_be32(cmd, code);
    for (size_t i = 0; i < n; i++) {
        att_buf_be32(cmd, handles[i]);
    }
    att_buf_be32(cmd, (uint32_t)(9 * n_auth));
    for (size_t i = 0; i < n_auth; i++) {
        att_buf_put(cmd, "\x40\0\0\x09\0\0\0\0\0", 9); /* empty password */
    }
}

/* Sends a command whose answer is TPM2B_ATTEST and TPMT_SIGNATURE. */
static void attest(struct real *r, struct att_buf *cmd, struct att_buf *ret_attest,
                   struct att_buf *ret_sig)
{
    char path[300];
    att_autobuf answer = {0};
    cmd->ptr[4] = (uint8_t)(cmd->len >> 8);
    cmd->ptr[5] = (uint8_t)cmd->len;
    (void)snprintf(path, sizeof(path), "%s/cmd", r->tpm.dir);
    assert_int_equal(att_io_write_file(path, att_buf_slice(cmd), 0600, NULL), ATT_OK);
    sh(r, "tpm2_send < cmd > answer\n");
    slurp(r, "answer", &answer);
    struct att_cur cur = att_cur_init(att_buf_slice(&answer));
    (void)att_cur_be16(&cur);
    (void)att_cur_be32(&cur);
    assert_int_equal(att_cur_be32(&cur), 0); /* TPM_RC_SUCCESS */
    struct att_slice params = att_cur_take_be32(&cur, 4096);
    struct att_cur in = att_cur_init(params);
    struct att_slice statement = att_cur_take_be16(&in, 4096);
    assert_false(in.failed);
    att_buf_put_slice(ret_attest, statement);
    att_buf_put(ret_sig, in.ptr, in.left);
}

static void certify(struct real *r, uint32_t ak, struct att_slice extra)
{
    att_autobuf cmd = {0};
    const uint32_t handles[] = {KEY_HANDLE, ak};
    command_head(&cmd, 0x148, handles, 2, 2);
    att_buf_field_be16(&cmd, extra);
    att_buf_be16(&cmd, PARSE_ALG_NULL);
    att_buf_reset(&r->cert_info);
    att_buf_reset(&r->certify_sig);
    attest(r, &cmd, &r->cert_info, &r->certify_sig);
}

static void quote(struct real *r, uint32_t ak, struct att_slice extra)
{
    att_autobuf cmd = {0};
    uint8_t raw[PARSE_PCR_RAW_LEN];
    command_head(&cmd, 0x158, &ak, 1, 1);
    att_buf_field_be16(&cmd, extra);
    att_buf_be16(&cmd, PARSE_ALG_NULL);
    assert_int_equal(parse_pcr_sel_raw(&r->forge->selection, raw, NULL), ATT_OK);
    att_buf_put(&cmd, raw, sizeof(raw));
    att_buf_reset(&r->quote);
    att_buf_reset(&r->quote_sig);
    attest(r, &cmd, &r->quote, &r->quote_sig);
}

/* Plays the forge's firmware log into the PCRs, as a firmware would have. */
static void extend(struct real *r)
{
    att_autobuf line = {0};
    att_buf_put_str(&line, "tpm2_pcrextend");
    for (size_t i = 0; i < r->forge->n_events; i++) {
        att_buf_printf(&line, " %u:sha256=", r->forge->events[i].pcr);
        att_buf_hex(&line, ATT_SLICE_ARRAY(r->forge->events[i].digest));
    }
    att_buf_put_str(&line, "\n");
    sh(r, att_buf_cstr(&line));
}

static void make_evidence(struct real *r, const struct parse_name *key_name)
{
    struct evidence_statement statement = {.key_store = "tpm", .level = 1};
    att_autobuf manifest = {0};
    (void)snprintf(statement.identifier, sizeof(statement.identifier), "%s", FORGE_IDENTIFIER);
    memcpy(statement.key_name, key_name->bytes, key_name->len);
    statement.key_name_len = key_name->len;
    assert_int_equal(evidence_manifest_encode(&r->forge->logs, &manifest, NULL), ATT_OK);
    assert_int_equal(evidence_manifest_parse(att_buf_slice(&manifest), &statement.logs, NULL),
                     ATT_OK);
    att_buf_reset(&r->evidence);
    assert_int_equal(evidence_statement_encode(&statement, &r->evidence, NULL), ATT_OK);
    evidence_statement_done(&statement);
}

static void issuer_side(struct real *r, const char *ak_file)
{
    struct forge *f = r->forge;
    struct att_err err = {0};
    area_of(r, ak_file, &f->ak.area);
    area_of(r, "srk.pub", &f->srk.area);
    area_of(r, "key.pub", &f->agent.area);
    EVP_PKEY_free(f->ak.pkey);
    f->ak.pkey = NULL;
    assert_int_equal(parse_public_parse(att_buf_slice(&f->ak.area), &f->ak.pub, &err), ATT_OK);
    assert_int_equal(parse_public_pkey(&f->ak.pub, &f->ak.pkey, &err), ATT_OK);
    att_buf_reset(&f->ak_cert);
    forge_ak_certificate(f, "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff");
}

static int setup(void **state)
{
    struct real *r = calloc(1, sizeof(*r));
    struct att_err err = {0};
    *state = r;
    if (!swtpm_available()) {
        return 0;
    }
    if (swtpm_new(&r->tpm, NULL, &err)) {
        print_message("%s\n", err.msg);
        return -1;
    }
    r->forge = forge_new(FORGE_EK_P256, FORGE_ORDER);
    sh(r, make_objects);
    extend(r);
    forge_extend(r->forge);
    r->pcrs = r->forge->pcrs;
    forge_log_encode(r->forge, &r->forge->log_bytes);
    att_autobuf json = {0};
    forge_policy_json(r->forge, &json);
    if (evidence_logs_add(&r->forge->logs, "firmware", att_buf_slice(&r->forge->log_bytes), &err) ||
        verify_policy_parse(att_buf_slice(&json), &r->forge->policy, &err)) {
        print_message("%s\n", err.msg);
        return -1;
    }
    return 0;
}

static int teardown(void **state)
{
    struct real *r = *state;
    if (r->forge) {
        swtpm_done(&r->tpm);
    }
    forge_free(r->forge);
    att_buf_done(&r->cert_info);
    att_buf_done(&r->certify_sig);
    att_buf_done(&r->quote);
    att_buf_done(&r->quote_sig);
    att_buf_done(&r->evidence);
    free(r);
    return 0;
}

static void judge_order(struct real *r, struct verify_verdict *verdict)
{
    struct forge *f = r->forge;
    struct verify_agent_in in = {
        .ak_cert = att_buf_slice(&f->ak_cert),
        .certify_sig = att_buf_slice(&r->certify_sig),
        .cert_info = att_buf_slice(&r->cert_info),
        .pub_area = att_buf_slice(&f->agent.area),
        .evidence = att_buf_slice(&r->evidence),
        .quoted = {.attest = att_buf_slice(&r->quote),
                   .signature = att_buf_slice(&r->quote_sig),
                   .pcrs = &r->pcrs,
                   .logs = &f->logs},
        .srk_pub = att_buf_slice(&f->srk.area),
        .key_authorization = FORGE_KEYAUTH,
        .identifier = FORGE_IDENTIFIER,
        .key_stores = VERIFY_KEY_TPM,
        .key_types = VERIFY_TYPE(ATT_KEYTYPE_P256),
        .ak = {.ak_pub = att_buf_slice(&f->ak.area), .ak_cert = att_buf_slice(&f->ak_cert)},
        .boot = {.selection = f->selection,
                 .logs = VERIFY_LOG_FIRMWARE,
                 .policy = f->policy,
                 .now = FORGE_NOW}};
    (void)!verify_agent(&in, verdict, NULL);
}

static void make_order(struct real *r, const char *ak_file, uint32_t ak)
{
    uint8_t extra[ATT_SHA256_LEN];
    struct parse_name name;
    issuer_side(r, ak_file);
    assert_int_equal(parse_name_of_area(att_buf_slice(&r->forge->agent.area), &name, NULL), ATT_OK);
    evidence_certify_extra(extra, att_slice_str(FORGE_KEYAUTH));
    certify(r, ak, ATT_SLICE_ARRAY(extra));
    make_evidence(r, &name);
    evidence_quote_extra(extra, att_slice_str(FORGE_KEYAUTH), att_buf_slice(&r->cert_info),
                         att_buf_slice(&r->evidence));
    quote(r, ak, ATT_SLICE_ARRAY(extra));
}

static void test_order(void **state)
{
    struct real *r = *state;
    if (!r->forge) {
        skip();
    }
    make_order(r, "ak.pub", AK_HANDLE);
    {
        verify_autoverdict *verdict = verify_verdict_new();
        judge_order(r, verdict);
        assert_accepted(verdict, "a real TPM's evidence");
    }
    sh(r, "tpm2_pcrextend 14:sha256="
          "0000000000000000000000000000000000000000000000000000000000000001\n");
    make_order(r, "ak.pub", AK_HANDLE);
    verify_autoverdict *verdict = verify_verdict_new();
    judge_order(r, verdict);
    assert_refused(verdict, VERIFY_REASON_PCR_DIGEST, "PCR 14 was extended meanwhile");
}

/* The index holds what a quote says after its clock: the selection asked for and the digest of PCR
 * values of the attacker's choice. The AK signs it, with the right nonce, as TPM2_NV_Certify. */
static void nv_certify(struct real *r, struct att_slice extra)
{
    uint8_t raw[PARSE_PCR_RAW_LEN], digest[PARSE_DIGEST_MAX];
    char path[300], line[200];
    size_t len = 0;
    att_autobuf contents = {0}, cmd = {0};
    assert_int_equal(parse_pcr_sel_raw(&r->forge->selection, raw, NULL), ATT_OK);
    assert_int_equal(parse_pcr_set_digest(&r->pcrs, PARSE_ALG_SHA256, digest, &len, NULL), ATT_OK);
    att_buf_put(&contents, raw, sizeof(raw));
    att_buf_field_be16(&contents, ATT_SLICE(digest, len));
    (void)snprintf(path, sizeof(path), "%s/nv", r->tpm.dir);
    assert_int_equal(att_io_write_file(path, att_buf_slice(&contents), 0600, NULL), ATT_OK);
    (void)snprintf(line, sizeof(line),
                   "tpm2_nvdefine -Q -C o -s %zu -a 'authread|authwrite' 0x01500001\n"
                   "tpm2_nvwrite -Q -C 0x01500001 -i nv 0x01500001\n",
                   contents.len);
    sh(r, line);
    const uint32_t handles[] = {AK_HANDLE, 0x01500001U, 0x01500001U};
    command_head(&cmd, 0x184, handles, 3, 2);
    att_buf_field_be16(&cmd, extra);
    att_buf_be16(&cmd, PARSE_ALG_NULL);
    att_buf_be16(&cmd, (uint16_t)contents.len);
    att_buf_be16(&cmd, 0);
    att_buf_reset(&r->quote);
    att_buf_reset(&r->quote_sig);
    attest(r, &cmd, &r->quote, &r->quote_sig);
}

static void test_nv_certify(void **state)
{
    struct real *r = *state;
    if (!r->forge) {
        skip();
    }
    uint8_t extra[ATT_SHA256_LEN];
    make_order(r, "ak.pub", AK_HANDLE);
    evidence_quote_extra(extra, att_slice_str(FORGE_KEYAUTH), att_buf_slice(&r->cert_info),
                         att_buf_slice(&r->evidence));
    nv_certify(r, ATT_SLICE_ARRAY(extra));
    struct parse_attest attest_nv;
    assert_int_equal(parse_attest_parse(att_buf_slice(&r->quote), &attest_nv, NULL), ATT_OK);
    assert_int_equal(attest_nv.type, PARSE_ATTEST_NV);
    assert_true(att_slice_eq(attest_nv.extra_data, ATT_SLICE_ARRAY(extra)));
    assert_int_equal(parse_sig_verify(&r->forge->ak.pub, att_buf_slice(&r->quote_sig),
                                      att_buf_slice(&r->quote), NULL),
                     ATT_OK);
    verify_autoverdict *verdict = verify_verdict_new();
    judge_order(r, verdict);
    assert_refused(verdict, VERIFY_REASON_QUOTE_TYPE, "a real NV_Certify that looks like PCRs");
}

static void test_owner_ak(void **state)
{
    struct real *r = *state;
    if (!r->forge) {
        skip();
    }
    make_order(r, "oak.pub", OWNER_AK_HANDLE);
    verify_autoverdict *verdict = verify_verdict_new();
    judge_order(r, verdict);
    assert_refused(verdict, VERIFY_REASON_AK_HIERARCHY, "a real AK of the owner hierarchy");
}

static void judge_ek(struct real *r, const struct certs_ek_store *roots, const char *der,
                     const char *pub, enum verify_reason reason)
{
    att_autobuf cert = {0}, area = {0};
    slurp(r, der, &cert);
    area_of(r, pub, &area);
    struct verify_ek_in in = {.ek_cert = att_buf_slice(&cert),
                              .ek_pub = att_buf_slice(&area),
                              .roots = roots,
                              .now = att_now_utc_s()};
    verify_autoverdict *verdict = verify_verdict_new();
    struct verify_ek_facts facts;
    (void)!verify_ek(&in, verdict, &facts);
    if (reason == VERIFY_REASON_NONE) {
        assert_accepted(verdict, der);
    } else {
        assert_refused(verdict, reason, der);
    }
}

static void test_ek(void **state)
{
    struct real *r = *state;
    if (!r->forge) {
        skip();
    }
    char dir[300];
    struct certs_ek_store *roots = NULL;
    struct att_err err = {0};
    (void)snprintf(dir, sizeof(dir), "%s/roots", r->tpm.dir);
    if (certs_ek_store_load(dir, &roots, &err)) {
        fail_msg("%s", err.msg);
    }
    judge_ek(r, roots, "ek-rsa.der", "ek-rsa.pub", VERIFY_REASON_NONE);
    judge_ek(r, roots, "ek-ecc.der", "ek-ecc.pub", VERIFY_REASON_NONE);
    judge_ek(r, roots, "ek-rsa.der", "ek-ecc.pub", VERIFY_REASON_EK_CERT_MISMATCH);
    judge_ek(r, roots, "ek-rsa.der", "ak.pub", VERIFY_REASON_EK_TEMPLATE);
    judge_ek(r, r->forge->roots, "ek-rsa.der", "ek-rsa.pub", VERIFY_REASON_EK_CHAIN);
    certs_ek_store_free(roots);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_ek), cmocka_unit_test(test_owner_ak),
                                       cmocka_unit_test(test_nv_certify),
                                       cmocka_unit_test(test_order)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
