/* attest-issuerd: reads its arguments, then init, check or serve. */
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
    "Usage: attest-issuerd [--config FILE] [--log text|json] [init | --check]\n"
    "\n"
    "Serves ACME with TPM evidence; verifies, issues, keeps the audit log.\n"
    "\n"
    "  init            make the certificate authorities in state_dir/ca, once\n"
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

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'}, {"check", no_argument, NULL, 'k'},
        {"log", required_argument, NULL, 'l'},    {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},      {NULL, 0, NULL, 0}};
    const char *config = CONFIG_DEFAULT, *form = NULL;
    bool check = false;
    int opt;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a limit of file sizes is an error like a full disk */
    issuer_memory();
    while ((opt = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
        switch (opt) {
        case 'c':
            config = optarg;
            break;
        case 'k':
            check = true;
            break;
        case 'l':
            form = optarg;
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
    bool init = optind < argc && strcmp(argv[optind], "init") == 0;
    if (optind + (init ? 1 : 0) != argc || (init && check) ||
        (form && strcmp(form, "text") != 0 && strcmp(form, "json") != 0)) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    setup_log(config, form);
    if (init) {
        struct att_err err = {0};
        return issuer_init(config, &err) ? failed(&err, "init.failed") : tell_init(config);
    }
    return serve(config, check);
}
