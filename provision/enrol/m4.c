#include "provision/enrol/member.h"

#include "attestd/base/enc.h"
#include "provision/evidence/statement.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void enrol_m4_request_done(struct enrol_m4_request *request)
{
    if (request) {
        att_buf_done(&request->attobj);
        free(request->ak_url);
        att_buf_done(&request->evidence);
        enrol_quote_done(&request->quote);
        evidence_logs_done(&request->logs);
        att_buf_done(&request->srk_pub);
        att_buf_done(&request->parent_pub);
        att_buf_done(&request->manifest);
        *request = (struct enrol_m4_request){0};
    }
}

static enum att_rc put_bytes(json_t *obj, const char *name, const struct att_buf *bytes,
                             struct att_err *err)
{
    return bytes->len ? att_json_set_b64u(obj, name, att_buf_slice(bytes), err)
                      : att_fail(err, ATT_E_INVAL, "\"%s\" is missing", name);
}

static enum att_rc put_manifest(json_t *obj, const struct att_buf *manifest, struct att_err *err)
{
    att_autobuf gz = ATT_BUF_INIT(ENROL_MANIFEST_GZ_MAX);
    enum att_rc rc = evidence_gzip(att_buf_slice(manifest), &gz, err);
    return rc == ATT_OK ? att_json_set_b64u(obj, "manifest", att_buf_slice(&gz), err) : rc;
}

static enum att_rc take_manifest(const json_t *obj, struct att_buf *ret, struct att_err *err)
{
    att_autobuf gz = ATT_BUF_INIT(ENROL_MANIFEST_GZ_MAX);
    enum att_rc rc = enrol_member_bytes(obj, "manifest", ENROL_MANIFEST_GZ_MAX, true, &gz, err);
    if (rc == ATT_OK && gz.len) {
        rc = evidence_gunzip(att_buf_slice(&gz), ENROL_MANIFEST_MAX, ret, err);
        if (rc != ATT_OK) {
            att_err_prefix(err, "\"manifest\"");
        }
    }
    return rc;
}

enum att_rc enrol_m4_request_encode(const struct enrol_m4_request *request,
                                    const uint8_t (*known)[ATT_SHA256_LEN], size_t n_known,
                                    struct att_buf *ret_payload, struct att_err *err)
{
    att_autojson *obj = json_object();
    enum att_rc rc = put_bytes(obj, "attObj", &request->attobj, err);
    if (rc == ATT_OK &&
        (!request->ak_url || json_object_set_new(obj, "ak", json_string(request->ak_url)) != 0)) {
        rc = att_fail(err, ATT_E_INVAL, "\"ak\" is missing");
    }
    if (rc == ATT_OK) {
        rc = put_bytes(obj, "evidence", &request->evidence, err);
    }
    if (rc == ATT_OK) {
        rc = enrol_member_put_evidence(obj, &request->quote, &request->pcrs, &request->logs, known,
                                       n_known, err);
    }
    if (rc == ATT_OK && request->srk_pub.len) {
        rc = put_bytes(obj, "srkPub", &request->srk_pub, err);
    }
    if (rc == ATT_OK && request->parent_pub.len) {
        rc = put_bytes(obj, "parentPub", &request->parent_pub, err);
    }
    if (rc == ATT_OK && request->parent_counter) {
        char index[11];
        snprintf(index, sizeof index, "0x%08" PRIx32, request->parent_counter);
        if (json_object_set_new(obj, "parentCounter", json_string(index)) != 0) {
            rc = att_fail(err, ATT_E_NOMEM, "no memory");
        }
    }
    if (rc == ATT_OK && request->manifest.len) {
        rc = put_manifest(obj, &request->manifest, err);
    }
    return rc == ATT_OK ? att_json_dump(obj, false, ret_payload, err) : rc;
}

