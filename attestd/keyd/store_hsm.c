/* The store "hsm": keys in tokens, each of which an attestd-hsmd serves. keyd knows a key's CKA_ID
 * and public key; what its module states of it is asked for anew for each proof.
 *
 * agents/<id>.hsm says of each key what is known. It is there, as "making", before hsmd is asked to
 * make the key, and, as "gone", until hsmd has destroyed it: so a key that nobody was told of is
 * found again and destroyed, and no other key of the token is ever touched (hosts may share one).
 */
#include "attestd/keyd/hsmlink.h"

#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "attestd/conf/conf.h"
#include "provision/evidence/formula.h"
#include "provision/evidence/hsmattrs.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* 1 has no module: of when hosts had one, which is called CONF_HSM_DEFAULT now. 2 has no token. Of
 * keys that were read from such a file it is written so again. */
#define VERSION    3
#define KEYS_MAX   2048
#define CKA_ID_LEN PROC_HSM_KEY_ID_LEN

_Static_assert((int)PROC_HSM_ATTR_COUNT == (int)EVIDENCE_HSM_COUNT, "attributes of two wires");
_Static_assert((int)PROC_HSM_ATTR_NEVER_EXTRACTABLE == (int)EVIDENCE_HSM_NEVER_EXTRACTABLE, "");
_Static_assert((int)PROC_HSM_ATTR_EXTRACTABLE == (int)EVIDENCE_HSM_EXTRACTABLE, "");
_Static_assert((int)PROC_HSM_ATTR_MODIFIABLE == (int)EVIDENCE_HSM_MODIFIABLE, "");

struct held {
    atomic_uint refs;
    uint8_t cka_id[CKA_ID_LEN];
    struct keyd_token token; /* "": not known */
};

/* ---- asking ---------------------------------------------------------------------------------- */

/* CREATE's and READ's answer; ret_spki lies within it. */
static enum att_rc take_key(const struct proc_answer *answer, enum att_keytype wanted,
                            struct att_slice *ret_spki, struct evidence_hsm_attrs *ret_attrs,
                            struct att_err *err)
{
    const struct proc_value *v = answer->msg.v;
    enum att_keytype type = ATT_KEYTYPE_NONE;
    struct att_slice spki = v[PROC_HSM_KEY_REP_SPKI].bytes;
    if (att_keytype_of_spki(spki, &type, NULL) != ATT_OK || type != wanted) {
        return att_fail(err, ATT_E_UNREACHABLE, "hsmd's answer holds no key of type %s",
                        att_keytype_name(wanted));
    }
    *ret_spki = spki;
    *ret_attrs = (struct evidence_hsm_attrs){(uint32_t)v[PROC_HSM_KEY_REP_STATED].num,
                                             (uint32_t)v[PROC_HSM_KEY_REP_HOLDS].num};
    return ATT_OK;
}

/* ---- the file -------------------------------------------------------------------------------- */

/* word: a state's name, "making" or "gone". sync: also against a loss of power. */
static enum att_rc write_file(const struct keyd *keyd, const struct keyd_key *key, const char *word,
                              bool sync, struct att_err *err)
{
    const struct held *held = key->held;
    char path[KEYD_PATH_MAX], cka_id[2 * CKA_ID_LEN + 1], spki[2 * ATT_KEYTYPE_SPKI_MAX + 1] = "";
    att_autobuf text = ATT_BUF_INIT(KEYD_HSM_FILE_MAX);
    struct att_io_staged staged;
    att_hex(cka_id, ATT_SLICE_ARRAY(held->cka_id));
    if (key->spki.len <= ATT_KEYTYPE_SPKI_MAX) { /* none yet: "making" */
        att_hex(spki, att_buf_slice(&key->spki));
    }
    bool named = held->token.label[0];
    const char *module = !named && strcmp(key->module, CONF_HSM_DEFAULT) == 0 ? NULL : key->module;
    att_autojson *json =
        json_pack("{s:i, s:s, s:s, s:s*, s:s, s:I, s:I, s:s, s:s, s:s*, s:s*}", "version",
                  named    ? VERSION
                  : module ? 2
                           : 1,
                  "id", key->id, "agent", key->agent, "module", module, "state", word, "created",
                  (json_int_t)key->created_at, "activations", (json_int_t)key->active_seq, "ckaId",
                  cka_id, "spki", spki, "tokenLabel", named ? held->token.label : NULL,
                  "tokenSerial", named ? held->token.serial : NULL);
    enum att_rc rc =
        json ? att_json_dump(json, false, &text, err) : att_fail(err, ATT_E_NOMEM, "key file");
    if (rc == ATT_OK) {
        rc = keyd_hsm_path(keyd, key->id, path, err);
    }
    if (rc == ATT_OK && sync) {
        return att_io_write_file(path, att_buf_slice(&text), 0600, err);
    }
    if (rc == ATT_OK) {
        rc = att_io_stage(path, att_buf_slice(&text), 0600, &staged, err);
    }
    return rc == ATT_OK ? att_io_commit(&staged, path, err) : rc;
}

