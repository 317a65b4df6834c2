/* Real firmware logs (shared vectors): every event and every PCR compared with tpm2_eventlog and
 * with the decodings that tpm2-tools keeps. Skipped where the vectors are not here.
 *
 * Where we differ, and why (also in tests/vectors/README.md):
 * - option_rom_eventlog: tpm2_eventlog 5.4 crashes on it; we read it to its end.
 * - short_no_action_eventlog: a SHA-1 log whose only event is a 17-byte EV_NO_ACTION; tpm2_eventlog
 *   refuses it, we read one event that extends nothing.
 * - specid-vendordata.bin: its Spec ID event says 37 bytes, and 4 bytes of vendor info which then
 *   stand outside of it. tpm2_eventlog does not compare the two; we refuse. */
#include "vectors.h"

#include "attestd/base/enc.h"
#include "attestd/base/hash.h"
#include "attestd/base/json.h"
#include "tpm/parse/attest.h"
#include "tpm/parse/eventlog_explain.h"
#include "tpm/parse/sig.h"

#include <dirent.h>

static void read_log(const char *name, struct att_buf *ret)
{
    char folder[1000];
    snprintf(folder, sizeof folder, "%s/eventlogs", shared_vectors());
    read_file_at(folder, name, ret);
}

/* One event as tpm2_eventlog's YAML has it. */
struct yaml_event {
    int number, pcr;
    char type[64];
    struct {
        char alg[16], hex[2 * PARSE_DIGEST_MAX + 1];
    } digests[PARSE_EVENTLOG_ALGS];
    size_t n_digests;
    int size;
};

struct yaml {
    struct yaml_event events[512];
    size_t n_events;
    struct {
        char alg[16], hex[2 * PARSE_DIGEST_MAX + 1];
        int pcr;
    } pcrs[128];
    size_t n_pcrs;
};

static struct yaml_event *yaml_event(struct yaml *yaml)
{
    assert_true(yaml->n_events < 512);
    struct yaml_event *ev = &yaml->events[yaml->n_events];
    memset(ev, 0, sizeof *ev);
    ev->number = (int)yaml->n_events++;
    ev->size = -1;
    return ev;
}

static void yaml_line(struct yaml *yaml, const char *line, int *in_pcrs, char bank[16])
{
    int number = 0;
    char text[300];
    struct yaml_event *ev = yaml->n_events ? &yaml->events[yaml->n_events - 1] : NULL;
    if (strcmp(line, "pcrs:\n") == 0) {
        *in_pcrs = 1;
    } else if (*in_pcrs && sscanf(line, "    %d : 0x%290[0-9a-f]", &number, text) == 2) {
        assert_true(yaml->n_pcrs < 128);
        snprintf(yaml->pcrs[yaml->n_pcrs].alg, 16, "%s", bank);
        snprintf(yaml->pcrs[yaml->n_pcrs].hex, sizeof yaml->pcrs[0].hex, "%.128s", text);
        yaml->pcrs[yaml->n_pcrs++].pcr = number;
    } else if (*in_pcrs && sscanf(line, "  %15[a-z0-9_]:", bank) == 1) {
        return;
    } else if (sscanf(line, "- EventNum: %d", &number) == 1) {
        yaml_event(yaml)->number = number;
    } else if (!strncmp(line, "  PCRIndex", 10) && sscanf(line, "  PCRIndex: %d", &number) == 1) {
        /* events of SHA-1 logs are written without their number */
        ev = ev && ev->size < 0 ? ev : yaml_event(yaml);
        ev->pcr = number;
    } else if (ev && ev->size < 0 && sscanf(line, "  EventType: %60s", text) == 1) {
        snprintf(ev->type, sizeof ev->type, "%.60s", text);
    } else if (ev && ev->size < 0 && sscanf(line, "  - AlgorithmId: %15s", text) == 1) {
        snprintf(ev->digests[ev->n_digests].alg, 16, "%.15s", text);
    } else if (ev && ev->size < 0 && !strncmp(line, "    Digest", 10) &&
               sscanf(line, "    Digest: \"%128[0-9a-f]", text) == 1) {
        snprintf(ev->digests[ev->n_digests++].hex, sizeof ev->digests[0].hex, "%.128s", text);
    } else if (ev && ev->size < 0 && sscanf(line, "  EventSize: %d", &number) == 1) {
        ev->size = number;
    }
}

