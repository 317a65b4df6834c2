/* What an agent is made of, as its entry demands it. */
#include "provision/issuer/order.h"

#include "attestd/base/enc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum att_rc issuer_measured_judge(const struct conf_entry *entry,
                                  const struct enrol_m4_request *request,
                                  const struct verify_agent_in *judged,
                                  const struct verify_agent_facts *agent,
                                  struct verify_verdict *verdict,
                                  struct verify_measured_facts *ret_facts, struct att_err *err)
{
    const struct conf_measured *m = &entry->measured;
    const struct verify_measured_in in = {
        .demanded = m->manifest != NULL,
        .wanted = {m->roots, m->n_roots, m->signers, m->n_signers},
        .level = m->level,
        .document = att_buf_slice(&request->manifest),
        .logs = &request->logs,
        .logs_asked = judged->boot.logs,
        .agent = agent,
        .boot = &judged->boot,
        .quoted = &judged->quoted};
    enum verify_result result = verify_measured(&in, verdict, ret_facts);
    return result == VERIFY_ACCEPTED ? ATT_OK : verify_verdict_err(verdict, err);
}

json_t *issuer_measured_json(const struct verify_measured_facts *facts)
{
    char root[2 * ATT_SHA256_LEN + 1], verity[2 * ATT_SHA256_LEN + 1];
    att_hex(root, ATT_SLICE_ARRAY(facts->root));
    att_hex(verity, ATT_SLICE_ARRAY(facts->verity_root));
    return facts->level ? json_pack("{s:I, s:s, s:I, s:I, s:s*}", "level", (json_int_t)facts->level,
                                    "manifestRoot", root, "files", (json_int_t)facts->n_files,
                                    "confirmedByIma", (json_int_t)facts->n_ima, "verityRoot",
                                    facts->level == 3 ? verity : NULL)
                        : NULL;
}

bool issuer_measured_note(const struct verify_measured_facts *facts, char **ret_text)
{
    char text[80] = "";
    if (facts->level) {
        snprintf(text, sizeof text, "%u/", facts->level);
        att_hex(text + strlen(text), ATT_SLICE_ARRAY(facts->root));
    }
    return issuer_set(ret_text, text);
}

enum att_rc issuer_measured_leaf(const char *note, struct certs_measured *ret_measured,
                                 struct att_err *err)
{
    *ret_measured = (struct certs_measured){0};
    if (!note || !note[0]) {
        return ATT_OK;
    }
    ret_measured->level = note[0] >= '1' && note[0] <= '9' ? (unsigned)(note[0] - '0') : 0;
    return note[1] == '/'
               ? att_unhex_exact(ret_measured->root, sizeof ret_measured->root, note + 2, err)
               : att_fail(err, ATT_E_INTERNAL, "an order's note on measured files");
}