static enum att_rc copy_text(const json_t *json, const char *name, char *ret, size_t room,
                             struct att_err *err)
{
    const char *text = NULL;
    enum att_rc rc = att_json_str(json, name, &text, err);
    if (rc == ATT_OK && strlen(text) >= room) {
        rc = att_fail(err, ATT_E_PARSE, "%s: too long", name);
    }
    if (rc == ATT_OK) {
        memcpy(ret, text, strlen(text) + 1);
    }
    return rc;
}

static enum att_rc take_number(const json_t *json, const char *name, json_int_t *ret,
                               struct att_err *err)
{
    const json_t *value = json_object_get(json, name);
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return att_fail(err, ATT_E_PARSE, "%s: expected a number that is not negative", name);
    }
    *ret = json_integer_value(value);
    return ATT_OK;
}

static enum att_rc take_state(const char *word, struct keyd_hsm_file *file, struct att_err *err)
{
    file->making = strcmp(word, "making") == 0;
    file->waste = file->making || strcmp(word, "gone") == 0;
    for (int state = KEYD_KEY_NEW; state <= KEYD_KEY_RETIRED; state++) {
        if (strcmp(word, keyd_key_state_name((enum keyd_key_state)state)) == 0) {
            file->state = (enum keyd_key_state)state;
            return ATT_OK;
        }
    }
    return file->waste ? ATT_OK : att_fail(err, ATT_E_PARSE, "state: %.20s is none", word);
}

/* Waste may lack a public key. */
static enum att_rc take_spki(const char *hex, struct keyd_hsm_file *file, struct att_err *err)
{
    if (file->waste && !hex[0]) {
        return ATT_OK;
    }
    file->spki_len = strlen(hex) / 2; /* copy_text has seen that it fits */
    enum att_rc rc = att_unhex_exact(file->spki, file->spki_len, hex, err);
    if (rc == ATT_OK) {
        rc = att_keytype_of_spki(ATT_SLICE(file->spki, file->spki_len), &file->type, err);
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "spki");
    }
    return rc == ATT_E_DENIED ? ATT_E_PARSE : rc;
}

static enum att_rc take_token(const json_t *json, struct keyd_hsm_file *file, struct att_err *err)
{
    enum att_rc rc =
        copy_text(json, "tokenLabel", file->token_label, sizeof file->token_label, err);
    if (rc == ATT_OK) {
        rc = copy_text(json, "tokenSerial", file->token_serial, sizeof file->token_serial, err);
    }
    if (rc == ATT_OK && (!file->token_label[0] || !file->token_serial[0])) {
        rc = att_fail(err, ATT_E_PARSE, "tokenLabel, tokenSerial: empty");
    }
    return rc;
}

