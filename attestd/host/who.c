/* The control socket's "who": why is this process an agent, or why not? */
#include "attestd/host/internal.h"
#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "attestd/host/decision.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static json_t *digest_json(bool known, const uint8_t sha256[ATT_SHA256_LEN])
{
    char hex[2 * ATT_SHA256_LEN + 1];
    if (!known) {
        return json_null();
    }
    att_hex(hex, ATT_SLICE(sha256, ATT_SHA256_LEN));
    return json_string(hex);
}

static json_t *text_json(const char *text)
{
    return text[0] ? json_string(text) : json_null();
}

static json_t *process_json(const struct workload_caller *c)
{
    json_t *json = json_pack("{s:I, s:I, s:I, s:I, s:I, s:s, s:s}", "pid", (json_int_t)c->facts.pid,
                             "uid", (json_int_t)c->facts.uid, "euid", (json_int_t)c->facts.euid,
                             "gid", (json_int_t)c->facts.gid, "parent", (json_int_t)c->facts.parent,
                             "cgroup", c->facts.cgroup, "exe", c->exe_path);
    json_object_set_new(json, "unit", text_json(c->facts.unit));
    json_object_set_new(json, "invocationId", text_json(c->facts.invocation_id));
    json_object_set_new(json, "exeSha256", digest_json(true, c->exe_sha256));
    json_object_set_new(json, "script", text_json(c->script_path));
    json_object_set_new(json, "scriptSha256", digest_json(c->script.known, c->script.sha256));
    return json;
}

/* One line for each alternative of each entry. */
static json_t *candidates_json(const struct host_decision *d)
{
    json_t *list = json_array();
    for (size_t i = 0; d->selectors && i < d->selectors->n; i++) {
        const struct workload_rule *rule = &d->selectors->rules[i];
        if (rule->n == 0) {
            json_array_append_new(list, json_pack("{s:s, s:b, s:s, s:s}", "agent", rule->agent,
                                                  "fits", false, "member", "workload", "why",
                                                  d->selectors->bad[i].msg));
        }
        for (size_t k = 0; k < rule->n; k++) {
            struct workload_misfit misfit = {0};
            bool fits = !workload_match_misfit(&rule->workload[k], &d->caller, &d->wanted, &misfit);
            json_array_append_new(list, json_pack("{s:s, s:b, s:s, s:s}", "agent", rule->agent,
                                                  "fits", fits, "member", fits ? "" : misfit.member,
                                                  "why", misfit.text));
        }
    }
    return list;
}

static enum att_rc take_pid(const json_t *args, pid_t *ret_pid, struct att_err *err)
{
    const char *text;
    enum att_rc rc = att_json_str(args, "pid", &text, err);
    if (rc != ATT_OK) {
        return rc;
    }
    char *end = NULL;
    long pid = strtol(text, &end, 10);
    if (text[0] < '1' || text[0] > '9' || *end || pid > INT32_MAX) {
        return att_fail(err, ATT_E_INVAL, "pid: expected the number of a process, found \"%.40s\"",
                        text);
    }
    *ret_pid = (pid_t)pid;
    return ATT_OK;
}

static enum att_rc open_pid(pid_t pid, int *ret_fd, struct att_err *err)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0) {
        return errno == ESRCH ? att_fail(err, ATT_E_NOTFOUND, "no process %d", (int)pid)
                              : att_fail_errno(err, ATT_E_INVAL, "process %d", (int)pid);
    }
    *ret_fd = fd;
    return ATT_OK;
}

enum att_rc host_who(struct host *host, const json_t *args, json_t **ret_result,
                     struct att_err *err)
{
    struct host_caller from = {.pidfd = -1};
    att_autofd pidfd = -1;
    enum att_rc rc = take_pid(args, &from.pid, err);
    if (rc == ATT_OK) {
        rc = open_pid(from.pid, &pidfd, err);
    }
    struct host_decision *d = rc == ATT_OK ? calloc(1, sizeof(*d)) : NULL;
    if (!d) {
        return rc != ATT_OK ? rc : att_fail(err, ATT_E_NOMEM, "no memory for a decision");
    }
    struct att_err why = {0};
    from.pidfd = pidfd;
    rc = host_decide(host, &from, d, &why);
    if (d->seen) {
        *ret_result =
            json_pack("{s:o, s:o, s:s, s:s, s:o}", "process", process_json(&d->caller), "agent",
                      d->agent ? json_string(d->agent) : json_null(), "reason",
                      rc == ATT_OK    ? ""
                      : why.reason[0] ? why.reason
                                      : att_rc_name(rc),
                      "message", rc == ATT_OK ? "" : why.msg, "candidates", candidates_json(d));
        rc = *ret_result ? ATT_OK : att_fail(err, ATT_E_NOMEM, "no memory for an answer");
    } else if (err) {
        *err = why;
    }
    host_decision_done(d);
    free(d);
    return rc;
}
