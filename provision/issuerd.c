/* attest-issuerd: reads its arguments, then init, check, migrate or serve. */
#include "attestd/base/log.h"
#include "attestd/conf/issuer_conf.h"
#include "provision/issuer/issuer.h"

#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_DEFAULT "/etc/attestd/issuer.yaml"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

static struct issuer *serving; /* for the signal handlers; set before they are */

static const char usage[] =
    "Usage: attest-issuerd [--config FILE] [--log text|json] [init [--root offline] | --check]\n"
    "       attest-issuerd migrate --from sqlite:PATH --to postgres:CONNECTION\n"
    "                              [--password-file FILE]\n"
    "       attest-issuerd [--config FILE] backup --to FOLDER\n"
    "\n"
    "Serves ACME with TPM evidence; verifies, issues, keeps the audit log.\n"
    "\n"
    "  init            make the certificate authorities in state_dir/ca, once\n"
    "  --root offline  with init: the roots' keys are elsewhere; run again with the chains\n"
    "  migrate         copy the database of an issuer that is down, whole, and verify it\n"
    "  backup          copy all that is in state_dir, beside the issuer that serves, into a new\n"
    "                  folder; of a PostgreSQL all but the database\n"
    "  --check         read everything that serving needs, say what is wrong, do not serve\n"
    "  --config FILE   configuration (default " CONFIG_DEFAULT ")\n"
    "  --log FORM      text or json, whatever the configuration says\n"
    "  --version, --help\n"
    "\n"
    "SIGHUP reads profiles, EK roots and policies again. Exit: 0 ok, 1 failed, 2 usage.\n";

static void on_signal(int sig)
{
    if (sig == SIGHUP) {
        issuer_reload(serving);
    } else {
        issuer_stop(serving);
    }
}

static int failed(const struct att_err *err, const char *event)
{
    att_log_err(ATT_ERROR, event, err);
    return EXIT_FAILED;
}

static void setup_log(const char *config, const char *form)
{
    struct conf_issuer *conf = NULL;
    bool json = form && strcmp(form, "json") == 0;
    enum att_log_level least = ATT_INFO;
    if (conf_issuer_load(config, &conf, NULL, NULL) == ATT_OK) {
        json = form ? json : conf->log_json;
        least = conf->log_least;
    }
    conf_issuer_free(conf);
    att_log_setup("attest-issuerd", least, json);
}

/* What an operator needs next: which file hosts pin, which one relying parties trust. */
static int tell_init(const char *config)
{
    struct conf_issuer *conf = NULL;
    struct att_err err = {0};
    if (conf_issuer_load(config, &conf, NULL, &err)) {
        return failed(&err, "init.failed");
    }
    printf("made the authorities in %s/ca\n"
           "  hosts pin as issuer.ca_file:  %s/ca/tls-root.pem\n"
           "  relying parties trust:        %s/ca/bundle.pem\n"
           "  evidence is verified against: %s/ca/ak-roots.pem\n"
           "  auditors check the log by:    %s/ca/log.vkey\n",
           conf->state_dir, conf->state_dir, conf->state_dir, conf->state_dir, conf->state_dir);
    conf_issuer_free(conf);
    return EXIT_OK;
}

static int init_offline(const char *config)
{
    struct conf_issuer *conf = NULL;
    struct att_err err = {0};
    bool complete = false;
    if (issuer_init_offline(config, &complete, &err) ||
        conf_issuer_load(config, &conf, NULL, &err)) {
        return failed(&err, "init.failed");
    }
    if (!complete) {
        printf("the roots sign these requests, where their keys are:\n"
               "  %s/offline/workload-ca.csr\n"
               "  %s/offline/attest-ca.csr\n"
               "put what comes back, each an intermediate and its root, beside them as\n"
               "workload-ca.chain.pem and attest-ca.chain.pem, then run this again\n",
               conf->state_dir, conf->state_dir);
    }
    conf_issuer_free(conf);
    return complete ? tell_init(config) : EXIT_OK;
}

