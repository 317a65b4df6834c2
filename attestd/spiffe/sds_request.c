#include "attestd/spiffe/sds_request.h"

#include "attestd/base/buf.h"
#include "secret.pb-c.h"

#include <stdlib.h>
#include <string.h>

/* Printable, without space: a name is a SPIFFE ID or one of three words. */
static bool name_ok(const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; i < len && i <= SDS_NAME_MAX; i++) {
        if (name[i] <= 0x20 || name[i] > 0x7e) {
            return false;
        }
    }
    return len > 0 && len <= SDS_NAME_MAX;
}

/* NULL: it is in order. */
static const char *wrong(const Envoy__Service__Secret__V3__DiscoveryRequest *request)
{
    if (request->type_url[0] && strcmp(request->type_url, SDS_SECRET_TYPE) != 0) {
        return "type_url: " SDS_SECRET_TYPE " expected";
    }
    if (request->n_resource_names > SDS_NAMES_MAX) {
        return "resource_names: 16 at most";
    }
    for (size_t i = 0; i < request->n_resource_names; i++) {
        if (!name_ok(request->resource_names[i])) {
            return "resource_names: 1 to 512 printable characters without space expected";
        }
    }
    if (strlen(request->version_info) > SDS_TOKEN_MAX ||
        strlen(request->response_nonce) > SDS_TOKEN_MAX) {
        return "version_info, response_nonce: 64 bytes at most, as they were sent";
    }
    return NULL;
}

static int by_name(const void *a, const void *b)
{
    const char *const *one = a, *const *other = b;
    return strcmp(*one, *other);
}

static const char *take(Envoy__Service__Secret__V3__DiscoveryRequest *request,
                        struct sds_request *ret)
{
    att_autobuf names = ATT_BUF_INIT(SDS_NAMES_MAX * (SDS_NAME_MAX + 1) + 1);
    char **all = request->resource_names;
    size_t n = request->n_resource_names, count = 0;
    if (n > 1) {
        qsort(all, n, sizeof *all, by_name);
    }
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || strcmp(all[i], all[i - 1]) != 0) {
            att_buf_put_str(&names, all[i]);
            att_buf_put_str(&names, "\n");
            count++;
        }
    }
    const char *text = att_buf_cstr(&names);
    char *kept = text ? strdup(text) : NULL;
    if (!kept) {
        return "no memory for a request";
    }
    *ret = (struct sds_request){
        .names = kept, .name_count = count, .rejects = request->error_detail != NULL};
    memcpy(ret->version, request->version_info, strlen(request->version_info));
    memcpy(ret->nonce, request->response_nonce, strlen(request->response_nonce));
    if (ret->rejects) {
        memcpy(ret->detail, request->error_detail->message,
               strnlen(request->error_detail->message, SDS_DETAIL_MAX));
    }
    return NULL;
}

const char *sds_request_parse(struct att_slice message, struct sds_request *ret)
{
    Envoy__Service__Secret__V3__DiscoveryRequest *request =
        envoy__service__secret__v3__discovery_request__unpack(NULL, message.len, message.ptr);
    const char *why = request ? wrong(request) : "the request is no DiscoveryRequest";
    why = why ? why : take(request, ret);
    if (request) {
        envoy__service__secret__v3__discovery_request__free_unpacked(request, NULL);
    }
    return why;
}

void sds_request_done(struct sds_request *request)
{
    free(request->names);
    *request = (struct sds_request){0};
}

enum sds_meaning sds_request_meaning(const struct sds_request *request, bool first,
                                     const char *nonce, const char *version)
{
    if (first || !request->nonce[0]) { /* a nonce of another stream says nothing on this one */
        return SDS_SUBSCRIBES;
    }
    if (!nonce[0] || strcmp(request->nonce, nonce) != 0) {
        return SDS_STALE;
    }
    return request->rejects || strcmp(request->version, version) != 0 ? SDS_REJECTS : SDS_ACCEPTS;
}