static void yaml_read(FILE *f, struct yaml *yaml)
{
    char *line = NULL, bank[16] = "";
    size_t cap = 0;
    int in_pcrs = 0;
    yaml->n_events = yaml->n_pcrs = 0;
    while (getline(&line, &cap, f) > 0) {
        yaml_line(yaml, line, &in_pcrs, bank);
    }
    free(line);
}

static void compare_event(const struct parse_eventlog_event *ev, const struct yaml_event *want)
{
    assert_int_equal(ev->number, want->number);
    assert_int_equal(ev->pcr, want->pcr);
    assert_int_equal(ev->data.len, want->size);
    const char *type = parse_eventlog_type_name(ev->type);
    assert_string_equal(type ? type : "Unknown", want->type);
    if (ev->number == 0 && want->n_digests == 0) {
        return; /* the Spec ID event's digest is written in another place */
    }
    assert_int_equal(ev->n_digests, want->n_digests);
    for (size_t i = 0; i < want->n_digests; i++) {
        struct att_slice digest =
            parse_eventlog_digest_of(ev, parse_alg_by_name(want->digests[i].alg));
        char hex[2 * PARSE_DIGEST_MAX + 1];
        att_hex(hex, digest);
        assert_string_equal(hex, want->digests[i].hex);
    }
}

static void compare_pcrs(struct att_slice bytes, const struct yaml *yaml)
{
    struct parse_eventlog log;
    assert_ok(parse_eventlog_init(&log, bytes, err));
    size_t compared = 0;
    for (size_t a = 0; a < log.n_algs; a++) {
        struct parse_eventlog_pcrs pcrs;
        struct att_err why = {0};
        if (parse_eventlog_replay(bytes, log.algs[a].alg, &pcrs, &why) != ATT_OK) {
            /* events without a digest of that bank: tpm2_eventlog lists no PCR of it */
            assert_non_null(strstr(why.msg, "no digest of the replayed bank"));
            continue;
        }
        uint32_t seen = 0;
        for (size_t i = 0; i < yaml->n_pcrs; i++) {
            if (parse_alg_by_name(yaml->pcrs[i].alg) != log.algs[a].alg) {
                continue;
            }
            char hex[2 * PARSE_DIGEST_MAX + 1];
            att_hex(hex, ATT_SLICE(pcrs.value[yaml->pcrs[i].pcr], pcrs.digest_len));
            assert_string_equal(hex, yaml->pcrs[i].hex);
            seen |= 1u << yaml->pcrs[i].pcr;
            compared++;
        }
        assert_int_equal(seen, pcrs.with_events);
    }
    assert_int_equal(compared, yaml->n_pcrs);
}

static void compare(const char *name, FILE *f)
{
    static struct yaml yaml;
    yaml_read(f, &yaml);
    att_autobuf bytes = {0};
    read_log(name, &bytes);
    struct parse_eventlog log;
    struct parse_eventlog_event ev;
    assert_ok(parse_eventlog_init(&log, att_buf_slice(&bytes), err));
    size_t n = 0;
    struct att_err why = {0};
    while (parse_eventlog_next(&log, &ev, &why) == ATT_OK) {
        assert_true(n < yaml.n_events);
        compare_event(&ev, &yaml.events[n++]);
    }
    assert_int_equal(why.rc, ATT_OK);
    assert_int_equal(n, yaml.n_events);
    assert_true(n > 0);
    compare_pcrs(att_buf_slice(&bytes), &yaml);
}

/* What the tools say of the other logs is written at the top of this file. */
static int tool_differs(const char *name)
{
    return !strcmp(name, "option_rom_eventlog") || !strcmp(name, "short_no_action_eventlog") ||
           !strcmp(name, "specid-vendordata.bin");
}

