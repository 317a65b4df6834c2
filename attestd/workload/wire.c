#include "attestd/workload/wire.h"

#include "attestd/proc/who_proto.h"

#include <string.h>

_Static_assert(WORKLOAD_FILES_MAX == PROC_WHO_FILES_MAX, "one bound");
_Static_assert(WORKLOAD_PATH_MAX == PROC_WHO_PATH_MAX, "one bound");
_Static_assert(WORKLOAD_CGROUP_MAX == PROC_WHO_CGROUP_MAX, "one bound");
_Static_assert(WORKLOAD_UNIT_MAX == PROC_WHO_UNIT_MAX, "one bound");

static struct att_slice digest_slice(const struct workload_digest *digest)
{
    return ATT_SLICE(digest->sha256, digest->known ? ATT_SHA256_LEN : 0);
}

enum att_rc workload_wire_encode(const struct proc_op *op, const struct workload_caller *caller,
                                 struct att_buf *ret_payload, struct att_err *err)
{
    const struct workload_facts *facts = &caller->facts;
    struct att_slice files[WORKLOAD_FILES_MAX];
    for (size_t i = 0; i < caller->n_files; i++) {
        files[i] = digest_slice(&caller->files[i]);
    }
    const struct proc_value values[] = {
        [PROC_WHO_REP_IDENTITY] = {.bytes = ATT_SLICE_ARRAY(facts->identity)},
        [PROC_WHO_REP_PID] = {.num = facts->pid},
        [PROC_WHO_REP_UID] = {.num = facts->uid},
        [PROC_WHO_REP_EUID] = {.num = facts->euid},
        [PROC_WHO_REP_GID] = {.num = facts->gid},
        [PROC_WHO_REP_PARENT_PID] = {.num = facts->parent},
        [PROC_WHO_REP_START_TIME] = {.num = facts->start_time},
        [PROC_WHO_REP_UNIT] = proc_text(facts->unit),
        [PROC_WHO_REP_INVOCATION_ID] = proc_text(facts->invocation_id),
        [PROC_WHO_REP_CGROUP] = proc_text(facts->cgroup),
        [PROC_WHO_REP_EXE_PATH] = proc_text(caller->exe_path),
        [PROC_WHO_REP_EXE_SHA256] = {.bytes = ATT_SLICE_ARRAY(caller->exe_sha256)},
        [PROC_WHO_REP_SCRIPT_PATH] = proc_text(caller->script_path),
        [PROC_WHO_REP_SCRIPT_SHA256] = {.bytes = digest_slice(&caller->script)},
        [PROC_WHO_REP_FILE_SHA256] = {.items = files, .item_count = caller->n_files},
    };
    return proc_reply_encode(op, values, ret_payload, err);
}

static bool take_digest(struct att_slice from, struct workload_digest *ret)
{
    *ret = (struct workload_digest){.known = from.len == ATT_SHA256_LEN};
    if (ret->known) {
        memcpy(ret->sha256, from.ptr, ATT_SHA256_LEN);
    }
    return ret->known || from.len == 0;
}

static void take_facts(const struct proc_value *v, struct workload_facts *facts)
{
    memcpy(facts->identity, v[PROC_WHO_REP_IDENTITY].bytes.ptr, sizeof facts->identity);
    facts->pid = (uint32_t)v[PROC_WHO_REP_PID].num;
    facts->uid = (uint32_t)v[PROC_WHO_REP_UID].num;
    facts->euid = (uint32_t)v[PROC_WHO_REP_EUID].num;
    facts->gid = (uint32_t)v[PROC_WHO_REP_GID].num;
    facts->parent = (uint32_t)v[PROC_WHO_REP_PARENT_PID].num;
    facts->start_time = v[PROC_WHO_REP_START_TIME].num;
    proc_take_text(v[PROC_WHO_REP_UNIT].bytes, facts->unit, sizeof facts->unit);
    proc_take_text(v[PROC_WHO_REP_INVOCATION_ID].bytes, facts->invocation_id,
                   sizeof facts->invocation_id);
    proc_take_text(v[PROC_WHO_REP_CGROUP].bytes, facts->cgroup, sizeof facts->cgroup);
}

enum att_rc workload_wire_parse(const struct proc_msg *msg, struct workload_caller *ret_caller,
                                struct att_err *err)
{
    const struct proc_value *v = msg->v;
    struct workload_caller caller = {.n_files = v[PROC_WHO_REP_FILE_SHA256].item_count};
    take_facts(v, &caller.facts);
    proc_take_text(v[PROC_WHO_REP_EXE_PATH].bytes, caller.exe_path, sizeof caller.exe_path);
    proc_take_text(v[PROC_WHO_REP_SCRIPT_PATH].bytes, caller.script_path,
                   sizeof caller.script_path);
    memcpy(caller.exe_sha256, v[PROC_WHO_REP_EXE_SHA256].bytes.ptr, ATT_SHA256_LEN);
    bool ok = caller.n_files <= WORKLOAD_FILES_MAX &&
              take_digest(v[PROC_WHO_REP_SCRIPT_SHA256].bytes, &caller.script);
    for (size_t i = 0; ok && i < caller.n_files; i++) {
        ok = take_digest(v[PROC_WHO_REP_FILE_SHA256].items[i], &caller.files[i]);
    }
    if (!ok) {
        return att_fail(err, ATT_E_PROTOCOL, "whod: a digest is not of 32 bytes");
    }
    *ret_caller = caller;
    return ATT_OK;
}

enum att_rc workload_wire_who(struct proc_caller *whod, int pidfd, pid_t pid, int64_t accepted_ms,
                              bool again, const struct att_slice *files, size_t n_files,
                              struct workload_caller *ret_caller, struct att_err *err)
{
    const struct proc_value values[] = {
        [PROC_WHO_REQ_PID] = {.num = (uint64_t)pid},
        [PROC_WHO_REQ_ACCEPTED_MS] = {.num = (uint64_t)accepted_ms},
        [PROC_WHO_REQ_FILES] = {.items = files, .item_count = n_files},
        [PROC_WHO_REQ_AGAIN] = {.num = again},
    };
    proc_autoanswer answer = {0};
    enum att_rc rc = proc_call(whod, PROC_WHO_WHO, values, pidfd, &answer, err);
    if (rc == ATT_OK) {
        rc = workload_wire_parse(&answer.msg, ret_caller, err);
    }
    if (rc == ATT_OK && ret_caller->n_files != n_files) {
        rc = att_fail(err, ATT_E_PROTOCOL, "whod: %zu digests for %zu files", ret_caller->n_files,
                      n_files);
    }
    return rc;
}
