#include "attestd/host/ticket.h"
#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "attestd/base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAC_KEY_LEN 32

void host_ticket_done(struct host_ticket *ticket)
{
    att_secret_done(&ticket->mac_key);
    memset(ticket, 0, sizeof(*ticket));
}

static enum att_rc text_member(const json_t *obj, const char *name, char *ret, size_t size,
                               struct att_err *err)
{
    const char *text;
    enum att_rc rc = att_json_str(obj, name, &text, err);
    if (rc != ATT_OK) {
        return rc;
    }
    size_t len = strlen(text);
    if (len == 0 || len >= size) {
        return att_fail(err, ATT_E_PARSE, "%s: expected 1 to %zu characters", name, size - 1);
    }
    memcpy(ret, text, len + 1);
    return ATT_OK;
}

static enum att_rc members(const json_t *obj, struct host_ticket *ticket, struct att_err *err)
{
    enum att_rc rc = text_member(obj, "url", ticket->url, sizeof(ticket->url), err);
    if (rc == ATT_OK && strncmp(ticket->url, "https://", 8) != 0) {
        rc = att_fail(err, ATT_E_PARSE, "url: expected https://…");
    }
    if (rc == ATT_OK) {
        rc = text_member(obj, "caSha256", ticket->ca_sha256, sizeof(ticket->ca_sha256), err);
    }
    if (rc == ATT_OK) {
        rc = att_unhex_exact(ticket->ca_sha256_bytes, ATT_SHA256_LEN, ticket->ca_sha256, err);
    }
    if (rc == ATT_OK) {
        rc = text_member(obj, "kid", ticket->kid, sizeof(ticket->kid), err);
    }
    if (rc == ATT_OK && json_object_get(obj, "host")) {
        rc = text_member(obj, "host", ticket->host, sizeof(ticket->host), err);
    }
    return rc;
}

static enum att_rc mac_key(const json_t *obj, struct att_secret *ret_key, struct att_err *err)
{
    att_autobuf key = ATT_BUF_INIT(MAC_KEY_LEN);
    enum att_rc rc = att_json_b64u(obj, "macKey", MAC_KEY_LEN, &key, err);
    if (rc == ATT_OK && key.len != MAC_KEY_LEN) {
        rc = att_fail(err, ATT_E_PARSE, "macKey: expected %d bytes, found %zu", MAC_KEY_LEN,
                      key.len);
    }
    if (rc == ATT_OK) {
        rc = att_secret_copy(ret_key, att_buf_slice(&key), err);
    }
    if (key.ptr) {
        att_wipe(key.ptr, key.cap);
    }
    return rc;
}

enum att_rc host_ticket_parse(struct att_slice text, struct host_ticket *ret_ticket,
                              struct att_err *err)
{
    att_autojson *obj = NULL;
    enum att_rc rc = att_json_parse(text, HOST_TICKET_MAX, &obj, NULL);
    if (rc != ATT_OK || !json_is_object(obj)) {
        /* jansson would quote what it stumbled over, which may be the key. */
        return att_fail(err, rc != ATT_OK ? rc : ATT_E_PARSE,
                        "expected one JSON object of at most %zu bytes", HOST_TICKET_MAX);
    }
    const char *key;
    json_t *value;
    json_object_foreach(obj, key, value)
    {
        if (strcmp(key, "url") != 0 && strcmp(key, "caSha256") != 0 && strcmp(key, "kid") != 0 &&
            strcmp(key, "macKey") != 0 && strcmp(key, "host") != 0) {
            return att_fail(err, ATT_E_PARSE,
                            "unknown member \"%.40s\": a ticket has url, caSha256, kid, macKey "
                            "and perhaps host",
                            key);
        }
    }
    struct host_ticket ticket = {0};
    rc = members(obj, &ticket, err);
    if (rc == ATT_OK) {
        rc = mac_key(obj, &ticket.mac_key, err);
    }
    if (rc != ATT_OK) {
        host_ticket_done(&ticket);
        return rc;
    }
    *ret_ticket = ticket;
    return ATT_OK;
}

enum att_rc host_ticket_load(const char *file, struct host_ticket *ret_ticket, struct att_err *err)
{
    char path[4096];
    if (!file) {
        const char *dir = getenv("CREDENTIALS_DIRECTORY");
        int len = dir ? snprintf(path, sizeof(path), "%s/attestd.ticket", dir) : 0;
        if (len <= 0 || (size_t)len >= sizeof(path)) {
            return att_fail(err, ATT_E_NOTFOUND, "no ticket_file and no systemd credential");
        }
        file = path;
    }
    att_autobuf text = ATT_BUF_INIT(HOST_TICKET_MAX);
    enum att_rc rc = att_io_read_file(file, HOST_TICKET_MAX, &text, err);
    if (rc == ATT_OK) {
        rc = host_ticket_parse(att_buf_slice(&text), ret_ticket, err);
    }
    if (text.ptr) {
        att_wipe(text.ptr, text.cap);
    }
    att_wipe_stack();
    if (rc != ATT_OK) {
        att_err_prefix(err, "ticket %s", file);
    }
    return rc;
}
