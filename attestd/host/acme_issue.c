/* Orders at another server than an attest-issuerd: device-attest-01 as its draft has it. */
#include "attestd/host/issue.h"
#include "attestd/base/enc.h"

#include <string.h>

enum att_rc host_issue_csr(struct host *host, const char *key_id, const char *spiffe_id,
                           const char *identifier, struct att_buf *ret_der, struct att_err *err)
{
    return identifier[0] ? proc_keyd_key_csr_device(host->keyd, key_id, identifier, ret_der, err)
                         : proc_keyd_key_csr(host->keyd, key_id, spiffe_id, ret_der, err);
}

enum att_rc host_issue_check_order(const struct host_issue *job, struct att_err *err)
{
    const struct acme_order *order = &job->order;
    const char *wanted = job->rec.identifier;
    if (!wanted[0]) {
        return ATT_OK; /* an attest-issuerd's, which writes the name itself and signs what it says
                        */
    }
    if (order->n_identifiers == 1 && strcmp(order->identifiers[0].type, ACME_ID_PERMANENT) == 0 &&
        strcmp(order->identifiers[0].value, wanted) == 0) {
        return ATT_OK;
    }
    enum att_rc rc = att_fail(
        err, ATT_E_PROTOCOL,
        "the server's order is for %zu identifiers, %s %.80s, wanted was %s "
        "%.80s alone",
        order->n_identifiers, order->n_identifiers ? order->identifiers[0].type : "none",
        order->n_identifiers ? order->identifiers[0].value : "", ACME_ID_PERMANENT, wanted);
    att_err_reason(err, "orderIdentifier");
    return rc;
}

static enum att_rc payload_of(struct att_slice attobj, struct att_buf *ret, struct att_err *err)
{
    att_autobuf text = {0};
    att_buf_b64u(&text, attobj);
    const char *b64 = att_buf_cstr(&text);
    att_autojson *json = b64 ? json_pack("{s:s}", "attObj", b64) : NULL;
    return json ? att_json_dump(json, false, ret, err)
                : att_fail(err, ATT_E_NOMEM, "no memory for a statement");
}

enum att_rc host_issue_statement(struct host_issue *job, const struct acme_challenge *challenge,
                                 struct att_buf *ret_payload, struct att_err *err)
{
    att_autobuf authz = {0}, attobj = {0};
    if (job->have_evidence) {
        host_evidence_done(&job->evidence);
    }
    job->have_evidence = true;
    acme_key_authorization(challenge->token, acme_client_thumbprint(job->client), &authz);
    const char *text = att_buf_cstr(&authz);
    if (!text) {
        return att_fail(err, ATT_E_NOMEM, "no memory for a key authorization");
    }
    enum att_rc rc = proc_keyd_key_certify(job->host->keyd, job->rec.next_key_id, text,
                                           &job->evidence.made, err);
    host_issue_lap(job, AGENT_STAGE_TPM_EVIDENCE);
    if (rc != ATT_OK) {
        job->where = HOST_AT_KEYD;
        return rc;
    }
    rc = host_issue_attobj(job, &attobj, err);
    return rc == ATT_OK ? payload_of(att_buf_slice(&attobj), ret_payload, err) : rc;
}
