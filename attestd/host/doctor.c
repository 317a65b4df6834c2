/* What this host lacks, and how to mend it. Facts that attestd can see from inside its sandbox. */
#include "attestd/host/internal.h"
#include "attestd/base/io.h"
#include "attestd/workload/wire.h"

#include <errno.h>
#include <grp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <unistd.h>

struct doctor {
    json_t *checks;
};

void host_doctor_add(json_t *checks, const char *name, bool ok, bool optional, const char *mend,
                     const char *fmt, ...)
{
    char detail[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(detail, sizeof(detail), fmt, args);
    va_end(args);
    json_t *json = json_pack("{s:s, s:b, s:s}", "name", name, "ok", ok, "detail", detail);
    if (optional) {
        json_object_set_new(json, "optional", json_true());
    }
    if (!ok && mend) {
        json_object_set_new(json, "mend", json_string(mend));
    }
    json_array_append_new(checks, json);
}
#define check(d, ...) host_doctor_add((d)->checks, __VA_ARGS__)

const json_t *host_hsm_info(const json_t *keyd_info)
{
    const json_t *stores = json_object_get(keyd_info, "stores");
    for (size_t i = 0; i < json_array_size(stores); i++) {
        const json_t *store = json_array_get(stores, i);
        const char *name = json_string_value(json_object_get(store, "name"));
        if (name && strcmp(name, "hsm") == 0) {
            return json_is_true(json_object_get(store, "configured")) ||
                           json_array_size(json_object_get(store, "elsewhere"))
                       ? store
                       : NULL;
        }
    }
    return NULL;
}

static const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

static const char *mend_pin(const char *pin)
{
    return strcmp(pin, "countLow") == 0
               ? "somebody gave the token a wrong PIN: find out who before its tries are used up"
           : strcmp(pin, "finalTry") == 0
               ? "one try is left, which attestd does not use: log in once by hand with the right "
                 "PIN, or have the security officer set it"
           : strcmp(pin, "locked") == 0 ? "have the token's security officer set the PIN"
           : strcmp(pin, "notSet") == 0 ? "set the token's user PIN"
                                        : "see the check before";
}

/* The default's checks have no name after them: a host with one module has just these. */
static void check_module(struct doctor *d, const json_t *hsm, bool is_default)
{
    const char *state = text_of(hsm, "state"), *word = text_of(hsm, "word");
    const char *reason = text_of(hsm, "reason"), *pin = text_of(hsm, "pin");
    const char *at = is_default ? "" : ":", *name = is_default ? "" : text_of(hsm, "name");
    const char *waste_why = text_of(hsm, "wasteReason");
    json_int_t waste = json_integer_value(json_object_get(hsm, "waste"));
    char check_name[64];
    snprintf(check_name, sizeof check_name, "hsm%s%s", at, name);
    check(d, check_name, strcmp(state, "ready") == 0, false,
          "attestd-hsmd's log, and the table of words in OPERATIONS.md, An HSM", "%s: %s%s%s%s%s",
          text_of(hsm, "name"), state, word[0] ? " " : "", word, reason[0] ? ": " : "", reason);
    snprintf(check_name, sizeof check_name, "hsmPin%s%s", at, name);
    check(d, check_name, strcmp(pin, "ok") == 0, false, mend_pin(pin),
          "the token says of its user PIN: %s", pin);
    snprintf(check_name, sizeof check_name, "hsmWaste%s%s", at, name);
    check(d, check_name, waste == 0, true, "they go when the token is there and can be written",
          "%lld keys that are not used any more wait to be destroyed%s%s", (long long)waste,
          waste_why[0] ? ": " : "", waste_why);
}

static void check_hsm(struct doctor *d, const json_t *info)
{
    const json_t *hsm = host_hsm_info(info);
    const json_t *modules = json_object_get(hsm, "modules");
    for (size_t i = 0; i < json_array_size(modules); i++) {
        check_module(d, json_array_get(modules, i), i == 0);
    }
    const json_t *elsewhere = json_object_get(hsm, "elsewhere");
    for (size_t i = 0; i < json_array_size(elsewhere); i++) {
        const json_t *one = json_array_get(elsewhere, i);
        char check_name[64];
        snprintf(check_name, sizeof check_name, "hsmModule:%s", text_of(one, "name"));
        check(d, check_name, false, false,
              "name the module in attestd.yaml again, as it was; without it its keys do not sign",
              "%lld keys are in HSM module %s, which this host's configuration does not name",
              (long long)json_integer_value(json_object_get(one, "keys")), text_of(one, "name"));
    }
}

static void check_tpm(struct doctor *d, struct host *host)
{
    struct att_err err = {0};
    att_autojson *info = NULL;
    if (proc_keyd_info(host->keyd, &info, &err) != ATT_OK) {
        check(d, "keyd", false, false, "start attestd-keyd with the same configuration", "%s",
              err.msg);
        return;
    }
    check(d, "keyd", true, false, NULL, "answers on %s", host->paths.keyd);
    check_hsm(d, info);
    host_doctor_tpm(d->checks, info);
}

static void add_other(char *ret, size_t room, const char *path, const char *who, long id)
{
    size_t used = strlen(ret);
    if (used) {
        used += (size_t)snprintf(ret + used, room - used, ", ");
    }
    if (used < room && id >= 0) {
        snprintf(ret + used, room - used, "%s %ld may open %s", who, id, path);
    } else if (used < room) {
        snprintf(ret + used, room - used, "%s may open %s", who, path);
    }
}

static void others_of(const char *path, uid_t keyd_uid, char *ret, size_t room)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        return;
    }
    if (st.st_uid != 0 && st.st_uid != keyd_uid && (st.st_mode & 0600)) {
        add_other(ret, room, path, "uid", (long)st.st_uid);
    }
    if (st.st_gid != 0 && (st.st_mode & 0060)) {
        add_other(ret, room, path, "group", (long)st.st_gid);
    }
    if (st.st_mode & 0006) {
        add_other(ret, room, path, "everybody", -1);
    }
}

