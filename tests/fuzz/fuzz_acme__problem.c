/* A problem document from an issuer: what parses can be written and read again unchanged. */
#include "provision/acme/problem.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct acme_problem problem = {0}, back = {0};
    if (acme_problem_parse(ATT_SLICE(data, size), &problem, NULL) != ATT_OK) {
        return 0;
    }
    struct att_err err = {0};
    struct att_buf text = {0};
    json_t *json = NULL;
    if (acme_problem_to_err(&problem, &err) == ATT_OK ||
        acme_problem_encode(&problem, &json, NULL) != ATT_OK ||
        att_json_dump(json, false, &text, NULL) != ATT_OK ||
        acme_problem_parse(att_buf_slice(&text), &back, NULL) != ATT_OK ||
        back.type != problem.type || back.n_sub != problem.n_sub ||
        strcmp(back.detail, problem.detail) != 0) {
        __builtin_trap();
    }
    json_decref(json);
    att_buf_done(&text);
    return 0;
}
