/* attestd: the daemon of a host. See attestd/host/host.h. */
#include "attestd/host/host.h"
#include "attestd/host/local.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

static const char usage[] =
    "usage: attestd [--config FILE] [--check] [--log text|json] [--state-dir DIR] [--run-dir DIR]\n"
    "               [--keyd-user USER] [--tokend-user USER] [--spiffed-user USER]\n"
    "               [--whod-user USER] [--ipc-group GROUP]\n"
    "       attestd --help | --version\n"
    "\n"
    "Keeps the certificates of this host's agents fresh; their keys stay in the TPM.\n"
    "  --config FILE    configuration (default /etc/attestd/attestd.yaml)\n"
    "  --check          read the configuration, print every error with file:line, and end\n"
    "  --log FORM       text or json, whatever the file says\n"
    "  --state-dir DIR  instead of the file's state_dir\n"
    "  --run-dir DIR    instead of the file's run_dir\n"
    "  --keyd-user USER the user that attestd-keyd runs as (default: the one attestd runs as)\n"
    "  --tokend-user USER  the same for attestd-tokend, which may ask who a caller is\n"
    "  --spiffed-user USER  the same for attestd-spiffed; nobody else may ask\n"
    "  --whod-user USER the same for attestd-whod, which alone is believed about callers\n"
    "  --ipc-group GROUP   through which it reaches RUN_DIR/workload.sock (default: attestd's)\n"
    "Exit: 0 ended by a signal (or --check found nothing wrong), 1 failed, 2 wrong usage.\n";

enum {
    OPT_CONFIG = 256,
    OPT_CHECK,
    OPT_LOG,
    OPT_STATE_DIR,
    OPT_RUN_DIR,
    OPT_KEYD_USER,
    OPT_TOKEND_USER,
    OPT_SPIFFED_USER,
    OPT_WHOD_USER,
    OPT_IPC_GROUP,
    OPT_HELP,
    OPT_VERSION
};

static const struct option options[] = {
    {"config", required_argument, NULL, OPT_CONFIG},
    {"check", no_argument, NULL, OPT_CHECK},
    {"log", required_argument, NULL, OPT_LOG},
    {"state-dir", required_argument, NULL, OPT_STATE_DIR},
    {"run-dir", required_argument, NULL, OPT_RUN_DIR},
    {"keyd-user", required_argument, NULL, OPT_KEYD_USER},
    {"tokend-user", required_argument, NULL, OPT_TOKEND_USER},
    {"spiffed-user", required_argument, NULL, OPT_SPIFFED_USER},
    {"whod-user", required_argument, NULL, OPT_WHOD_USER},
    {"ipc-group", required_argument, NULL, OPT_IPC_GROUP},
    {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, OPT_VERSION},
    {NULL, 0, NULL, 0},
};

static int run(const struct host_options *opts, bool check)
{
    struct att_err err = {0};
    struct conf_attestd *conf = NULL;
    enum att_rc rc = host_conf_load(opts, &conf, &err);
    if (rc == ATT_OK && check) {
        struct host_local *local = NULL;
        struct conf_acme_agents *agents = NULL;
        rc = host_acme_agents_load(conf, &agents, &err);
        conf_acme_agents_free(agents);
        conf_attestd_free(conf);
        if (rc != ATT_OK || host_local_load(opts->conf_path, &local, &err) != ATT_OK) {
            fprintf(stderr, "attestd: %s\n", err.msg);
            return 1;
        }
        host_local_unref(&local);
        printf("%s: ok\n", opts->conf_path);
        return 0;
    }
    if (rc == ATT_OK) {
        rc = host_run(opts, conf, &err);
    }
    if (rc != ATT_OK) {
        fprintf(stderr, "attestd: %s\n", err.msg);
        return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct host_options opts = {.conf_path = "/etc/attestd/attestd.yaml"};
    bool check = false;
    int opt;
    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (opt) {
        case OPT_CONFIG:
            opts.conf_path = optarg;
            break;
        case OPT_CHECK:
            check = true;
            break;
        case OPT_LOG:
            opts.log = optarg;
            break;
        case OPT_STATE_DIR:
            opts.state_dir = optarg;
            break;
        case OPT_RUN_DIR:
            opts.run_dir = optarg;
            break;
        case OPT_KEYD_USER:
            opts.keyd_user = optarg;
            break;
        case OPT_TOKEND_USER:
            opts.tokend_user = optarg;
            break;
        case OPT_SPIFFED_USER:
            opts.spiffed_user = optarg;
            break;
        case OPT_WHOD_USER:
            opts.whod_user = optarg;
            break;
        case OPT_IPC_GROUP:
            opts.ipc_group = optarg;
            break;
        case OPT_HELP:
            fputs(usage, stdout);
            return 0;
        case OPT_VERSION:
            puts("attestd " ATT_VERSION);
            return 0;
        default:
            fputs(usage, stderr);
            return 2;
        }
    }
    if (optind != argc ||
        (opts.log && strcmp(opts.log, "text") != 0 && strcmp(opts.log, "json") != 0)) {
        fputs(usage, stderr);
        return 2;
    }
    return run(&opts, check);
}
