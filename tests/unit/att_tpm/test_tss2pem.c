/* tpm/tss2pem: sealed blobs as text; every deviation is refused. */
#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "tests/unit/att_tpm/common.h"
#include "tpm/tss2pem.h"

static void agent_blob(struct tpm_blob *ret)
{
    struct parse_public pub;
    static const uint8_t priv[126] = {0, 0x20, 1, 2, 3};
    *ret = (struct tpm_blob){.type = TPM_BLOB_KEY, .parent_handle = 0x40000001};
    parse_public_agent_template(&pub);
    pub.x_len = pub.y_len = 32;
    memset(pub.x, 0x11, 32);
    memset(pub.y, 0x22, 32);
    assert_ok(parse_public_encode(&pub, &ret->pub, err));
    att_buf_put(&ret->priv, priv, sizeof(priv));
    assert_ok(tpm_blob_name(ret, &ret->parent_name, err)); /* any Name will do */
}

static void encode(const struct tpm_blob *blob, struct att_buf *ret)
{
    att_buf_reset(ret);
    assert_ok(tpm_tss2pem_encode(blob, ret, err));
}

/* The DER in a PEM text. */
static void der_of(const struct att_buf *pem, struct att_buf *ret)
{
    att_autobuf text = {0}, b64 = {0};
    att_buf_put_slice(&text, att_buf_slice(pem));
    const char *p = strstr(att_buf_cstr(&text), "KEY-----\n") + 9;
    for (; *p != '-'; p++) {
        if (*p != '\n') {
            att_buf_put(&b64, p, 1);
        }
    }
    assert_ok(att_unb64(ret, att_buf_slice(&b64), err));
}

static void pem_of(struct att_slice der, struct att_buf *ret)
{
    att_buf_reset(ret);
    att_autobuf b64 = {0};
    att_buf_b64(&b64, der);
    att_buf_put_str(ret, "-----BEGIN TSS2 PRIVATE KEY-----\n");
    for (size_t at = 0; at < b64.len; at += 64) {
        att_buf_put(ret, b64.ptr + at, b64.len - at < 64 ? b64.len - at : 64);
        att_buf_put_str(ret, "\n");
    }
    att_buf_put_str(ret, "-----END TSS2 PRIVATE KEY-----\n");
}

static void refuse(const struct att_buf *text, enum att_rc code)
{
    tpm_autoblob blob = {0};
    assert_refused(tpm_tss2pem_parse(att_buf_slice(text), &blob, err), code, "");
    assert_int_equal(blob.pub.len, 0);
}