static void test_as_tpm2_eventlog_says(void **state)
{
    (void)state;
    if (!shared_vectors() || system("command -v tpm2_eventlog >/dev/null") != 0) {
        print_message("the shared vectors or tpm2_eventlog are not here: skipped\n");
        skip();
    }
    char path[1000];
    snprintf(path, sizeof path, "%s/eventlogs", shared_vectors());
    DIR *dir = opendir(path);
    assert_non_null(dir);
    int compared = 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (entry->d_name[0] == '.' || !strcmp(entry->d_name, "expected") ||
            tool_differs(entry->d_name)) {
            continue;
        }
        char command[1400];
        snprintf(command, sizeof command, "tpm2_eventlog '%s/%s' 2>/dev/null", path, entry->d_name);
        FILE *f = popen(command, "r");
        assert_non_null(f);
        compare(entry->d_name, f);
        assert_int_equal(pclose(f), 0);
        compared++;
    }
    closedir(dir);
    assert_true(compared >= 12);
}

static void test_as_the_kept_decodings_say(void **state)
{
    (void)state;
    if (!shared_vectors()) {
        print_message("the shared vectors are not here: skipped\n");
        skip();
    }
    char path[1000];
    snprintf(path, sizeof path, "%s/eventlogs/expected", shared_vectors());
    DIR *dir = opendir(path);
    assert_non_null(dir);
    int compared = 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char *end = strstr(entry->d_name, ".yaml");
        if (!end) {
            continue;
        }
        char file[1400], name[256];
        snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
        snprintf(name, sizeof name, "%.*s", (int)(end - entry->d_name), entry->d_name);
        FILE *f = fopen(file, "r");
        assert_non_null(f);
        compare(name, f);
        fclose(f);
        compared++;
    }
    closedir(dir);
    assert_true(compared >= 10);
}

static void test_where_we_differ(void **state)
{
    (void)state;
    if (!shared_vectors()) {
        skip();
    }
    att_autobuf rom = {0}, brief = {0}, vendor = {0};
    struct parse_eventlog_pcrs pcrs;
    struct parse_eventlog log;
    read_log("option_rom_eventlog", &rom);
    assert_ok(parse_eventlog_replay(att_buf_slice(&rom), PARSE_ALG_SHA1, &pcrs, err));
    assert_true(pcrs.n_events > 50);
    read_log("short_no_action_eventlog", &brief);
    assert_ok(parse_eventlog_replay(att_buf_slice(&brief), PARSE_ALG_SHA1, &pcrs, err));
    assert_int_equal(pcrs.n_events, 1);
    assert_int_equal(pcrs.with_events, 0);
    assert_int_equal(pcrs.startup_locality, 3);
    read_log("specid-vendordata.bin", &vendor);
    assert_refused(parse_eventlog_init(&log, att_buf_slice(&vendor), err), ATT_E_PARSE, "",
                   "Spec ID is not as long as its 37 bytes");
}

/* Every prefix of every real log is read without harm, also by the explainer at some lengths. */
static void test_truncated_real_logs(void **state)
{
    (void)state;
    if (!shared_vectors()) {
        skip();
    }
    static const char *const logs[] = {"event-sd-boot-fedora37.bin", "event-uefi-sha1-log.bin",
                                       "event-uefivar.bin", "short_no_action_eventlog"};
    for (size_t i = 0; i < 4; i++) {
        att_autobuf bytes = {0};
        read_log(logs[i], &bytes);
        for (size_t len = 0; len < bytes.len; len++) {
            uint8_t *copy = malloc(len ? len : 1);
            memcpy(copy, bytes.ptr, len);
            struct parse_eventlog log;
            struct parse_eventlog_event ev;
            enum att_rc rc = parse_eventlog_init(&log, ATT_SLICE(copy, len), NULL);
            while (rc == ATT_OK) {
                rc = parse_eventlog_next(&log, &ev, NULL);
            }
            assert_true(rc == ATT_E_NOTFOUND || rc == ATT_E_PARSE);
            free(copy);
        }
    }
}

/* ---- a real VM: its key, its quote, its log ----------------------------------------------------
 */

static void b64_member(const json_t *obj, const char *name, struct att_buf *ret)
{
    const char *text = NULL;
    assert_ok(att_json_str(obj, name, &text, err));
    assert_ok(att_unb64(ret, att_slice_str(text), err));
}

static int verify_sha1(EVP_PKEY *pkey, struct att_slice sig, struct att_slice message)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int ok = EVP_DigestVerifyInit(ctx, NULL, EVP_sha1(), NULL, pkey) == 1 &&
             EVP_DigestVerify(ctx, sig.ptr, sig.len, message.ptr, message.len) == 1;
    EVP_MD_CTX_free(ctx);
    return ok;
}

