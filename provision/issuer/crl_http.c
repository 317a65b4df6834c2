/* The revocation lists in the clear: GET or HEAD of /workload.crl and the like, and nothing else.
 */
#include "provision/issuer/revoke.h"

#include "attestd/web/plain.h"

#include <stdio.h>
#include <stdlib.h>

struct issuer_crl_server {
    struct web_plain *web;
};

static void send_list(void *user, const struct web_request *request, struct web_answer *ret_answer)
{
    struct issuer *issuer = user;
    struct issuer_crl_ref of;
    uint64_t number = 0;
    struct att_err err = {0};
    if (request->path[0] != '/' || !issuer_crl_parse(request->path + 1, &of)) {
        return; /* 404 */
    }
    ret_answer->body = ATT_BUF_INIT(CERTS_CRL_MAX);
    enum att_rc rc = issuer_crl_get(issuer, &of, &ret_answer->body, &number, &err);
    if (rc == ATT_E_NOTFOUND) {
        return;
    }
    if (rc) {
        att_log_err(ATT_ERROR, "crl.failed", &err);
        att_buf_reset(&ret_answer->body);
        ret_answer->status = "503 Service Unavailable";
        snprintf(ret_answer->headers, sizeof ret_answer->headers, "Retry-After: 5\r\n");
        return;
    }
    /* RFC 5280 §4.2.1.13 */
    ret_answer->status = "200 OK";
    snprintf(
        ret_answer->headers, sizeof ret_answer->headers,
        "Content-Type: application/pkix-crl\r\nCache-Control: max-age=%d\r\nETag: \"%llu\"\r\n",
        ISSUER_CRL_FRESH_S, (unsigned long long)number);
}

enum att_rc issuer_crl_server_new(struct issuer *issuer, struct issuer_crl_server **ret_server,
                                  struct att_err *err)
{
    issuer_autosettings *settings = issuer_settings_get(issuer);
    const struct conf_issuer *conf = settings->conf;
    *ret_server = NULL;
    if (!conf->crl || !conf->crl->listen) {
        return ATT_OK;
    }
    struct issuer_crl_server *server = calloc(1, sizeof *server);
    if (!server) {
        return att_fail(err, ATT_E_NOMEM, "crl.listen: no memory");
    }
    const struct web_opts opts = {.what = "crl.listen",
                                  .host = conf->crl_host,
                                  .port = conf->crl_port,
                                  .handler = send_list,
                                  .user = issuer};
    enum att_rc rc = web_plain_new(&opts, &server->web, err);
    if (rc) {
        free(server);
        return rc;
    }
    *ret_server = server;
    att_log(ATT_INFO, "crl.listening", ATT_S("listen", conf->crl->listen),
            ATT_N("port", web_plain_port(server->web)));
    return ATT_OK;
}

void issuer_crl_server_free(struct issuer_crl_server *server)
{
    if (server) {
        web_plain_free(server->web);
        free(server);
    }
}

uint16_t issuer_crl_server_port(const struct issuer_crl_server *server)
{
    return server ? web_plain_port(server->web) : 0;
}
