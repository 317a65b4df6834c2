/* A REPORT of the token service, whose children strangers talk to. What is kept can be shown. */
#include "attestd/host/internal.h"
#include "attestd/proc/workload_proto.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct host host = {.lock = PTHREAD_MUTEX_INITIALIZER};
    static struct proc_msg msg;
    const struct proc_op *op = proc_op_find(proc_workload_table, PROC_WORKLOAD_REPORT);
    if (!host.reg && agent_registry_new(&host.reg, NULL) != ATT_OK) {
        abort();
    }
    if (proc_msg_parse(&op->request, ATT_SLICE(data, size), &msg, NULL) == ATT_OK &&
        host_token_keep(&host, msg.v, NULL) == ATT_OK) {
        json_t *json = host_token_json(&host, (struct agent_now){.utc_s = 1});
        if (json_array_size(json_object_get(json, "agents")) !=
            msg.v[PROC_WORKLOAD_REPORT_REQ_AGENTS].item_count) {
            abort();
        }
        json_decref(json);
    }
    host_token_done(&host.token);
    return 0;
}