enum att_rc keyd_hsm_file_parse(struct att_slice text, struct keyd_hsm_file *ret_file,
                                struct att_err *err)
{
    struct keyd_hsm_file file = {0};
    att_autojson *json = NULL;
    json_int_t version = 0, created = 0, activations = 0;
    char word[16] = "", cka_id[2 * CKA_ID_LEN + 1] = "", spki[2 * ATT_KEYTYPE_SPKI_MAX + 1] = "";
    enum att_rc rc = att_json_parse(text, KEYD_HSM_FILE_MAX, &json, err);
    const struct {
        const char *name;
        char *ret;
        size_t room;
    } texts[] = {{"id", file.id, sizeof file.id},
                 {"agent", file.agent, sizeof file.agent},
                 {"module", file.module, sizeof file.module},
                 {"state", word, sizeof word},
                 {"ckaId", cka_id, sizeof cka_id},
                 {"spki", spki, sizeof spki}};
    if (rc == ATT_OK) {
        rc = take_number(json, "version", &version, err);
    }
    if (rc == ATT_OK && (version < 1 || version > VERSION)) {
        rc = att_fail(err, ATT_E_PARSE, "version: expected 1 to %d", VERSION);
    }
    int members = version == 1 ? 8 : version == 2 ? 9 : 11;
    if (rc == ATT_OK && json_object_size(json) != (size_t)members) {
        rc = att_fail(err, ATT_E_PARSE, "expected an object of %d members", members);
    }
    if (rc == ATT_OK && version == VERSION) {
        rc = take_token(json, &file, err);
    }
    if (rc == ATT_OK && version == 1) {
        rc = json_object_set_new(json, "module", json_string(CONF_HSM_DEFAULT)) == 0
                 ? ATT_OK
                 : att_fail(err, ATT_E_NOMEM, "key file");
    }
    for (size_t i = 0; rc == ATT_OK && i < sizeof texts / sizeof texts[0]; i++) {
        rc = copy_text(json, texts[i].name, texts[i].ret, texts[i].room, err);
    }
    if (rc == ATT_OK) {
        rc = take_number(json, "created", &created, err);
    }
    if (rc == ATT_OK) {
        rc = take_number(json, "activations", &activations, err);
    }
    if (rc == ATT_OK) {
        rc = take_state(word, &file, err);
    }
    if (rc == ATT_OK) {
        rc = att_unhex_exact(file.cka_id, sizeof file.cka_id, cka_id, err);
    }
    if (rc == ATT_OK) {
        rc = take_spki(spki, &file, err);
    }
    if (rc == ATT_OK && (!proc_agent_name_ok(att_slice_str(file.agent)) ||
                         !proc_agent_name_ok(att_slice_str(file.module)) ||
                         !proc_key_id_ok(att_slice_str(file.id)))) {
        rc = att_fail(err, ATT_E_PARSE, "agent, module or id has not its form");
    }
    file.created_at = created;
    file.active_seq = (uint64_t)activations;
    if (rc == ATT_OK) {
        *ret_file = file;
    }
    return rc;
}

/* ---- the table ------------------------------------------------------------------------------- */

static void *hold(void *user)
{
    struct held *held = user;
    atomic_fetch_add(&held->refs, 1);
    return held;
}

static void release(void *user)
{
    struct held *held = user;
    if (atomic_fetch_sub(&held->refs, 1) == 1) {
        free(held);
    }
}

static struct held *new_held(void)
{
    struct held *held = calloc(1, sizeof *held);
    if (held) {
        atomic_init(&held->refs, 1);
    }
    return held;
}

