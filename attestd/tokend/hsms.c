/* Links to keyd, a few for each HSM module: while one module does not come back, its agents'
 * signatures hold the links of that module and nobody else's. A module is known by its name from
 * the first agent on whose entry names it; when there is no other place, one that no agent has and
 * nobody waits on is given to the next module. */
#include "attestd/tokend/internal.h"

#include "attestd/conf/conf.h"
#include "attestd/proc/links.h"

#include <string.h>

#define LINKS      PROC_LINKS_TOKEND_HSM
#define LINKS_EACH 2

_Static_assert(HSMS_MAX == CONF_HSMS_MAX + 1 && HSMS_MAX == PROC_LINKS_HSMS_MAX &&
                   PROC_HSM_NAME_MAX == CONF_HSM_NAME_MAX,
               "every module of a host has its links");

static bool is_free(const struct tokend *tokend, const struct tokend_hsm *hsm)
{
    for (const struct agent *agent = tokend->agents; agent; agent = agent->next) {
        if (agent->hsm == hsm->keyd) {
            return false;
        }
    }
    return !tokend_upstream_busy(hsm->keyd);
}

/* The links stay, under the next name: they lead to the same keyd. */
static struct tokend_hsm *place_of(struct tokend *tokend, struct att_slice name)
{
    struct tokend_hsm *free_one = NULL;
    for (size_t i = 0; i < HSMS_MAX; i++) {
        struct tokend_hsm *hsm = &tokend->hsms[i];
        if (!hsm->keyd || att_slice_eq_str(name, hsm->name)) {
            return hsm;
        }
        free_one = !free_one && is_free(tokend, hsm) ? hsm : free_one;
    }
    if (free_one && name.len <= PROC_HSM_NAME_MAX) {
        memcpy(free_one->name, name.ptr, name.len);
        free_one->name[name.len] = 0;
        return free_one;
    }
    /* More names than a host has modules: of all but a few keyd knows nothing, and says so. */
    return &tokend->hsms[HSMS_MAX - 1];
}

struct tokend_upstream *tokend_hsms_get(struct tokend *tokend, struct att_slice name)
{
    struct tokend_hsm *hsm = place_of(tokend, name);
    if (hsm->keyd || name.len > PROC_HSM_NAME_MAX) {
        return hsm->keyd;
    }
    const struct tokend_upstream_opts opts = {&tokend->loop,   tokend->opts.keyd_path,
                                              "keyd",          tokend->opts.keyd_user,
                                              proc_sign_table, LINKS,
                                              LINKS_EACH,      GAP_MS};
    if (tokend_upstream_new(&opts, &hsm->keyd, NULL) != ATT_OK) {
        return NULL;
    }
    if (name.len) {
        memcpy(hsm->name, name.ptr, name.len);
    }
    hsm->name[name.len] = 0;
    return hsm->keyd;
}

bool tokend_hsms_busy(const struct tokend *tokend)
{
    for (size_t i = 0; i < HSMS_MAX && tokend->hsms[i].keyd; i++) {
        if (tokend_upstream_busy(tokend->hsms[i].keyd)) {
            return true;
        }
    }
    return false;
}

void tokend_hsms_tick(struct tokend *tokend)
{
    for (size_t i = 0; i < HSMS_MAX && tokend->hsms[i].keyd; i++) {
        tokend_upstream_tick(tokend->hsms[i].keyd);
    }
}

void tokend_hsms_free(struct tokend *tokend)
{
    for (size_t i = 0; i < HSMS_MAX; i++) {
        tokend_upstream_free(tokend->hsms[i].keyd);
        tokend->hsms[i].keyd = NULL;
    }
}
