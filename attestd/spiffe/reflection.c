/* gRPC's server reflection, for everybody: what this server can be asked, as the published
 * definitions say it. It says nothing about agents. Each request has an answer of its own, in
 * order. */
#include "attestd/spiffe/reflect.h"
#include "attestd/spiffe/service.h"

#include "attestd/base/clock.h"
#include "reflection.pb-c.h"

#include <stdio.h>
#include <string.h>

#define SERVICES_MAX 16
#define SERVICE_MAX  80  /* bytes of a service's name */
#define REQUEST_MAX  512 /* each answer repeats its request */

extern const uint8_t spiffe_proto_descriptors[]; /* made of proto/ by the build */
extern const size_t spiffe_proto_descriptors_len;

/* ---- answers ------------------------------------------------------------------------------- */

static void answer(struct job *job, Grpc__Reflection__V1__ServerReflectionRequest *request,
                   Grpc__Reflection__V1__ServerReflectionResponse *response)
{
    response->valid_host = request->host;
    response->original_request = request;
    struct grpc_bytes *bytes = grpc_bytes_new(protobuf_c_message_get_packed_size(&response->base));
    if (!bytes) {
        spiffed_finish(job, GRPC_UNAVAILABLE, "no memory");
        return;
    }
    (void)protobuf_c_message_pack(&response->base, bytes->data + 5);
    if (!grpc_call_append(job->call, bytes)) {
        spiffed_finish(job, GRPC_RESOURCE_EXHAUSTED, "more requests than answers that were read");
    }
    grpc_bytes_unref(bytes);
}

static void answer_error(struct job *job, Grpc__Reflection__V1__ServerReflectionRequest *request,
                         enum grpc_status status, const char *message)
{
    Grpc__Reflection__V1__ServerReflectionResponse response;
    Grpc__Reflection__V1__ErrorResponse error;
    grpc__reflection__v1__server_reflection_response__init(&response);
    grpc__reflection__v1__error_response__init(&error);
    error.error_code = (int32_t)status;
    error.error_message = (char *)(uintptr_t)message;
    response.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
    response.error_response = &error;
    answer(job, request, &response);
}

static void answer_file(struct job *job, Grpc__Reflection__V1__ServerReflectionRequest *request,
                        struct att_slice file, const char *missing)
{
    Grpc__Reflection__V1__ServerReflectionResponse response;
    Grpc__Reflection__V1__FileDescriptorResponse files;
    ProtobufCBinaryData one = {file.len, (uint8_t *)(uintptr_t)file.ptr};
    if (!file.len) {
        answer_error(job, request, GRPC_NOT_FOUND, missing);
        return;
    }
    grpc__reflection__v1__server_reflection_response__init(&response);
    grpc__reflection__v1__file_descriptor_response__init(&files);
    files.file_descriptor_proto = &one;
    files.n_file_descriptor_proto = 1;
    response.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
    response.file_descriptor_response = &files;
    answer(job, request, &response);
}

/* No message here has extensions. */
static void answer_no_numbers(struct job *job,
                              Grpc__Reflection__V1__ServerReflectionRequest *request)
{
    Grpc__Reflection__V1__ServerReflectionResponse response;
    Grpc__Reflection__V1__ExtensionNumberResponse numbers;
    grpc__reflection__v1__server_reflection_response__init(&response);
    grpc__reflection__v1__extension_number_response__init(&numbers);
    numbers.base_type_name = request->all_extension_numbers_of_type;
    response.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ALL_EXTENSION_NUMBERS_RESPONSE;
    response.all_extension_numbers_response = &numbers;
    answer(job, request, &response);
}

/* Those of the methods, which stand service by service. */
static size_t list_names(char ret[SERVICES_MAX][SERVICE_MAX])
{
    size_t n = 0;
    for (const struct grpc_method *method = spiffed_methods; method->path; method++) {
        const char *name = method->path + 1;
        size_t len = strcspn(name, "/");
        bool another = n == 0 || strlen(ret[n - 1]) != len || memcmp(ret[n - 1], name, len) != 0;
        if (another && n < SERVICES_MAX && len < SERVICE_MAX) {
            snprintf(ret[n++], SERVICE_MAX, "%.*s", (int)len, name);
        }
    }
    return n;
}

static void answer_services(struct job *job, Grpc__Reflection__V1__ServerReflectionRequest *request)
{
    char names[SERVICES_MAX][SERVICE_MAX];
    Grpc__Reflection__V1__ServiceResponse services[SERVICES_MAX], *list[SERVICES_MAX];
    Grpc__Reflection__V1__ListServiceResponse all;
    Grpc__Reflection__V1__ServerReflectionResponse response;
    grpc__reflection__v1__server_reflection_response__init(&response);
    grpc__reflection__v1__list_service_response__init(&all);
    all.n_service = list_names(names);
    all.service = list;
    for (size_t i = 0; i < all.n_service; i++) {
        grpc__reflection__v1__service_response__init(&services[i]);
        services[i].name = names[i];
        list[i] = &services[i];
    }
    response.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
    response.list_services_response = &all;
    answer(job, request, &response);
}

/* ---- requests ------------------------------------------------------------------------------ */

static void serve(struct job *job, Grpc__Reflection__V1__ServerReflectionRequest *request)
{
    const struct att_slice set = ATT_SLICE(spiffe_proto_descriptors, spiffe_proto_descriptors_len);
    struct att_slice name;
    switch (request->message_request_case) {
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
        answer_services(job, request);
        return;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
        name = att_slice_str(request->file_by_filename);
        answer_file(job, request, reflect_file_named(set, name), "no such file");
        return;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
        name = att_slice_str(request->file_containing_symbol);
        answer_file(job, request, reflect_file_declaring(set, name), "no such symbol");
        return;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION:
        answer_error(job, request, GRPC_NOT_FOUND, "no such extension");
        return;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE:
        name = att_slice_str(request->all_extension_numbers_of_type);
        if (reflect_file_declaring(set, name).len) {
            answer_no_numbers(job, request);
        } else {
            answer_error(job, request, GRPC_NOT_FOUND, "no such type");
        }
        return;
    default:
        answer_error(job, request, GRPC_INVALID_ARGUMENT, "message_request: none is set");
    }
}

void spiffed_reflection(struct job *job, struct att_slice message)
{
    Grpc__Reflection__V1__ServerReflectionRequest *request = NULL;
    job->asked_ms = att_boottime_ms();
    if (message.len > REQUEST_MAX) {
        spiffed_finish(job, GRPC_INVALID_ARGUMENT, "the request is longer than 512 bytes");
        return;
    }
    request =
        grpc__reflection__v1__server_reflection_request__unpack(NULL, message.len, message.ptr);
    if (!request) {
        spiffed_finish(job, GRPC_INVALID_ARGUMENT, "the request is no ServerReflectionRequest");
        return;
    }
    serve(job, request);
    grpc__reflection__v1__server_reflection_request__free_unpacked(request, NULL);
}
