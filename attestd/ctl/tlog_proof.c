/* The proof that `audit prove` prints: what somebody shows an auditor instead of the whole log. */
#include "attestd/ctl/tlog.h"

#include "attestd/base/enc.h"
#include "attestd/base/json.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#define PROOF_MAX ((size_t)8 << 20)

void tlog_proof_done(struct tlog_proof *proof)
{
    att_buf_done(&proof->leaf);
    att_buf_done(&proof->checkpoint);
    att_buf_done(&proof->record);
}

static enum att_rc bad_form(struct att_err *err, const char *member)
{
    return tlog_refuse(err, ATT_E_PARSE, "proofForm",
                       "%s: is missing, or not as `audit prove` "
                       "writes it",
                       member);
}

static bool take_text(const json_t *json, const char *name, struct att_buf *ret_text)
{
    const char *text = json_string_value(json_object_get(json, name));
    att_buf_put_str(ret_text, text ? text : "");
    return text && att_buf_ok(ret_text, NULL) == ATT_OK;
}

static bool take_number(const json_t *json, const char *name, uint64_t *ret)
{
    const json_t *n = json_object_get(json, name);
    *ret = (uint64_t)json_integer_value(n);
    return json_is_integer(n) && json_integer_value(n) >= 0;
}

static bool take_path(const json_t *list, struct tlog_proof *proof)
{
    if (!json_is_array(list) || json_array_size(list) > TLOG_PATH_MAX) {
        return false;
    }
    for (proof->n = 0; proof->n < json_array_size(list); proof->n++) {
        att_autobuf hash = ATT_BUF_INIT(64);
        const char *text = json_string_value(json_array_get(list, proof->n));
        if (!text || att_unb64(&hash, att_slice_str(text), NULL) || hash.len != TLOG_HASH) {
            return false;
        }
        memcpy(proof->path[proof->n], hash.ptr, TLOG_HASH);
    }
    return true;
}

/* Both, or neither: the record was erased, or is kept back. */
static bool take_record(const json_t *json, struct tlog_proof *proof)
{
    const json_t *record = json_object_get(json, "record"), *salt = json_object_get(json, "salt");
    if ((!record || json_is_null(record)) && (!salt || json_is_null(salt))) {
        return true;
    }
    proof->has_record = true;
    return take_text(json, "record", &proof->record) && json_is_string(salt) &&
           att_unhex_exact(proof->salt, sizeof proof->salt, json_string_value(salt), NULL) ==
               ATT_OK;
}

enum att_rc tlog_proof_parse(struct att_slice text, struct tlog_proof *ret_proof,
                             struct att_err *err)
{
    att_autojson *json = NULL;
    struct tlog_proof proof = {0};
    const char *bad = NULL;
    if (att_json_parse_few(text, PROOF_MAX, 256, &json, NULL) || !json_is_object(json)) {
        return bad_form(err, "the proof");
    }
    bad = !take_number(json, "seq", &proof.seq)                 ? "seq"
          : !take_number(json, "index", &proof.index)           ? "index"
          : !take_text(json, "leaf", &proof.leaf)               ? "leaf"
          : !take_text(json, "checkpoint", &proof.checkpoint)   ? "checkpoint"
          : !take_path(json_object_get(json, "hashes"), &proof) ? "hashes"
          : !take_record(json, &proof)                          ? "record and salt"
                                                                : NULL;
    if (bad) {
        tlog_proof_done(&proof);
        return bad_form(err, bad);
    }
    *ret_proof = proof;
    return ATT_OK;
}

/* The leaf's last line is the SHA-256 of form ‖ salt ‖ record. */
static bool opens(const struct tlog_proof *proof)
{
    static const char form[] = "attestd-decision/1";
    uint8_t hash[32];
    char hex[66];
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1 &&
              EVP_DigestUpdate(md, form, sizeof form - 1) == 1 &&
              EVP_DigestUpdate(md, proof->salt, sizeof proof->salt) == 1 &&
              EVP_DigestUpdate(md, proof->record.ptr, proof->record.len) == 1 &&
              EVP_DigestFinal_ex(md, hash, NULL) == 1;
    EVP_MD_CTX_free(md);
    att_hex(hex, ATT_SLICE_ARRAY(hash));
    hex[64] = '\n';
    return ok && proof->leaf.len > 66 && proof->leaf.ptr[proof->leaf.len - 66] == '\n' &&
           memcmp(proof->leaf.ptr + proof->leaf.len - 65, hex, 65) == 0;
}

enum att_rc tlog_proof_check(const struct tlog_proof *proof, const struct tlog_key *key,
                             struct tlog_head *ret_head, struct att_err *err)
{
    struct tlog_head head;
    uint8_t leaf[TLOG_HASH], root[TLOG_HASH];
    enum att_rc rc = tlog_head_open(att_buf_slice(&proof->checkpoint), key, &head, err);
    if (rc) {
        return rc;
    }
    if (proof->seq != proof->index + 1 || !tlog_entry_ok(att_buf_slice(&proof->leaf), proof->seq)) {
        return tlog_refuse(err, ATT_E_AUTH, "proofIndex", "the leaf is not that of decision %llu",
                           (unsigned long long)proof->seq);
    }
    tlog_leaf(att_buf_slice(&proof->leaf), leaf);
    if (!tlog_path_root(proof->index, head.size, leaf, proof->path, proof->n, root) ||
        memcmp(root, head.root, TLOG_HASH) != 0) {
        return tlog_refuse(err, ATT_E_AUTH, "proofPath",
                           "the proof does not lead to the signed root");
    }
    if (proof->has_record && !opens(proof)) {
        return tlog_refuse(err, ATT_E_AUTH, "proofRecord",
                           "the leaf was made of another record than this one");
    }
    *ret_head = head;
    return ATT_OK;
}