static enum att_rc take_ak(const json_t *obj, char **ret_url, struct att_err *err)
{
    const char *url = NULL;
    enum att_rc rc = att_json_str(obj, "ak", &url, err);
    if (rc == ATT_OK && (url[0] == 0 || strlen(url) > ENROL_URL_MAX)) {
        rc = att_fail(err, ATT_E_PARSE, "\"ak\": expected an URL of at most %zu bytes",
                      ENROL_URL_MAX);
    }
    if (rc == ATT_OK && !(*ret_url = strdup(url))) {
        rc = att_fail(err, ATT_E_NOMEM, "no memory");
    }
    return rc;
}

/* "0x01804154": an NV index (TPM 2.0 Part 2 clause 13.1), beside parentPub only. */
static enum att_rc take_counter(const json_t *obj, bool has_parent, uint32_t *ret,
                                struct att_err *err)
{
    uint8_t bytes[4];
    const json_t *json = json_object_get(obj, "parentCounter");
    const char *text = json_string_value(json);
    if (!json) {
        return ATT_OK;
    }
    if (!has_parent || !text || strncmp(text, "0x01", 4) != 0 ||
        att_unhex_exact(bytes, sizeof bytes, text + 2, NULL) != ATT_OK) {
        return att_fail(err, ATT_E_PARSE,
                        "\"parentCounter\": expected an NV index, like \"0x01804154\", beside "
                        "\"parentPub\"");
    }
    *ret = (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
    return ATT_OK;
}

static enum att_rc take_request(const json_t *obj, struct enrol_m4_request *request,
                                struct att_err *err)
{
    enum att_rc rc =
        enrol_member_bytes(obj, "attObj", EVIDENCE_ATTOBJ_MAX, false, &request->attobj, err);
    if (rc == ATT_OK) {
        rc = take_ak(obj, &request->ak_url, err);
    }
    if (rc == ATT_OK) {
        rc = enrol_member_bytes(obj, "evidence", EVIDENCE_STATEMENT_MAX, false, &request->evidence,
                                err);
    }
    if (rc == ATT_OK) {
        rc = enrol_member_evidence(obj, &request->quote, &request->pcrs, &request->logs, err);
    }
    if (rc == ATT_OK) {
        rc = enrol_member_bytes(obj, "srkPub", ENROL_TPM_MAX, true, &request->srk_pub, err);
    }
    if (rc == ATT_OK) {
        rc = enrol_member_bytes(obj, "parentPub", ENROL_TPM_MAX, true, &request->parent_pub, err);
    }
    if (rc == ATT_OK) {
        rc = take_counter(obj, request->parent_pub.len > 0, &request->parent_counter, err);
    }
    return rc == ATT_OK ? take_manifest(obj, &request->manifest, err) : rc;
}

/* As compact JSON: white space is not kept by anybody. */
static enum att_rc check_rest(const json_t *obj, struct att_err *err)
{
    att_autojson *rest = json_copy((json_t *)(uintptr_t)obj);
    if (!rest) {
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    json_object_del(rest, "logs");
    json_object_del(rest, "manifest");
    size_t len = json_dumpb(rest, NULL, 0, JSON_COMPACT);
    return len && len <= ENROL_M4_REST_MAX
               ? ATT_OK
               : att_fail(err, ATT_E_PARSE,
                          "%zu bytes outside \"logs\" and \"manifest\", at most %zu are read", len,
                          ENROL_M4_REST_MAX);
}

enum att_rc enrol_m4_request_parse(struct att_slice payload, struct enrol_m4_request *ret_request,
                                   struct att_err *err)
{
    att_autojson *obj = NULL;
    struct enrol_m4_request request = {0};
    enum att_rc rc = enrol_member_object(payload, ENROL_EVIDENCE_MAX, &obj, err);
    if (rc == ATT_OK) {
        rc = check_rest(obj, err);
    }
    if (rc == ATT_OK) {
        rc = take_request(obj, &request, err);
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "challenge response");
        enrol_m4_request_done(&request);
        return enrol_malformed(rc, err);
    }
    *ret_request = request;
    return ATT_OK;
}
