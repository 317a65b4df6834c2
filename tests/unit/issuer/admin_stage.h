/* A stage with people and roles, and their requests over HTTPS and at the socket. */
#ifndef TESTS_UNIT_ISSUER_ADMIN_STAGE_H
#define TESTS_UNIT_ISSUER_ADMIN_STAGE_H

#include "provision/issuer/admin.h"
#include "tests/unit/issuer/stage.h"

#define ADMIN                                                                                      \
    "admin:\n"                                                                                     \
    "  listen: \"127.0.0.1:0\"\n"                                                                  \
    "  agents: true\n"                                                                             \
    "  people:\n"                                                                                  \
    "    - { name: alice, ids: [\"uid:1000\", \"spiffe://staff.example/alice\"] }\n"               \
    "    - { name: dave, ids: [\"uid:1001\", \"spiffe://staff.example/dave\"] }\n"                 \
    "  bindings:\n"                                                                                \
    "    - { principals: [\"person:dave\"], roles: [revoker, approver] }\n"                        \
    "    - { principals: [\"spiffe://staff.example/west\"], roles: [registrar, approver],\n"       \
    "        paths: [\"spiffe://bank.example/agent/west-*\"] }\n"                                  \
    "    - { principals: [\"person:alice\"], roles: [registrar, approver, revoker] }\n"            \
    "    - { principals: [\"spiffe://staff.example/bob\"], roles: [approver] }\n"                  \
    "    - { principals: [\"spiffe://staff.example/op\"], roles: [ca-operator] }\n"                \
    "    - { principals: [\"spiffe://staff.example/op2\"], roles: [ca-operator] }\n"               \
    "    - { principals: [\"spiffe://staff.example/carol\"], roles: [auditor] }\n"                 \
    "    - { principals: [\"spiffe://staff.example/desk\"], roles: [revoker],\n"                   \
    "        paths: [\"spiffe://bank.example/agent/portfolio-*\"] }\n"                             \
    "    - { principals: [\"spiffe://staff.example/other\"], roles: [revoker],\n"                  \
    "        paths: [\"spiffe://bank.example/agent/elsewhere\"] }\n"                               \
    "    - { principals: [\"spiffe://bank.example/agent/" RIG_NAME "\"], roles: [auditor] }\n"

RIG void with_admin(struct stage *s)
{
    rig_config(&s->rig, "none", ADMIN);
    reload(&s->rig);
}

/* By a credential that was verified. */
RIG enum att_rc as_with(struct stage *s, const char *who, const char *request, const char *op,
                        json_t *args, json_t **ret_result, struct att_err *err)
{
    struct issuer_who w;
    char id[64];
    json_t *result = NULL;
    const struct conf_admin *admin = s->rig.issuer->settings->conf->admin;
    snprintf(id, sizeof id, "spiffe://staff.example/%s", who);
    assert_int_equal(issuer_who_remote(&w, admin, id, "192.0.2.1", NULL), ATT_OK);
    snprintf(w.request, sizeof w.request, "%s", request);
    enum att_rc rc = issuer_admin_run(s->rig.issuer, &w, op, args, &result, err);
    json_decref(args);
    if (ret_result && !rc) {
        *ret_result = result;
    } else {
        json_decref(result);
    }
    return rc;
}

RIG enum att_rc as(struct stage *s, const char *who, const char *op, json_t *args,
                   json_t **ret_result, struct att_err *err)
{
    static unsigned requests;
    char request[40];
    snprintf(request, sizeof request, "request-%09u", requests++);
    return as_with(s, who, request, op, args, ret_result, err);
}

#define refused_as(s, who, op, args, rc, want)                                                     \
    do {                                                                                           \
        struct att_err err = {0};                                                                  \
        assert_int_equal(as((s), (who), (op), (args), NULL, &err), (rc));                          \
        assert_string_equal(err.reason, (want));                                                   \
    } while (0)

/* Over the socket. */
RIG enum att_rc at_socket(struct stage *s, uid_t uid, const char *op, json_t *args,
                          struct att_err *err)
{
    const struct att_ctl_peer peer = {.uid = uid};
    json_t *result = NULL;
    enum att_rc rc = issuer_admin(s->rig.issuer, &peer, op, args, &result, err);
    json_decref(args);
    json_decref(result);
    return rc;
}

/* How many records there are of a refused operation. */
RIG size_t refusals_of(struct stage *s, const char *op)
{
    json_t *listed =
        rig_admin(&s->rig, "audit.list", json_pack("{s:s, s:i}", "kind", "admin", "limit", 1000));
    size_t i, n = 0;
    json_t *row;
    json_array_foreach(json_object_get(listed, "records"), i, row)
    {
        const json_t *record = json_object_get(row, "record");
        const char *subject = json_string_value(json_object_get(record, "subject"));
        n += strcmp(subject ? subject : "", op) == 0;
    }
    json_decref(listed);
    return n;
}

RIG json_t *proposal_id(json_t *made)
{
    json_t *id = json_incref(json_object_get(json_object_get(made, "proposal"), "id"));
    json_decref(made);
    assert_non_null(id);
    return id;
}

RIG json_t *proposed(struct stage *s, const char *who, const char *op, json_t *args)
{
    json_t *made = NULL;
    rig_ok(as(s, who, op, args, &made, &err));
    return proposal_id(made);
}

#endif