void host_device_others(const char *path, uid_t keyd_uid, char *ret, size_t room)
{
    ret[0] = '\0';
    others_of(path, keyd_uid, ret, room);
    /* /dev/tpmrm0 and /dev/tpm0 are two doors to one TPM. */
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    char other[200];
    bool managed = strncmp(name, "tpmrm", 5) == 0;
    if (strncmp(name, "tpm", 3) != 0) {
        return;
    }
    int len = snprintf(other, sizeof(other), "%.*s%s%s", (int)(name - path), path,
                       managed ? "tpm" : "tpmrm", name + (managed ? 5 : 3));
    if (len > 0 && (size_t)len < sizeof(other)) {
        others_of(other, keyd_uid, ret, room);
    }
}

/* A process that may use the device could recreate the AK. */
static void check_device(struct doctor *d, struct host *host)
{
    const char *tcti;
    {
        HOST_LOCKED(host);
        tcti = host->conf->tpm->tcti;
    }
    if (strncmp(tcti, "device:", 7) != 0) {
        check(d, "tpmDevice", true, true, NULL, "not a device: %s", tcti);
        return;
    }
    struct stat st;
    if (stat(tcti + 7, &st) != 0) {
        check(d, "tpmDevice", false, false, "is there a TPM, and is its driver loaded?", "%s: %s",
              tcti + 7, strerror(errno));
        return;
    }
    char others[200];
    host_device_others(tcti + 7, host->keyd_uid, others, sizeof(others));
    check(d, "tpmDevice", others[0] == '\0', false,
          "give it to keyd's user alone: the udev rule 70-attestd.rules, then `udevadm trigger -s "
          "tpm -s tpmrm`",
          "%s%s", others[0] ? others : "only keyd's user and root may open ",
          others[0] ? "" : tcti + 7);
}

static void check_clock(struct doctor *d, struct host *host)
{
    /* The kernel's own word needs a system call that the sandbox may refuse. */
    struct timex tx = {0};
    int state = adjtimex(&tx);
    struct stat st;
    bool synced =
        state >= 0 ? state != TIME_ERROR : stat("/run/systemd/timesync/synchronized", &st) == 0;
    check(d, "clockSync", synced, true, "run a time service (systemd-timesyncd, chrony)", "%s",
          synced       ? "synchronised"
          : state >= 0 ? "not synchronised"
                       : "no sign of a time service");
    HOST_LOCKED(host);
    bool steady = host->clock_jump_at == 0 || att_now_utc_s() - host->clock_jump_at > 3600;
    check(d, "clockSteady", steady, true, "find out who sets the clock", "last jump: %lld ms",
          (long long)host->clock_jump_ms);
}

