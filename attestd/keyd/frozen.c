/* Agents that are frozen: frozen.json, {"version": 1, "agents": [name …]}. */
#include "attestd/keyd/internal.h"

#include "attestd/base/io.h"

#include <stdlib.h>
#include <string.h>

#define FROZEN_FILE_MAX ((size_t)512 << 10)

static size_t position(const struct keyd *keyd, const char *agent)
{
    size_t i = 0;
    while (i < keyd->frozen_count && strcmp(keyd->frozen[i], agent) != 0) {
        i++;
    }
    return i;
}

/* lock is held. */
static enum att_rc add(struct keyd *keyd, const char *agent, struct att_err *err)
{
    if (position(keyd, agent) < keyd->frozen_count) {
        return ATT_OK;
    }
    if (keyd->frozen_count >= KEYD_FROZEN_MAX) {
        return att_fail(err, ATT_E_LIMIT, "%d agents can be frozen at most", KEYD_FROZEN_MAX);
    }
    void *more = realloc(keyd->frozen, (keyd->frozen_count + 1) * sizeof *keyd->frozen);
    if (!more) {
        return att_fail(err, ATT_E_NOMEM, "a frozen agent");
    }
    keyd->frozen = more;
    keyd_text(att_slice_str(agent), keyd->frozen[keyd->frozen_count++], sizeof *keyd->frozen);
    return ATT_OK;
}

static void drop(struct keyd *keyd, const char *agent)
{
    size_t at = position(keyd, agent);
    if (at < keyd->frozen_count) {
        keyd->frozen_count--;
        memmove(keyd->frozen[at], keyd->frozen[keyd->frozen_count], sizeof *keyd->frozen);
    }
}

/* lock is held. */
static enum att_rc write_file(const struct keyd *keyd, struct att_err *err)
{
    char path[KEYD_PATH_MAX];
    att_autojson *list = json_array();
    for (size_t i = 0; i < keyd->frozen_count; i++) {
        json_array_append_new(list, json_string(keyd->frozen[i]));
    }
    att_autojson *json = json_pack("{s:i, s:O}", "version", 1, "agents", list);
    att_autobuf text = ATT_BUF_INIT(FROZEN_FILE_MAX);
    if (!json || json_array_size(list) != keyd->frozen_count) {
        return att_fail(err, ATT_E_NOMEM, "frozen.json");
    }
    enum att_rc rc = att_json_dump(json, false, &text, err);
    if (rc == ATT_OK) {
        rc = keyd_path(keyd, "frozen.json", path, err);
    }
    return rc == ATT_OK ? att_io_write_file(path, att_buf_slice(&text), 0600, err) : rc;
}

static enum att_rc parse_file(struct keyd *keyd, struct att_slice text, struct att_err *err)
{
    att_autojson *json = NULL;
    enum att_rc rc = att_json_parse(text, FROZEN_FILE_MAX, &json, err);
    const json_t *agents = rc == ATT_OK ? json_object_get(json, "agents") : NULL;
    if (rc == ATT_OK && (json_object_size(json) != 2 || !json_is_array(agents) ||
                         json_integer_value(json_object_get(json, "version")) != 1)) {
        rc = att_fail(err, ATT_E_PARSE, "expected version 1 and agents");
    }
    for (size_t i = 0; rc == ATT_OK && i < json_array_size(agents); i++) {
        const char *name = json_string_value(json_array_get(agents, i));
        rc = name && proc_agent_name_ok(att_slice_str(name))
                 ? add(keyd, name, err)
                 : att_fail(err, ATT_E_PARSE, "agents[%zu] is no agent's name", i);
    }
    return rc;
}

/* Who was frozen is not known any more: then everybody who has a key is, until thawed by name. */
static enum att_rc freeze_all(struct keyd *keyd, struct att_err *err)
{
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; rc == ATT_OK && i < keyd->keys_count; i++) {
        rc = add(keyd, keyd->keys[i].agent, err);
    }
    return rc == ATT_OK ? write_file(keyd, err) : rc;
}

