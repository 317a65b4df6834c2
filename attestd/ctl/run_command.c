/* attestctl run NAME -- CMD…: an environment in which stock libraries find an agent's key. It holds
 * paths and URIs, nothing secret, and confers nothing: CMD is attested like any caller. */
#include "attestd/ctl/ctl.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RUN_DIR      "/run/attestd"
#define STATE_DIR    "/var/lib/attestd"
#define PROVIDER_CNF "/etc/attestd/openssl-agent.cnf"
#define ENGINE_CNF   "/etc/attestd/openssl-engine.cnf"
#define KEY_FILE     "/etc/attestd/agent-key.pem"
#define MODULE       ATT_PKCS11_DIR "/p11-kit-client.so"
#define WAIT_MAX_S   3600
#define WAIT_STEP_MS 200

enum { EXIT_NOT_STARTED = 126, EXIT_NOT_FOUND = 127 };

struct run {
    const char *name, *run_dir, *state_dir;
    long long wait_s;
};

static bool name_ok(const char *name)
{
    size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._-");
    return len > 0 && len <= 64 && name[len] == 0 && name[0] != '.' && name[0] != '-' &&
           name[0] != '_';
}

static bool dir_ok(const char *option, const char *dir)
{
    if (dir[0] == '/' && strlen(dir) <= 1024) {
        return true;
    }
    fprintf(stderr, "attestctl: --%s: expected an absolute path, found \"%s\"\n", option, dir);
    return false;
}

static const char *option(const struct ctl_args *args, const char *name, const char *otherwise)
{
    const char *value = json_string_value(json_object_get(args->json, name));
    return value ? value : otherwise;
}

static bool take_args(const struct ctl_args *args, struct run *run)
{
    *run = (struct run){
        .name = option(args, "name", ""),
        .run_dir = option(args, "run-dir", RUN_DIR),
        .state_dir = option(args, "state-dir", STATE_DIR),
        .wait_s = json_integer_value(json_object_get(args->json, "wait")),
    };
    if (!args->rest || !args->rest[0]) {
        fprintf(stderr, "attestctl: expected \"-- CMD…\" behind the agent's name\n");
        return false;
    }
    if (!name_ok(run->name)) {
        fprintf(stderr,
                "attestctl: NAME: expected an agent's name ([a-z0-9][a-z0-9._-]*), found \"%s\"\n",
                run->name);
        return false;
    }
    if (run->wait_s < 0 || run->wait_s > WAIT_MAX_S) {
        fprintf(stderr, "attestctl: --wait: expected 0 to %d seconds, found %lld\n", WAIT_MAX_S,
                run->wait_s);
        return false;
    }
    return dir_ok("run-dir", run->run_dir) && dir_ok("state-dir", run->state_dir);
}

static void put_env(const char *name, const char *prefix, const char *dir, const char *rest)
{
    char value[2200];
    snprintf(value, sizeof value, "%s%s%s", prefix, dir, rest); /* dir_ok: it fits */
    setenv(name, value, 1);
}

/* Waits for the chain to be there. */
static bool await(const struct run *run, const char *chain)
{
    const struct timespec step = {.tv_nsec = WAIT_STEP_MS * 1000000L};
    for (long long left_ms = run->wait_s * 1000; access(chain, R_OK) != 0;) {
        if (left_ms <= 0 || errno != ENOENT) {
            fprintf(stderr, "attestctl: agent %s has no certificate here: %s: %s\n", run->name,
                    chain, strerror(errno));
            return false;
        }
        nanosleep(&step, NULL);
        left_ms -= WAIT_STEP_MS;
    }
    return true;
}

/* pkcs11-provider where OpenSSL looks for providers; else programs have the engine. */
static bool have_provider(void)
{
    char path[1024];
    const char *dir = OPENSSL_info(OPENSSL_INFO_MODULES_DIR);
    int len = snprintf(path, sizeof path, "%s/pkcs11.so", dir ? dir : "");
    return dir && len > 0 && (size_t)len < sizeof path && access(path, R_OK) == 0;
}

static void set_environment(const struct run *run, const char *chain)
{
    char socket[1100];
    setenv("ATTESTD_KEY_URI", "pkcs11:token=attestd;object=agent;type=private", 1);
    setenv("ATTESTD_CERT_URI", "pkcs11:token=attestd;object=agent;type=cert", 1);
    setenv("ATTESTD_CHAIN_FILE", chain, 1);
    put_env("ATTESTD_BUNDLE_FILE", "", run->state_dir, "/host/bundle.pem");
    put_env("P11_KIT_SERVER_ADDRESS", "unix:path=", run->run_dir, "/public/pkcs11.sock");
    setenv("PKCS11_MODULE_PATH", MODULE, 1);
    setenv("PKCS11_PROVIDER_MODULE", MODULE, 1);
    const char *cnf = have_provider() ? PROVIDER_CNF : ENGINE_CNF;
    if (access(cnf, R_OK) == 0) {
        setenv("OPENSSL_CONF", cnf, 0);
    }
    if (access(KEY_FILE, R_OK) == 0) {
        setenv("ATTESTD_KEY_FILE", KEY_FILE, 1);
    }
    snprintf(socket, sizeof socket, "%s/public/api.sock", run->run_dir);
    if (access(socket, F_OK) == 0) {
        put_env("SPIFFE_ENDPOINT_SOCKET", "unix://", socket, "");
    }
}

enum ctl_exit ctl_run_run(const struct ctl_ctx *ctx, const struct ctl_args *args,
                          const json_t *result)
{
    (void)ctx, (void)result;
    struct run run;
    char chain[1200];
    if (!take_args(args, &run)) {
        return CTL_USAGE;
    }
    snprintf(chain, sizeof chain, "%s/host/agents/%s/chain.pem", run.state_dir, run.name);
    if (!await(&run, chain)) {
        return CTL_FAILED;
    }
    if (access(MODULE, R_OK) != 0) {
        fprintf(stderr, "attestctl: %s: %s (Debian package p11-kit-modules)\n", MODULE,
                strerror(errno));
        return CTL_FAILED;
    }
    set_environment(&run, chain);
    fflush(stdout);
    execvp(args->rest[0], args->rest);
    int failed = errno;
    fprintf(stderr, "attestctl: %s: %s\n", args->rest[0], strerror(failed));
    exit(failed == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_STARTED);
}
