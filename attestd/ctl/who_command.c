/* `attestctl who PID`: what whod sees of a process, which agent it is, and why not the others. */
#include "attestd/ctl/ctl.h"

#include <stdio.h>

static void print_process(const json_t *result)
{
    static const char *const rows[][2] = {
        {"process", "process.pid"},    {"user", "process.uid"},
        {"rights of", "process.euid"}, {"parent", "process.parent"},
        {"unit", "process.unit"},      {"cgroup", "process.cgroup"},
        {"executable", "process.exe"}, {"sha256", "process.exeSha256"},
        {"script", "process.script"},  {"sha256", "process.scriptSha256"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char cell[1100];
        printf("%-12s %s\n", rows[i][0], ctl_text(result, rows[i][1], cell, sizeof cell));
    }
}

enum ctl_exit ctl_who_show(const struct ctl_ctx *ctx, const struct ctl_args *args,
                           const json_t *result)
{
    static const struct ctl_column columns[] = {
        {"AGENT", "agent"}, {"FITS", "fits"}, {"WHY NOT", "why"}, {NULL, NULL}};
    bool found = json_is_string(json_object_get(result, "agent"));
    (void)args;
    if (ctx->json) {
        ctl_print_json(result);
        return found ? CTL_OK : CTL_FAILED;
    }
    char cell[500];
    print_process(result);
    if (found) {
        printf("%-12s %s\n", "agent", ctl_text(result, "agent", cell, sizeof cell));
    } else {
        printf("%-12s none (", "agent");
        printf("%s: ", ctl_text(result, "reason", cell, sizeof cell));
        printf("%s)\n", ctl_text(result, "message", cell, sizeof cell));
    }
    const json_t *candidates = json_object_get(result, "candidates");
    if (json_array_size(candidates)) {
        puts("");
        ctl_print_list(candidates, columns);
    }
    return found ? CTL_OK : CTL_FAILED;
}