enum att_rc keyd_frozen_load(struct keyd *keyd, struct att_err *err)
{
    char path[KEYD_PATH_MAX];
    att_autobuf text = ATT_BUF_INIT(FROZEN_FILE_MAX);
    struct att_err cause = {0};
    enum att_rc rc = keyd_path(keyd, "frozen.json", path, err);
    if (rc != ATT_OK) {
        return rc;
    }
    rc = att_io_read_file(path, FROZEN_FILE_MAX, &text, &cause);
    if (rc == ATT_E_NOTFOUND) {
        /* Set aside by a start that was killed before it had written the new list? */
        return keyd_state_was_bad(keyd, "frozen.json") ? freeze_all(keyd, err) : ATT_OK;
    }
    if (rc == ATT_OK) {
        rc = parse_file(keyd, att_buf_slice(&text), &cause);
    }
    if (rc == ATT_E_PARSE || rc == ATT_E_LIMIT) {
        rc = keyd_state_bad(keyd, "frozen.json", err);
        return rc == ATT_OK ? freeze_all(keyd, err) : rc;
    }
    return rc == ATT_OK ? rc : att_fail(err, rc, "%s", cause.msg);
}

enum att_rc keyd_frozen_check(struct keyd *keyd, const char *agent, struct att_err *err)
{
    pthread_mutex_lock(&keyd->lock);
    bool frozen = position(keyd, agent) < keyd->frozen_count;
    pthread_mutex_unlock(&keyd->lock);
    return frozen ? keyd_deny(err, "frozen", "agent %s is frozen", agent) : ATT_OK;
}

/* lock is held. */
static void rest_keys(struct keyd *keyd, const char *agent)
{
    for (size_t i = 0; i < keyd->keys_count; i++) {
        const struct keyd_key *key = &keyd->keys[i];
        if (key->held && key->store->rest && strcmp(key->agent, agent) == 0) {
            key->store->rest(key->held);
        }
    }
}

/* In force in memory before it is on disk when freezing; the other way round when thawing: whatever
 * fails, fails frozen. */
static enum att_rc change(struct keyd *keyd, const struct proc_msg *request, bool freeze,
                          struct att_err *err)
{
    struct att_slice name = request->v[PROC_FREEZE_REQ_AGENT].bytes;
    char agent[PROC_AGENT_MAX + 1];
    if (!proc_agent_name_ok(name)) {
        return att_fail(err, ATT_E_INVAL, "agent: a name as [a-z0-9][a-z0-9._-]* expected");
    }
    KEYD_TEXT(name, agent);
    pthread_mutex_lock(&keyd->files);
    pthread_mutex_lock(&keyd->lock);
    enum att_rc rc = ATT_OK;
    if (freeze) {
        rc = add(keyd, agent, err);
        rest_keys(keyd, agent);
    } else {
        drop(keyd, agent);
    }
    if (rc == ATT_OK) {
        rc = write_file(keyd, err);
        if (rc != ATT_OK && !freeze) {
            /* The new list may be there already, only not safe from a loss of power: what answers
             * failure must not be thawed by the next start. */
            (void)!add(keyd, agent, NULL);
            (void)!write_file(keyd, NULL);
        }
    }
    pthread_mutex_unlock(&keyd->lock);
    pthread_mutex_unlock(&keyd->files);
    return rc;
}

KEYD_OPERATION(freeze)
{
    enum att_rc rc = change(keyd, request, true, err);
    return rc == ATT_OK ? proc_reply_encode(op, NULL, ret_payload, err) : rc;
}

KEYD_OPERATION(thaw)
{
    enum att_rc rc = change(keyd, request, false, err);
    return rc == ATT_OK ? proc_reply_encode(op, NULL, ret_payload, err) : rc;
}