enum att_rc keyd_hsm_load(struct keyd *keyd, const char *id, struct keyd_key *ret_key,
                          struct att_err *err)
{
    char path[KEYD_PATH_MAX], name[64];
    att_autobuf text = ATT_BUF_INIT(KEYD_HSM_FILE_MAX);
    struct keyd_hsm_file file;
    struct att_err cause = {0};
    enum att_rc rc = keyd_hsm_path(keyd, id, path, err);
    if (rc == ATT_OK) {
        rc = att_io_read_file(path, KEYD_HSM_FILE_MAX, &text, &cause);
    }
    if (rc == ATT_OK) {
        rc = keyd_hsm_file_parse(att_buf_slice(&text), &file, &cause);
    }
    if (rc == ATT_OK && strcmp(file.id, id) != 0) {
        rc = att_fail(&cause, ATT_E_PARSE, "is about key %s", file.id);
    }
    if (rc == ATT_E_PARSE || rc == ATT_E_LIMIT) {
        snprintf(name, sizeof name, "agents/%s.hsm", id);
        rc = keyd_state_bad(keyd, name, err);
        return rc == ATT_OK ? att_fail(err, ATT_E_CONFLICT, "%s: %s", path, cause.msg) : rc;
    }
    if (rc != ATT_OK) {
        return att_fail(err, rc, "%s", cause.msg);
    }
    if (file.waste) {
        struct keyd_hsm *hsm = keyd_hsms_find(keyd, file.module);
        if (hsm) { /* else the file waits until the module is there again */
            keyd_hsm_throw_away(hsm, id, file.cka_id,
                                file.making ? KEYD_WASTE_RIDDLE : KEYD_WASTE_KEY);
        }
        return att_fail(err, ATT_E_NOTFOUND, "key %s is gone", id);
    }
    keyd_autokey key = {.store = &keyd_store_hsm,
                        .type = file.type,
                        .state = file.state,
                        .created_at = file.created_at,
                        .active_seq = file.active_seq,
                        .spki = ATT_BUF_INIT(ATT_KEYTYPE_SPKI_MAX)};
    memcpy(key.id, file.id, sizeof key.id);
    memcpy(key.agent, file.agent, sizeof key.agent);
    memcpy(key.module, file.module, sizeof key.module);
    att_buf_put(&key.spki, file.spki, file.spki_len);
    struct held *held = new_held();
    if (!held || key.spki.failed) {
        free(held);
        return att_fail(err, ATT_E_NOMEM, "a key");
    }
    memcpy(held->cka_id, file.cka_id, CKA_ID_LEN);
    memcpy(held->token.label, file.token_label, sizeof held->token.label);
    memcpy(held->token.serial, file.token_serial, sizeof held->token.serial);
    key.held = held;
    *ret_key = key;
    key = (struct keyd_key){0};
    return ATT_OK;
}

/* ret_asked: hsmd may have heard of it, and the token may have the key. */
static enum att_rc make(struct keyd *keyd, struct keyd_hsm *hsm, struct keyd_key *key,
                        bool *ret_asked, struct att_err *err)
{
    const struct held *held = key->held;
    const struct proc_value values[] = {
        [PROC_HSM_CREATE_REQ_KEY_ID] = proc_bytes(ATT_SLICE_ARRAY(held->cka_id)),
        [PROC_HSM_CREATE_REQ_TYPE] = proc_text(att_keytype_name(key->type)),
        [PROC_HSM_CREATE_IN_REQ_LABEL] = proc_text(held->token.label),
        [PROC_HSM_CREATE_IN_REQ_SERIAL] = proc_text(held->token.serial),
    };
    struct att_slice spki;
    struct evidence_hsm_attrs attrs;
    proc_autoanswer answer = {0};
    enum att_rc rc = write_file(keyd, key, "making", true, err);
    if (rc == ATT_OK) {
        rc = keyd_hsm_ask(hsm, PROC_HSM_CREATE_IN, values, &answer, ret_asked, err);
    }
    if (rc != ATT_OK && err && strcmp(err->reason, "tokenOther") == 0) {
        *ret_asked = false; /* refused before anything was made */
    }
    if (rc == ATT_OK) {
        rc = take_key(&answer, key->type, &spki, &attrs, err);
    }
    if (rc == ATT_OK) {
        key->spki = ATT_BUF_INIT(ATT_KEYTYPE_SPKI_MAX);
        att_buf_put_slice(&key->spki, spki);
        rc = att_buf_ok(&key->spki, err);
    }
    return rc;
}

/* Nobody has heard of the key: so its file can go at once. */
static void forget_file(const struct keyd *keyd, const char *id)
{
    char path[KEYD_PATH_MAX];
    if (keyd_hsm_path(keyd, id, path, NULL) == ATT_OK) {
        (void)unlink(path); /* else the next start finds it, and destroys what is not there */
    }
}

