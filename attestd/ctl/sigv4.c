#include "attestd/ctl/sigv4.h"

#include "attestd/base/enc.h"
#include "attestd/base/hash.h"

#include <stdlib.h>
#include <string.h>

static void put_hash(struct att_buf *text, struct att_slice bytes)
{
    uint8_t digest[ATT_SHA256_LEN];
    att_sha256(digest, bytes);
    att_buf_hex(text, ATT_SLICE_ARRAY(digest));
}

/* "UriEncode": all but the unreserved (RFC 3986 §2.3) and, in a path, the slash. */
static void put_path(struct att_buf *text, const char *path)
{
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";
    for (const char *c = path; *c; c++) {
        if (strchr(plain, *c)) {
            att_buf_put(text, c, 1);
        } else {
            att_buf_printf(text, "%%%02X", (unsigned)(unsigned char)*c);
        }
    }
}

/* "Trimall": none at the ends, one space for several. */
static void put_value(struct att_buf *text, const char *value)
{
    bool pending = false, any = false;
    for (const char *c = value; *c; c++) {
        if (*c == ' ') {
            pending = any;
            continue;
        }
        if (pending) {
            att_buf_put_str(text, " ");
        }
        att_buf_put(text, c, 1);
        pending = false;
        any = true;
    }
}

static int by_name(const void *a, const void *b)
{
    const struct sigv4_header *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static enum att_rc sorted(const struct sigv4_request *request,
                          const struct sigv4_header *ret[SIGV4_HEADERS_MAX], struct att_err *err)
{
    if (request->n_headers > SIGV4_HEADERS_MAX) {
        return att_fail(err, ATT_E_INVAL, "SigV4: %zu headers, at most %d", request->n_headers,
                        SIGV4_HEADERS_MAX);
    }
    for (size_t i = 0; i < request->n_headers; i++) {
        ret[i] = &request->headers[i];
    }
    qsort(ret, request->n_headers, sizeof ret[0], by_name);
    for (size_t i = 1; i < request->n_headers; i++) {
        if (strcmp(ret[i - 1]->name, ret[i]->name) == 0) {
            return att_fail(err, ATT_E_INVAL, "SigV4: the header %.60s is there twice",
                            ret[i]->name);
        }
    }
    return ATT_OK;
}

enum att_rc sigv4_canonical(const struct sigv4_request *request, struct att_buf *ret_text,
                            struct att_buf *ret_signed, struct att_err *err)
{
    const struct sigv4_header *headers[SIGV4_HEADERS_MAX];
    enum att_rc rc = sorted(request, headers, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_buf_printf(ret_text, "%s\n", request->method);
    put_path(ret_text, request->path);
    att_buf_put_str(ret_text, "\n\n"); /* no query */
    for (size_t i = 0; i < request->n_headers; i++) {
        att_buf_printf(ret_text, "%s:", headers[i]->name);
        put_value(ret_text, headers[i]->value);
        att_buf_put_str(ret_text, "\n");
        att_buf_put_str(ret_signed, i ? ";" : "");
        att_buf_put_str(ret_signed, headers[i]->name);
    }
    att_buf_put_str(ret_text, "\n");
    att_buf_put_slice(ret_text, att_buf_slice(ret_signed));
    att_buf_put_str(ret_text, "\n");
    put_hash(ret_text, request->body);
    rc = att_buf_ok(ret_signed, err);
    return rc ? rc : att_buf_ok(ret_text, err);
}

enum att_rc sigv4_string_to_sign(const char *algorithm, const char *date, const char *scope,
                                 struct att_slice canonical, struct att_buf *ret_text,
                                 struct att_err *err)
{
    att_buf_printf(ret_text, "%s\n%s\n%s\n", algorithm, date, scope);
    put_hash(ret_text, canonical);
    return att_buf_ok(ret_text, err);
}