static int serve(const char *config, bool check)
{
    struct att_err err = {0};
    struct issuer *issuer = NULL;
    if (check) {
        if (issuer_check(config, &err)) {
            return failed(&err, "check.failed");
        }
        printf("%s: ok\n", config);
        return EXIT_OK;
    }
    if (issuer_confine(config, &err) || issuer_new(config, &issuer, &err)) {
        return failed(&err, "start.failed");
    }
    serving = issuer;
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    enum att_rc rc = issuer_serve(issuer, &err);
    signal(SIGTERM, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    issuer_free(issuer);
    return rc ? failed(&err, "serve.failed") : EXIT_OK;
}

struct arguments {
    const char *config, *form, *from, *to, *password_file, *root;
    bool check;
    enum { DO_SERVE, DO_INIT, DO_MIGRATE, DO_BACKUP } act;
};

/* What is given fits together. */
static bool parse_act(int argc, char **argv, struct arguments *args)
{
    const char *act = optind < argc ? argv[optind++] : "";
    args->act = strcmp(act, "init") == 0      ? DO_INIT
                : strcmp(act, "migrate") == 0 ? DO_MIGRATE
                : strcmp(act, "backup") == 0  ? DO_BACKUP
                                              : DO_SERVE;
    bool migrate = args->act == DO_MIGRATE, backup = args->act == DO_BACKUP;
    return optind == argc && (args->act != DO_SERVE || !*act) &&
           (args->act == DO_SERVE || !args->check) && migrate == (args->from && args->to) &&
           (migrate || backup) == (args->to != NULL) &&
           (migrate || (!args->from && !args->password_file)) &&
           (!args->root || (args->act == DO_INIT && strcmp(args->root, "offline") == 0)) &&
           (!args->form || strcmp(args->form, "text") == 0 || strcmp(args->form, "json") == 0);
}

static int act(const struct arguments *args)
{
    struct att_err err = {0};
    setup_log(args->config, args->form);
    switch (args->act) {
    case DO_INIT:
        if (args->root) {
            return init_offline(args->config);
        }
        return issuer_init(args->config, &err) ? failed(&err, "init.failed")
                                               : tell_init(args->config);
    case DO_MIGRATE:
        return issuer_migrate(args->from, args->to, args->password_file, &err)
                   ? failed(&err, "migrate.failed")
                   : EXIT_OK;
    case DO_BACKUP:
        return issuer_backup(args->config, args->to, &err) ? failed(&err, "backup.failed")
                                                           : EXIT_OK;
    case DO_SERVE:
        break;
    }
    return serve(args->config, args->check);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'}, {"check", no_argument, NULL, 'k'},
        {"log", required_argument, NULL, 'l'},    {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},      {"from", required_argument, NULL, 'f'},
        {"to", required_argument, NULL, 't'},     {"password-file", required_argument, NULL, 'p'},
        {"root", required_argument, NULL, 'r'},   {NULL, 0, NULL, 0}};
    struct arguments args = {.config = CONFIG_DEFAULT};
    int opt;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a limit of file sizes is an error like a full disk */
    issuer_memory();
    while ((opt = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
        switch (opt) {
        case 'c':
            args.config = optarg;
            break;
        case 'k':
            args.check = true;
            break;
        case 'l':
            args.form = optarg;
            break;
        case 'f':
            args.from = optarg;
            break;
        case 't':
            args.to = optarg;
            break;
        case 'p':
            args.password_file = optarg;
            break;
        case 'r':
            args.root = optarg;
            break;
        case 'h':
            fputs(usage, stdout);
            return EXIT_OK;
        case 'V':
            puts("attest-issuerd " ATT_VERSION);
            return EXIT_OK;
        default:
            fputs(usage, stderr);
            return EXIT_USAGE;
        }
    }
    if (!parse_act(argc, argv, &args)) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    return act(&args);
}
