/* A SoftHSM token behind a real attestd-hsmd, for a keyd in this process (common.h). */
#ifndef ATT_TESTS_KEYD_HSM_H
#define ATT_TESTS_KEYD_HSM_H

#include "tests/support/softhsm.h"
#include "tests/unit/keyd/common.h"

#include <signal.h>
#include <sys/prctl.h>

struct hsm_rig {
    char softhsm[64], sock[256], serial[17];
    pid_t hsmd;
    struct keyd_hsm_opts module;
    struct evidence_hsm_token token; /* as keyd was told */
};

static inline void hsm_config(const struct fixture *f, const struct hsm_rig *h, char ret_path[300])
{
    att_autobuf text = {0}, pin = {0};
    char pin_path[300];
    struct att_err err = {0};
    put(ret_path, 300, "%s/attestd.yaml", f->base);
    put(pin_path, sizeof pin_path, "%s/pin", f->base);
    att_buf_printf(&pin, "%s\n", SOFTHSM_PIN);
    assert_ok(att_io_write_file(pin_path, att_buf_slice(&pin), 0600, &err));
    att_buf_printf(&text,
                   "run_dir: %s/run\nstate_dir: %s/state\nhsm:\n  module: %s\n"
                   "  token: \"pkcs11:token=agents;serial=%s?pin-source=file:%s\"\n"
                   "  files: [ %s/softhsm2.conf, %s/tokens ]\n",
                   f->base, f->base, SOFTHSM_MODULE, h->serial, pin_path, h->softhsm, h->softhsm);
    assert_ok(att_io_write_file(ret_path, att_buf_slice(&text), 0600, &err));
}

/* After make_folder, before keyd's start: then opts' module is h->module. */
static inline void hsm_start(const struct fixture *f, struct hsm_rig *h)
{
    char config[300], program[512], log[300];
    const char *bin = getenv("ATT_BIN_DIR");
    assert_non_null(bin);
    *h = (struct hsm_rig){.hsmd = -1};
    softhsm_init(h->softhsm);
    softhsm_token(h->softhsm, "agents", h->serial);
    hsm_config(f, h, config);
    put(program, sizeof program, "%s/attestd-hsmd", bin);
    put(log, sizeof log, "%s/hsmd.log", f->base);
    put(h->sock, sizeof h->sock, "%s/run/hsm/default/hsm.sock", f->base);
    h->module = (struct keyd_hsm_opts){"default", h->sock, geteuid()};
    pid_t parent = getpid();
    h->hsmd = fork();
    assert_true(h->hsmd >= 0);
    if (h->hsmd == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent || !freopen(log, "we", stdout) || dup2(1, 2) < 0) {
            _exit(126);
        }
        execl(program, program, "--config", config, (char *)NULL);
        _exit(127);
    }
}

static inline void hsm_stop(struct hsm_rig *h)
{
    if (h->hsmd > 0) {
        kill(h->hsmd, SIGKILL);
        waitpid(h->hsmd, NULL, 0);
        h->hsmd = -1;
    }
}

static inline void hsm_done(struct hsm_rig *h)
{
    hsm_stop(h);
    softhsm_done(h->softhsm);
}

static inline void hsm_text(const json_t *said, const char *name, char *ret, size_t room)
{
    const char *text = json_string_value(json_object_get(said, name));
    assert_non_null(text);
    put(ret, room, "%s", text);
}

/* keyd's INFO says that the module is ready; h->token is what it says of the token. */
static inline void hsm_wait_ready(struct fixture *f, struct hsm_rig *h)
{
    for (int i = 0; i < 1200; i++) {
        att_autojson *info = NULL;
        const json_t *stores, *store;
        size_t n;
        usleep(50000);
        if (proc_keyd_info(f->client, &info, NULL) != ATT_OK) {
            continue;
        }
        stores = json_object_get(info, "stores");
        json_array_foreach(stores, n, store)
        {
            const json_t *module = json_array_get(json_object_get(store, "modules"), 0);
            const json_t *said = json_object_get(module, "token");
            const char *state = json_string_value(json_object_get(module, "state"));
            if (state && strcmp(state, "ready") == 0) {
                hsm_text(said, "manufacturer", h->token.manufacturer, sizeof h->token.manufacturer);
                hsm_text(said, "model", h->token.model, sizeof h->token.model);
                hsm_text(said, "serial", h->token.serial, sizeof h->token.serial);
                return;
            }
        }
    }
    fail_msg("attestd-hsmd is not ready: see %s/hsmd.log", f->base);
}

#endif