static void check_issuer(struct doctor *d, struct host *host)
{
    struct host_issuer issuer = {0};
    struct att_err err = {0};
    if (host_issuer_get(host, &issuer, &err) != ATT_OK) {
        check(d, "issuer", false, false, "set issuer.url and ca_sha256, or give a ticket", "%s",
              err.msg);
        return;
    }
    HOST_LOCKED(host);
    int64_t age = att_now_utc_s() - host->last_contact_at;
    bool acme = host->conf->acme != NULL;
    int64_t most = acme ? 3 * HOST_ACME_LOOK_S : 3 * HOST_VIEW_WAIT_S;
    bool fresh = host->last_contact_at != 0 && age < most;
    check(d, "issuer", fresh, false, "is it running, and does the network lead there?",
          "%s, last answer %lld s ago%s%s", issuer.url,
          (long long)(host->last_contact_at ? age : -1), host->last_error.at ? ": " : "",
          host->last_error.at ? host->last_error.message : "");
    check(d, "enrolled", host->phase == HOST_ENROLLED, false,
          host->phase == HOST_PENDING ? "an operator approves it: attestctl host approve"
                                      : "see lastError in `attestctl status`",
          "%s", host_phase_name(host->phase));
    if (acme) {
        host_acme_doctor(d->checks);
    }
    bool pq = strstr(host->tls_group, "MLKEM") != NULL;
    check(d, "postQuantumTls", pq, true, "OpenSSL 3.5 or later at both ends", "group %s",
          host->tls_group[0] ? host->tls_group : "not known yet");
}

/* Can whod tell us, a process of another user, who we are? Only what calls us locally needs it. */
static void check_whod(struct doctor *d, struct host *host)
{
    att_autofd self = (int)syscall(SYS_pidfd_open, getpid(), 0);
    struct workload_caller *caller = calloc(1, sizeof(*caller));
    struct att_err err = {0};
    enum att_rc rc =
        caller ? workload_wire_who(host->whod, self, getpid(), 0, false, NULL, 0, caller, &err)
               : att_fail(&err, ATT_E_NOMEM, "no memory");
    check(d, "whod", rc == ATT_OK, true,
          "start attestd-whod with the same configuration, its two capabilities and --client; "
          "--whod-user of attestd names its user",
          "%s%s", rc == ATT_OK ? "answers on " : "", rc == ATT_OK ? host->paths.whod : err.msg);
    free(caller);
}

static void check_log(struct doctor *d, const char *name, const char *path, bool optional)
{
    att_autobuf bytes = ATT_BUF_INIT(EVIDENCE_LOG_MAX);
    struct att_err err = {0};
    enum att_rc rc = att_io_read_file(path, EVIDENCE_LOG_MAX, &bytes, &err);
    if (rc == ATT_OK) {
        check(d, name, bytes.len > 0, optional, "an empty log proves nothing", "%s, %zu bytes",
              path, bytes.len);
        return;
    }
    check(
        d, name, false, optional,
        "mount securityfs, or name the file in logs of the configuration; in a container mount the "
        "host's /sys/kernel/security there, read-only. A virtual machine has it with UEFI firmware "
        "and a TPM only",
        "%s", err.msg);
}

static void check_logs(struct doctor *d, struct host *host)
{
    const struct conf_attestd_logs *logs;
    {
        HOST_LOCKED(host);
        logs = host->conf->logs; /* freed only at the end */
    }
    check_log(d, "firmwareLog", logs->firmware, false);
    check_log(d, "systemdLog", logs->systemd, true);
    check_log(d, "imaLog", logs->ima, true);
}

enum att_rc host_doctor(struct host *host, json_t **ret_result, struct att_err *err)
{
    struct doctor d = {.checks = json_array()};
    if (!d.checks) {
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    check_tpm(&d, host);
    check_device(&d, host);
    check_clock(&d, host);
    check_issuer(&d, host);
    check_whod(&d, host);
    check_logs(&d, host);
    *ret_result = json_pack("{s:o}", "checks", d.checks);
    return ATT_OK;
}
