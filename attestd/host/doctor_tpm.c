/* What keyd says of its TPM, as lines of the doctor: pure, from INFO's JSON to checks. */
#include "attestd/host/internal.h"

#include <stdio.h>
#include <string.h>

static const char *text_of(const json_t *json, const char *name)
{
    const char *text = json_string_value(json_object_get(json, name));
    return text ? text : "";
}

static long long number_of(const json_t *json, const char *name)
{
    return (long long)json_integer_value(json_object_get(json, name));
}

/* Why there is no TPM to work with, and what to do about it. */
static const char *mend_state(const char *state, const char *cause)
{
    static const struct {
        const char *word, *mend;
    } by_cause[] = {
        {"tpmBusy",
         "another program has the device open (as root: fuser -v /dev/tpm0): stop it, or set "
         "tpm.tcti to device:/dev/tpmrm0, which the kernel shares out"},
        {"tpmDenied", "give the device to keyd's user: the udev rule 70-attestd.rules, then "
                      "`udevadm trigger -c change -s tpm -s tpmrm`"},
        {"tpmMissing",
         "switch the TPM (fTPM, PTT, vTPM) on in the firmware or the hypervisor, load "
         "its driver; into a container pass the device. A host without any TPM is not served, "
         "with an HSM neither"},
        {"foreignTpm", "put the right TPM back, or remove the state folder and enrol with a new "
                       "ticket"},
        {"ekCertMismatch",
         "the certificate in NV is of another EK: update the TPM's firmware or ask "
         "its maker. Do not remove it"},
        {"hostSecretMissing", "restore state_dir/keyd, or remove all of it and enrol again"},
    };
    for (size_t i = 0; i < sizeof(by_cause) / sizeof(by_cause[0]); i++) {
        if (strcmp(cause, by_cause[i].word) == 0) {
            return by_cause[i].mend;
        }
    }
    if (strcmp(state, "sealed") == 0) {
        return "this boot is not one that the keys are sealed to, or no valid policy says so: "
               "`attestctl status`, and OPERATIONS.md, Sealing";
    }
    if (strcmp(state, "starting") == 0 || strcmp(state, "tpmSilent") == 0) {
        return "the TPM takes no command: another program may be using it (as root: fuser -v "
               "/dev/tpm0 /dev/tpmrm0); if none is, power the host off and on";
    }
    return "see tpm.tcti in the configuration and keyd's log";
}

static void check_state(json_t *checks, const json_t *info)
{
    const char *state = text_of(info, "state"), *why = text_of(info, "reason");
    host_doctor_add(checks, "tpm", strcmp(state, "ready") == 0, false,
                    mend_state(state, text_of(info, "cause")), "%s%s%s", state, why[0] ? ": " : "",
                    why);
}

/* Any EK that is made by a TCG template will do: this only says which it is. */
static void check_ek(json_t *checks, const json_t *tpm)
{
    const json_t *ek = json_object_get(tpm, "ek");
    const char *kind = text_of(ek, "kind"), *where = text_of(ek, "handle");
    const char *index = text_of(ek, "certificate");
    bool known = kind[0] && strcmp(kind, "none") != 0;
    if (known) {
        host_doctor_add(checks, "ekKey", true, false, NULL, "%s, %s, %s%s", kind,
                        json_is_true(json_object_get(ek, "highRange")) ? "high-range template"
                                                                       : "low-range template",
                        where[0] ? "at " : "made from its template when it is used", where);
    } else {
        host_doctor_add(checks, "ekKey", false, false,
                        "attestd uses P-256, P-384, RSA-2048 and RSA-3072 by the TCG's templates; "
                        "see keyd's log",
                        "no endorsement key that can be used");
    }
    host_doctor_add(
        checks, "ekCertificate", json_is_true(json_object_get(tpm, "ekCertificate")), false,
        "at the issuer: `enrolment.ek: inventory`, and `attestctl host import` with the "
        "EK id that `attestctl status` shows; or the maker's tool writes it to NV",
        "an EK certificate in the TPM's NV%s%s", index[0] ? ": " : "", index);
}

/* The quote needs a bank that still stands; what firmware extends into SHA-1 as well proves
 * nothing and costs time. */
static void check_banks(json_t *checks, const json_t *tpm)
{
    const json_t *banks = json_object_get(tpm, "banks");
    char list[120] = "";
    bool strong = false, sha1 = false;
    for (size_t i = 0; i < json_array_size(banks); i++) {
        const char *bank = json_string_value(json_array_get(banks, i));
        size_t used = strlen(list); /* what has no room any more is cut off */
        bank = bank ? bank : "";
        sha1 = sha1 || strcmp(bank, "sha1") == 0;
        strong = strong || strcmp(bank, "sha256") == 0 || strcmp(bank, "sha384") == 0 ||
                 strcmp(bank, "sha512") == 0;
        snprintf(list + used, sizeof(list) - used, "%s%s", used ? ", " : "", bank);
    }
    host_doctor_add(checks, "pcrBank", strong, false,
                    "switch the SHA-256 bank on in the firmware's setup, or as root "
                    "`tpm2_pcrallocate sha1:none+sha256:all`, then reboot",
                    "banks in use: %s", list[0] ? list : "none");
    host_doctor_add(
        checks, "sha1Bank", !sha1, true,
        "no quote of attestd's covers it: it may be switched off in the firmware's setup", "%s",
        sha1 ? "SHA-1 is in use, too" : "not in use");
}

static void check_lockout(json_t *checks, const json_t *tpm)
{
    char mend[200];
    snprintf(mend, sizeof(mend),
             "wait: the TPM forgets one failure each %lld s while it is powered; do not reset the "
             "lockout. Who guesses? attestd's own keys never count",
             number_of(tpm, "lockoutIntervalS"));
    host_doctor_add(checks, "tpmLockout", !json_is_true(json_object_get(tpm, "inLockout")), false,
                    mend, "dictionary-attack counter %lld of %lld",
                    number_of(tpm, "lockoutCounter"), number_of(tpm, "lockoutMax"));
}

void host_doctor_tpm(json_t *checks, const json_t *info)
{
    check_state(checks, info);
    const json_t *tpm = json_object_get(info, "tpm");
    if (json_is_object(tpm)) {
        check_ek(checks, tpm);
        check_banks(checks, tpm);
        check_lockout(checks, tpm);
    }
    size_t bad = json_array_size(json_object_get(info, "bad"));
    host_doctor_add(checks, "keydState", bad == 0, false,
                    "look at the .bad files in state_dir/keyd", "%zu state files were set aside",
                    bad);
}
