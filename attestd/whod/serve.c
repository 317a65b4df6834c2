#include "attestd/whod/whod.h"

#include "attestd/base/clock.h"
#include "attestd/proc/who_proto.h"
#include "attestd/workload/wire.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FRAME_TIMEOUT_MS 5000

struct whod {
    struct proc_server *server;
    struct workload_cache *cache;
    struct whod_measurer *measurer;
    struct whod_limits *limits;
    atomic_ullong answered, refused, limited, same;
};

static enum att_rc who(struct whod *whod, const struct proc_peer *peer, const struct proc_op *op,
                       const struct proc_value *v, struct att_buf *ret_payload, struct att_err *err)
{
    ATT_CLEANUP(workload_process_done) struct workload_process process = {.pidfd = -1, .dir = -1};
    uint64_t accepted_ms = v[PROC_WHO_REQ_ACCEPTED_MS].num;
    if (accepted_ms > INT64_MAX) {
        return att_fail(err, ATT_E_INVAL, "acceptedMs is too large");
    }
    enum att_rc rc = workload_process_open(peer->passed, (pid_t)v[PROC_WHO_REQ_PID].num,
                                           (int64_t)accepted_ms, &process, err);
    if (rc == ATT_OK) {
        rc = whod_limits_enter(whod->limits, process.facts.uid, v[PROC_WHO_REQ_AGAIN].num == 1,
                               att_boottime_ms(), err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    struct workload_caller *caller = calloc(1, sizeof *caller);
    rc = caller ? workload_process_look(&process, whod->cache, v[PROC_WHO_REQ_FILES].items,
                                        v[PROC_WHO_REQ_FILES].item_count, caller, err)
                : att_fail(err, ATT_E_NOMEM, "answer");
    whod_limits_leave(whod->limits, process.facts.uid);
    if (rc == ATT_OK) {
        rc = workload_wire_encode(op, caller, ret_payload, err);
    }
    free(caller);
    return rc;
}

static enum att_rc same(const struct proc_peer *peer, const struct proc_op *op,
                        const struct proc_value *v, struct att_buf *ret_payload,
                        struct att_err *err)
{
    ATT_CLEANUP(workload_process_done) struct workload_process process = {.pidfd = -1, .dir = -1};
    enum att_rc rc =
        workload_process_open(peer->passed, (pid_t)v[PROC_WHO_SAME_REQ_PID].num, 0, &process, err);
    if (rc != ATT_OK) {
        return rc;
    }
    bool is =
        att_slice_eq(v[PROC_WHO_SAME_REQ_IDENTITY].bytes, ATT_SLICE_ARRAY(process.facts.identity));
    const struct proc_value reply[] = {[PROC_WHO_SAME_REP_SAME] = {.num = is}};
    return proc_reply_encode(op, reply, ret_payload, err);
}

static enum att_rc handle(void *user, const struct proc_peer *peer, const struct proc_op *op,
                          const struct proc_msg *request, struct att_buf *ret_payload,
                          struct att_err *err)
{
    struct whod *whod = user;
    if (op->op == PROC_WHO_READ || op->op == PROC_WHO_MEASURE || op->op == PROC_WHO_LIST) {
        return whod_measurer_answer(whod->measurer, peer, op, request->v, ret_payload, err);
    }
    if (op->op == PROC_WHO_SAME) {
        atomic_fetch_add(&whod->same, 1);
        return same(peer, op, request->v, ret_payload, err);
    }
    enum att_rc rc = who(whod, peer, op, request->v, ret_payload, err);
    atomic_fetch_add(rc == ATT_OK        ? &whod->answered
                     : rc == ATT_E_LIMIT ? &whod->limited
                                         : &whod->refused,
                     1);
    return rc;
}

enum att_rc whod_new(const struct whod_opts *opts, struct whod **ret_whod, struct att_err *err)
{
    struct whod *whod = calloc(1, sizeof *whod);
    if (!whod) {
        return att_fail(err, ATT_E_NOMEM, "whod");
    }
    const struct proc_server_opts server = {.path = opts->socket_path,
                                            .clients = opts->clients,
                                            .table = proc_who_table,
                                            .handler = handle,
                                            .user = whod,
                                            .frame_timeout_ms = FRAME_TIMEOUT_MS};
    enum att_rc rc = workload_cache_new(WORKLOAD_CACHE_MAX, &whod->cache, err);
    if (rc == ATT_OK) {
        rc = whod_limits_new(&whod->limits, err);
    }
    if (rc == ATT_OK) {
        rc = whod_measurer_new(&whod->measurer, err);
    }
    if (rc == ATT_OK) {
        rc = proc_server_new(&server, &whod->server, err);
    }
    if (rc != ATT_OK) {
        whod_free(whod);
        return rc;
    }
    *ret_whod = whod;
    return ATT_OK;
}

enum att_rc whod_start(struct whod *whod, struct att_err *err)
{
    return proc_server_start(whod->server, err);
}

void whod_free(struct whod *whod)
{
    if (whod) {
        proc_server_free(whod->server);
        whod_limits_free(whod->limits);
        workload_cache_free(whod->cache);
        whod_measurer_free(whod->measurer);
        free(whod);
    }
}

void whod_status(struct whod *whod, char *ret, size_t room)
{
    struct workload_cache_counts cache;
    workload_cache_count(whod->cache, &cache);
    snprintf(ret, room,
             "%llu callers told, %llu refused, %llu over their limit; %zu executables known",
             (unsigned long long)atomic_load(&whod->answered),
             (unsigned long long)atomic_load(&whod->refused),
             (unsigned long long)atomic_load(&whod->limited), cache.used);
}