static enum att_rc create(struct keyd *keyd, struct keyd_key *key, struct att_err *err)
{
    bool asked = false;
    struct keyd_hsm *hsm = NULL;
    enum att_rc rc = keyd_hsms_of(keyd, key, &hsm, err);
    if (rc == ATT_OK) {
        rc = keyd_hsm_check_waste(hsm, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    struct held *held = new_held();
    rc = held ? att_random(held->cka_id, CKA_ID_LEN, err) : att_fail(err, ATT_E_NOMEM, "a key");
    if (rc == ATT_OK) {
        rc = keyd_hsm_token(hsm, &held->token, err);
    }
    if (rc != ATT_OK) {
        free(held);
        return rc;
    }
    memset(key->seed_id, 0, sizeof key->seed_id);
    key->held = held;
    rc = make(keyd, hsm, key, &asked, err);
    if (rc == ATT_OK) {
        return ATT_OK;
    }
    if (asked) {
        keyd_hsm_throw_away(hsm, key->id, held->cka_id, KEYD_WASTE_RIDDLE);
    } else {
        forget_file(keyd, key->id);
    }
    att_buf_done(&key->spki);
    key->held = NULL;
    release(held);
    return rc;
}

/* On failure what is on disk says "making", or all of it; destroy follows. */
static enum att_rc keep(struct keyd *keyd, const struct keyd_key *key, struct att_err *err)
{
    return write_file(keyd, key, keyd_key_state_name(key->state), true, err);
}

static enum att_rc keep_state(struct keyd *keyd, const struct keyd_key *key, struct att_err *err)
{
    return write_file(keyd, key, keyd_key_state_name(key->state), false, err);
}

static enum att_rc drop(struct keyd *keyd, const struct keyd_key *key, struct att_err *err)
{
    return write_file(keyd, key, "gone", false, err);
}

static void destroy(struct keyd *keyd, const struct keyd_key *key)
{
    const struct held *held = key->held;
    struct keyd_hsm *hsm = keyd_hsms_find(keyd, key->module);
    if (hsm) { /* else its file, which says "gone", waits until the module is there again */
        keyd_hsm_throw_away(hsm, key->id, held->cka_id, KEYD_WASTE_KEY);
    }
}

/* The mechanism is one of the key's type (keyd_key_sign). */
static enum att_rc ask_for_signature(struct keyd_hsm *hsm, const struct held *held,
                                     enum keyd_mechanism mechanism, struct att_slice digest,
                                     struct proc_answer *ret_answer, struct att_err *err)
{
    struct proc_value key = proc_bytes(ATT_SLICE_ARRAY(held->cka_id));
    if (mechanism == KEYD_ECDSA) {
        const struct proc_value values[] = {
            [PROC_HSM_SIGN_REQ_KEY_ID] = key, [PROC_HSM_SIGN_REQ_DIGEST] = proc_bytes(digest)};
        return keyd_hsm_ask(hsm, PROC_HSM_SIGN, values, ret_answer, NULL, err);
    }
    const struct proc_value values[] = {
        [PROC_HSM_SIGN_RSA_REQ_KEY_ID] = key,
        [PROC_HSM_SIGN_RSA_REQ_SCHEME] = {.num = mechanism == KEYD_RSA_PSS ? ATT_RSA_PSS
                                                                           : ATT_RSA_PKCS1},
        [PROC_HSM_SIGN_RSA_REQ_DIGEST] = proc_bytes(digest)};
    return keyd_hsm_ask(hsm, PROC_HSM_SIGN_RSA, values, ret_answer, NULL, err);
}

static enum att_rc sign(struct keyd *keyd, const struct keyd_key *key, enum tpm_prio prio,
                        enum keyd_mechanism mechanism, struct att_slice digest,
                        struct keyd_sig *ret_sig, struct att_err *err)
{
    proc_autoanswer answer = {0};
    (void)prio; /* hsmd's sessions are side by side */
    struct keyd_hsm *hsm = NULL;
    enum att_rc rc = keyd_frozen_check(keyd, key->agent, err);
    if (rc == ATT_OK) {
        rc = keyd_hsms_of(keyd, key, &hsm, err);
    }
    if (rc == ATT_OK) {
        rc = ask_for_signature(hsm, key->held, mechanism, digest, &answer, err);
    }
    if (rc == ATT_OK) { /* it may have waited for a place, and for the HSM */
        rc = keyd_frozen_check(keyd, key->agent, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    struct att_slice raw = answer.msg.v[PROC_HSM_SIGN_REP_SIGNATURE].bytes;
    if (raw.len != att_keytype_sig_len(key->type)) {
        return att_fail(err, ATT_E_UNREACHABLE, "hsmd's signature has %zu bytes, expected %zu",
                        raw.len, att_keytype_sig_len(key->type));
    }
    memcpy(ret_sig->bytes, raw.ptr, raw.len);
    ret_sig->len = raw.len;
    return ATT_OK;
}

/* What the module says of the key now, signed by it over this order's keyAuthorization. */
static enum att_rc prove(struct keyd *keyd, const struct keyd_key *key,
                         struct att_slice key_authorization, struct keyd_proof *ret_proof,
                         struct att_err *err)
{
    const struct held *held = key->held;
    uint8_t digest[ATT_SHA256_LEN];
    struct att_slice spki;
    struct evidence_hsm_attrs attrs;
    struct keyd_sig sig = {.len = 0};
    proc_autoanswer answer = {0};
    keyd_autoproof proof = {.statement = ATT_BUF_INIT(EVIDENCE_HSM_ATTRS_MAX),
                            .sig = ATT_BUF_INIT(KEYD_SIG_MAX)};
    const struct proc_value values[] = {[PROC_HSM_REQ_KEY_ID] =
                                            proc_bytes(ATT_SLICE_ARRAY(held->cka_id))};
    struct keyd_hsm *hsm = NULL;
    enum att_rc rc = keyd_frozen_check(keyd, key->agent, err);
    if (rc == ATT_OK) {
        rc = keyd_hsms_of(keyd, key, &hsm, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_hsm_ask(hsm, PROC_HSM_READ, values, &answer, NULL, err);
    }
    if (rc == ATT_OK) {
        rc = take_key(&answer, key->type, &spki, &attrs, err);
    }
    if (rc == ATT_OK && !att_slice_eq(spki, att_buf_slice(&key->spki))) {
        rc = att_fail(err, ATT_E_UNREACHABLE, "the HSM's key is another one than key %s", key->id);
    }
    if (rc == ATT_OK) {
        rc = evidence_hsm_attrs_encode(&attrs, &proof.statement, err);
    }
    if (rc == ATT_OK) {
        evidence_hsm_digest(digest, key_authorization, att_buf_slice(&proof.statement));
        rc = sign(keyd, key, TPM_PRIO_RENEWAL,
                  att_keytype_is_rsa(key->type) ? KEYD_RSA_PSS : KEYD_ECDSA, /* PS256, ES256 */
                  ATT_SLICE_ARRAY(digest), &sig, err);
    }
    if (rc == ATT_OK) {
        att_buf_put(&proof.sig, sig.bytes, sig.len);
        rc = att_buf_ok(&proof.sig, err);
    }
    if (rc == ATT_OK) {
        *ret_proof = proof;
        proof = (struct keyd_proof){0};
    }
    return rc;
}

const struct keyd_store keyd_store_hsm = {
    .name = "hsm",
    .keys_max = KEYS_MAX,
    .rsa = true,
    .choose = keyd_hsms_choose,
    .usual = keyd_hsms_usual,
    .ready = keyd_hsms_ready,
    .create = create,
    .keep = keep,
    .keep_state = keep_state,
    .drop = drop,
    .destroy = destroy,
    .sign = sign,
    .prove = prove,
    .describe = keyd_hsms_describe,
    .hold = hold,
    .release = release,
};
