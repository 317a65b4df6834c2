/* attestctl eventlog show FILE: any machine's firmware log, IMA list or log of systemd's,
 * explained; which of them it is shows in its beginning. Needs no daemon. */
#include "attestd/ctl/ctl.h"

#include "attestd/base/io.h"
#include "tpm/parse/ima.h"
#include "tpm/parse/logform.h"

#include <stdio.h>

static void print_event(const json_t *event)
{
    char number[32], pcr[32], type[64], payload[400];
    const char *key = NULL;
    json_t *digest = NULL;
    const char *what = json_object_get(event, "template") ? "template" : "type";
    printf("%4s  pcr %-3s %s%s\n", ctl_text(event, "event", number, sizeof number),
           ctl_text(event, "pcr", pcr, sizeof pcr), ctl_text(event, what, type, sizeof type),
           json_is_true(json_object_get(event, "violation")) ? "  (violation)"
           : json_is_true(json_object_get(event, "digestCoversPayload"))
               ? ""
               : "  (payload not hashed)");
    json_object_foreach(json_object_get(event, "digests"), key, digest)
    {
        printf("        %-7s %s\n", key, json_string_value(digest));
    }
    if (json_object_get(event, "payload")) {
        printf("        %s\n", ctl_text(event, "payload", payload, sizeof payload));
    }
}

static void print_pcrs(const json_t *pcrs)
{
    const char *bank = NULL;
    json_t *values = NULL;
    json_object_foreach((json_t *)(uintptr_t)pcrs, bank, values)
    {
        const char *index = NULL;
        json_t *value = NULL;
        printf("%s:\n", bank);
        json_object_foreach(values, index, value)
        {
            printf("  %2s  %s\n", index, json_string_value(value));
        }
    }
}

enum ctl_exit ctl_eventlog_show(const struct ctl_ctx *ctx, const struct ctl_args *args,
                                const json_t *result)
{
    (void)result;
    const char *path = json_string_value(json_object_get(args->json, "FILE"));
    att_autobuf bytes = ATT_BUF_INIT(PARSE_IMA_MAX);
    att_autojson *json = NULL;
    struct att_err err = {0};
    enum att_rc rc = att_io_read_file(path, PARSE_IMA_MAX, &bytes, &err);
    if (rc == ATT_OK) {
        rc = parse_logform_explain(att_buf_slice(&bytes), &json, &err);
        if (rc != ATT_OK) {
            att_err_prefix(&err, "%s", path);
        }
    }
    if (rc != ATT_OK) {
        return ctl_report(&err);
    }
    if (ctx->json) {
        ctl_print_json(json);
        return CTL_OK;
    }
    const json_t *events = json_object_get(json, "events");
    for (size_t i = 0; i < json_array_size(events); i++) {
        print_event(json_array_get(events, i));
    }
    print_pcrs(json_object_get(json, "pcrs"));
    return CTL_OK;
}