static void refuses_bad_armor(void **state)
{
    tpm_autoblob blob = {0};
    att_autobuf good = {0}, text = {0};
    (void)state;
    agent_blob(&blob);
    encode(&blob, &good);
    const char *pem = att_buf_cstr(&good);

    refuse(&text, ATT_E_PARSE); /* empty */
    for (size_t len = 1; len + 1 < good.len; len++) {
        att_buf_reset(&text);
        att_buf_put(&text, pem, len);
        refuse(&text, ATT_E_PARSE);
    }
    static const char *const before[] = {
        "\n", " ", "x\n", "Parent-Name: 000b\n", "Parent-Name: zz\n", "Parent-name: 00\n"};
    for (size_t i = 0; i < 6; i++) {
        att_buf_reset(&text);
        att_buf_put_str(&text, before[i]);
        att_buf_put_str(&text, pem);
        refuse(&text, ATT_E_PARSE);
    }
    static const char *const after[] = {"\n", "x", "-----BEGIN TSS2 PRIVATE KEY-----\n"};
    for (size_t i = 0; i < 3; i++) {
        att_buf_reset(&text);
        att_buf_put_str(&text, pem);
        att_buf_put_str(&text, after[i]);
        refuse(&text, ATT_E_PARSE);
    }
    att_buf_reset(&text);
    att_buf_put_str(&text, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    refuse(&text, ATT_E_PARSE);
    att_buf_reset(&text);
    for (unsigned i = 0; i <= TPM_BLOB_PEM_MAX; i++) {
        att_buf_put_str(&text, "A");
    }
    refuse(&text, ATT_E_LIMIT);
}

static void refuses_bad_der(void **state)
{
    tpm_autoblob blob = {0};
    att_autobuf good = {0}, der = {0}, text = {0}, other = {0};
    (void)state;
    agent_blob(&blob);
    encode(&blob, &good);
    der_of(&good, &der);
    pem_of(att_buf_slice(&der), &text);
    tpm_autoblob parsed = {0};
    assert_ok(tpm_tss2pem_parse(att_buf_slice(&text), &parsed, err));
    assert_int_equal(parsed.parent_name.len, 0);

    att_buf_put_slice(&other, att_buf_slice(&der)); /* trailing byte */
    att_buf_u8(&other, 0);
    pem_of(att_buf_slice(&other), &text);
    refuse(&text, ATT_E_PARSE);

    for (size_t len = 0; len < der.len; len++) { /* truncated */
        pem_of(ATT_SLICE(der.ptr, len), &text);
        refuse(&text, ATT_E_PARSE);
    }

    /* BER: the outer length in one octet more than needed */
    assert_int_equal(der.ptr[0], 0x30);
    assert_int_equal(der.ptr[1], 0x81);
    att_buf_reset(&other);
    att_buf_put(&other, "\x30\x82\x00", 3);
    att_buf_put(&other, der.ptr + 2, der.len - 2);
    pem_of(att_buf_slice(&other), &text);
    refuse(&text, ATT_E_PARSE);

    /* TRUE that is not 0xff, after the OID of 8 octets */
    att_buf_reset(&other);
    att_buf_put_slice(&other, att_buf_slice(&der));
    static const uint8_t boolean[] = {0xa0, 3, 1, 1, 0};
    size_t at = 3 + 2 + 6;
    while (at < der.len && memcmp(der.ptr + at, boolean, 5) != 0) {
        at++;
    }
    assert_true(at < 32);
    other.ptr[at + 4] = 1;
    pem_of(att_buf_slice(&other), &text);
    refuse(&text, ATT_E_PARSE);
    other.ptr[at + 4] = 0xff;
    pem_of(att_buf_slice(&other), &text);
    tpm_blob_done(&parsed);
    assert_ok(tpm_tss2pem_parse(att_buf_slice(&text), &parsed, err));
    assert_true(parsed.empty_auth);

    /* another field than we know to use: [2] secret instead of emptyAuth */
    other.ptr[at] = 0xa2;
    pem_of(att_buf_slice(&other), &text);
    refuse(&text, ATT_E_UNSUPPORTED);

    /* another type: importable, 2.23.133.10.1.4 */
    att_buf_reset(&other);
    att_buf_put_slice(&other, att_buf_slice(&der));
    assert_int_equal(other.ptr[at - 1], 3);
    other.ptr[at - 1] = 4;
    pem_of(att_buf_slice(&other), &text);
    refuse(&text, ATT_E_UNSUPPORTED);
    other.ptr[at - 1] = 5; /* sealed data, but the public area is a key's */
    pem_of(att_buf_slice(&other), &text);
    refuse(&text, ATT_E_PARSE);
}

static void refuses_bad_members(void **state)
{
    tpm_autoblob blob = {0};
    att_autobuf text = {0}, good = {0}, der = {0};
    (void)state;
    agent_blob(&blob);
    /* not encodable */
    blob.parent_handle = 0x40000007;
    assert_refused(tpm_tss2pem_encode(&blob, &text, err), ATT_E_INVAL, "");
    blob.parent_handle = 0x81000001;
    blob.type = 0;
    assert_refused(tpm_tss2pem_encode(&blob, &text, err), ATT_E_INVAL, "");
    blob.type = TPM_BLOB_KEY;
    encode(&blob, &good);
    der_of(&good, &der);
    /* the parent: INTEGER of five octets 00 81 00 00 01 */
    static const uint8_t parent[] = {2, 5, 0, 0x81, 0, 0, 1};
    size_t at = 0;
    while (memcmp(der.ptr + at, parent, sizeof(parent)) != 0) {
        at++;
        assert_true(at + sizeof(parent) < der.len);
    }
    der.ptr[at + 3] = 0x82;
    pem_of(att_buf_slice(&der), &text);
    refuse(&text, ATT_E_UNSUPPORTED);
    der.ptr[at + 3] = 0x81;
    der.ptr[at + 2] = 1;
    pem_of(att_buf_slice(&der), &text);
    refuse(&text, ATT_E_UNSUPPORTED); /* beyond 32 bits */
    der.ptr[at + 2] = 0;
    /* TPM2B_PUBLIC whose size is not the rest */
    size_t pub = at + sizeof(parent);
    assert_int_equal(der.ptr[pub], 4);
    der.ptr[pub + 3] ^= 1;
    pem_of(att_buf_slice(&der), &text);
    refuse(&text, ATT_E_PARSE);
}

static void round_trips(void **state)
{
    tpm_autoblob blob = {0}, parsed = {0};
    att_autobuf text = {0}, again = {0};
    (void)state;
    agent_blob(&blob);
    encode(&blob, &text);
    assert_ok(tpm_tss2pem_parse(att_buf_slice(&text), &parsed, err));
    assert_int_equal(parsed.type, TPM_BLOB_KEY);
    assert_int_equal(parsed.parent_handle, 0x40000001);
    assert_false(parsed.empty_auth);
    assert_true(att_slice_eq(att_buf_slice(&parsed.pub), att_buf_slice(&blob.pub)));
    assert_true(att_slice_eq(att_buf_slice(&parsed.priv), att_buf_slice(&blob.priv)));
    assert_true(
        att_slice_eq(parse_name_slice(&parsed.parent_name), parse_name_slice(&blob.parent_name)));
    encode(&parsed, &again);
    assert_true(att_slice_eq(att_buf_slice(&text), att_buf_slice(&again)));
}

/* OpenSSL's own PEM and ASN.1 readers see the form that other tools expect. */
static void others_can_read_it(void **state)
{
    tpm_autoblob blob = {0};
    att_autobuf text = {0}, out = {0};
    char path[SWTPM_PATH + 32];
    (void)state;
    agent_blob(&blob);
    encode(&blob, &text);
    struct swtpm scratch = {0};
    (void)snprintf(scratch.dir, sizeof(scratch.dir), "/tmp/att-pem-XXXXXX");
    assert_non_null(mkdtemp(scratch.dir));
    (void)snprintf(path, sizeof(path), "%s/key.pem", scratch.dir);
    assert_ok(att_io_write_file(path, att_buf_slice(&text), 0600, err));
    assert_int_equal(swtpm_sh(&scratch, "openssl asn1parse -in key.pem"), 0);
    (void)snprintf(path, sizeof(path), "%s/tool.out", scratch.dir);
    assert_ok(att_io_read_file(path, 65536, &out, err));
    const char *dump = att_buf_cstr(&out);
    assert_non_null(strstr(dump, "2.23.133.10.1.3"));
    assert_non_null(strstr(dump, "cont [ 0 ]"));
    assert_non_null(strstr(dump, "INTEGER           :40000001"));
    swtpm_done(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_bad_armor),   cmocka_unit_test(refuses_bad_der),
        cmocka_unit_test(refuses_bad_members), cmocka_unit_test(round_trips),
        cmocka_unit_test(others_can_read_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