/* An AK of that time signs with SHA-1 and quotes the SHA-1 bank: everything holds together, and we
 * refuse all of it by name. */
static void test_windows_vm(void **state)
{
    (void)state;
    if (!shared_vectors()) {
        skip();
    }
    att_autobuf text = {0}, area = {0}, quote = {0}, sig_bytes = {0}, raw = {0};
    char folder[1000];
    snprintf(folder, sizeof folder, "%s/quotes", shared_vectors());
    read_file_at(folder, "windows_gcp_shielded_vm.json", &text);
    att_autojson *json = NULL;
    assert_ok(att_json_parse(att_buf_slice(&text), (size_t)1 << 20, &json, err));
    b64_member(json_object_get(json, "AK"), "Public", &area);
    b64_member(json_object_get(json, "Quote"), "Quote", &quote);
    b64_member(json_object_get(json, "Quote"), "Signature", &sig_bytes);
    b64_member(json_object_get(json, "Log"), "Raw", &raw);

    struct parse_public ak;
    struct parse_attest a;
    struct parse_sig sig;
    struct parse_name name, qn;
    assert_ok(parse_public_parse(att_buf_slice(&area), &ak, err));
    assert_ok(parse_attest_quote(att_buf_slice(&quote), &a, err));
    assert_ok(parse_sig_parse(att_buf_slice(&sig_bytes), &sig, err));
    assert_ok(parse_name_of_area(att_buf_slice(&area), &name, err));
    /* the quote verifies with SHA-1, which we do not take */
    assert_int_equal(sig.hash, PARSE_ALG_SHA1);
    EVP_PKEY *pkey = NULL;
    assert_ok(parse_public_pkey(&ak, &pkey, err));
    assert_true(verify_sha1(pkey, sig.rsa, att_buf_slice(&quote)));
    EVP_PKEY_free(pkey);
    assert_refused(parse_sig_verify(&ak, att_buf_slice(&sig_bytes), att_buf_slice(&quote), err),
                   ATT_E_AUTH, "", "hash is not SHA-256");
    assert_refused(parse_public_check_ak(&ak, err), ATT_E_DENIED, "akAttributes", "P-256");
    assert_ok(parse_name_qualified(PARSE_RH_OWNER, &name, 1, &qn, err));
    assert_int_equal(a.qualified_signer.len, qn.len);
    /* its digest is over the VM's PCRs, its log replays to them */
    struct parse_pcr_sel sel;
    assert_refused(parse_pcr_sel_from_raw(a.u.quote.pcr_select, &sel, err), ATT_E_UNSUPPORTED, "",
                   "bank sha1");
    uint8_t values[PARSE_PCR_COUNT][20];
    size_t index = 0;
    json_t *entry = NULL;
    assert_int_equal(json_array_size(json_object_get(json_object_get(json, "Log"), "PCRs")), 24);
    json_array_foreach(json_object_get(json_object_get(json, "Log"), "PCRs"), index, entry)
    {
        json_int_t pcr = json_integer_value(json_object_get(entry, "Index"));
        att_autobuf value = {0};
        b64_member(entry, "Digest", &value);
        assert_int_equal(value.len, 20);
        assert_true(pcr >= 0 && pcr <= 23);
        memcpy(values[pcr], value.ptr, 20);
    }
    uint8_t digest[ATT_HASH_MAX];
    size_t len = 0;
    struct att_slice all = ATT_SLICE(values, sizeof values);
    assert_ok(att_hash_v("SHA1", digest, &len, &all, 1, err));
    assert_true(att_slice_eq(a.u.quote.pcr_digest, ATT_SLICE(digest, len)));
    struct parse_eventlog_pcrs pcrs;
    assert_ok(parse_eventlog_replay(att_buf_slice(&raw), PARSE_ALG_SHA1, &pcrs, err));
    assert_true(pcrs.n_events > 20);
    for (unsigned i = 0; i < PARSE_PCR_COUNT; i++) {
        assert_memory_equal(pcrs.value[i], values[i], 20);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_tpm2_eventlog_says),
        cmocka_unit_test(test_as_the_kept_decodings_say),
        cmocka_unit_test(test_where_we_differ),
        cmocka_unit_test(test_truncated_real_logs),
        cmocka_unit_test(test_windows_vm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
