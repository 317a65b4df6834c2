/* What attestd answers tokend and spiffed (run_dir/workload.sock): which agent is this caller, and
 * what does it have? attestd asks whod, compares with the entries of the issuer's view, and writes
 * each decision to the host's log. */
#ifndef ATTESTD_PROC_WORKLOAD_PROTO_H
#define ATTESTD_PROC_WORKLOAD_PROTO_H

#include "attestd/proc/ipc.h"
#include "attestd/proc/keyd_token.h"

#define PROC_WORKLOAD_AGAIN        "pkcs11-again"
#define PROC_WORKLOAD_AGAIN_SPIFFE "spiffe-again"
#define PROC_SPIFFE_ID_MAX         512
#define PROC_CHAIN_MAX             8
#define PROC_BUNDLE_MAX            32

enum proc_workload_op {
    PROC_WORKLOAD_IDENTIFY = 1,
    PROC_WORKLOAD_VIEW = 2,
    PROC_WORKLOAD_REPORT = 3,
    PROC_WORKLOAD_CHANGES = 4,
    PROC_WORKLOAD_VIEW_HSM = 5,
    PROC_WORKLOAD_WATCH = 6,
    PROC_WORKLOAD_BUNDLE = 7,
    PROC_WORKLOAD_CRL = 8,
    PROC_WORKLOAD_TOKEN = 9,
    PROC_WORKLOAD_JWT_BUNDLE = 10,
    PROC_WORKLOAD_EXPORT = 11,
    PROC_WORKLOAD_TOKEN_KEPT = 12,
    PROC_WORKLOAD_FEDERATION = 13,
    PROC_WORKLOAD_TOKEN_FRESH = 14,
};

/* IDENTIFY: the caller's pidfd; pid, acceptedMs (as in WHO), service ("pkcs11", "spiffe";
 * PROC_WORKLOAD_AGAIN, …_SPIFFE: one that was identified before, since entries changed) → agent,
 * identity (WHO's, for SAME). ATT_E_DENIED: notAssigned (no entry fits), ambiguous (more than one
 * does; the message names them), pidReused. ATT_E_UNREACHABLE: whod is away. ATT_E_LIMIT
 * rateLimited. */
enum {
    PROC_WORKLOAD_IDENTIFY_REQ_PID,
    PROC_WORKLOAD_IDENTIFY_REQ_ACCEPTED_MS,
    PROC_WORKLOAD_IDENTIFY_REQ_SERVICE,
};
enum { PROC_WORKLOAD_IDENTIFY_REP_AGENT, PROC_WORKLOAD_IDENTIFY_REP_IDENTITY };

/* VIEW: agent → what it has now: spiffeId (empty: its certificate names none), keyId (of the key in
 * force), notAfter (UTC seconds), chain (DER, leaf first), bundle (DER, workload roots), generation
 * (another number when anything of it changed), keyStore ("tpm", "hsm", "memory", "exportable", as
 * the entry says: tokend keeps those apart whose keys may be long in coming, spiffed asks for a key
 * only where it is "exportable"). ATT_E_NOTFOUND noCertificate: nothing is in force (not issued
 * yet, expired, removed). VIEW_HSM: the same, and hsm (the HSM module that the entry names; empty:
 * the default, or none): tokend keeps modules apart, too. An operation of its own, so that a tokend
 * which outlives an upgrade keeps working. */
enum { PROC_WORKLOAD_VIEW_REQ_AGENT };
enum {
    PROC_WORKLOAD_VIEW_REP_SPIFFE_ID,
    PROC_WORKLOAD_VIEW_REP_KEY_ID,
    PROC_WORKLOAD_VIEW_REP_NOT_AFTER,
    PROC_WORKLOAD_VIEW_REP_CHAIN,
    PROC_WORKLOAD_VIEW_REP_BUNDLE,
    PROC_WORKLOAD_VIEW_REP_GENERATION,
    PROC_WORKLOAD_VIEW_REP_KEY_STORE,
    PROC_WORKLOAD_VIEW_REP_HSM,
};

#define PROC_REPORT_AGENTS_MAX 256
#define PROC_REPORT_ITEM_MAX   (8 + PROC_AGENT_MAX)
#define PROC_REPORT_PERIOD_MS  10000 /* at the latest; when something changed, after a second */

/* REPORT: what the token service has, for status. connections: those of agents now; strangers:
 * those of nobody's agent now; the others count since startedAt (UTC seconds): accepted
 * connections, refused ones (over a limit, not identified, ended for what was sent), signatures,
 * refusals (of signatures), died (token processes). agents: of each agent with connections be32
 * connections, be32 those of them whose caller became another program, name; leftOut: agents beyond
 * the list. */
enum {
    PROC_WORKLOAD_REPORT_REQ_VERSION,
    PROC_WORKLOAD_REPORT_REQ_STARTED_AT,
    PROC_WORKLOAD_REPORT_REQ_CONNECTIONS,
    PROC_WORKLOAD_REPORT_REQ_STRANGERS,
    PROC_WORKLOAD_REPORT_REQ_ACCEPTED,
    PROC_WORKLOAD_REPORT_REQ_REFUSED,
    PROC_WORKLOAD_REPORT_REQ_SIGNATURES,
    PROC_WORKLOAD_REPORT_REQ_REFUSALS,
    PROC_WORKLOAD_REPORT_REQ_DIED,
    PROC_WORKLOAD_REPORT_REQ_AGENTS,
    PROC_WORKLOAD_REPORT_REQ_LEFT_OUT,
};

#define PROC_CHANGES_WAIT_MS 10000

/* CHANGES: known → entries, a number that stands for the selectors in force (the same ones have the
 * same, also after a restart). Answered when it is another than known, else after
 * PROC_CHANGES_WAIT_MS; 0: the issuer has not said any yet. Who was granted an agent by others is
 * to be identified again. */
enum { PROC_WORKLOAD_CHANGES_REQ_KNOWN };
enum { PROC_WORKLOAD_CHANGES_REP_ENTRIES };

#define PROC_WATCH_STEP_MS 250 /* how late a change is seen at most */

/* WATCH: entries, standing → the same two, now. entries: CHANGES's number. standing: another number
 * whenever a certificate, a key, the bundle or the revocation list in force is another (it says
 * nothing else, and is another after a restart). Answered when one of them is another than what was
 * sent, else after PROC_CHANGES_WAIT_MS. */
enum { PROC_WORKLOAD_WATCH_REQ_ENTRIES, PROC_WORKLOAD_WATCH_REQ_STANDING };
enum { PROC_WORKLOAD_WATCH_REP_ENTRIES, PROC_WORKLOAD_WATCH_REP_STANDING };

/* BUNDLE: () → trustDomain, bundle (DER, workload roots), crlNumber and crlSize (bytes of DER; 0:
 * this host has no revocation list). ATT_E_NOTFOUND noBundle: the issuer has not said any yet. */
enum {
    PROC_WORKLOAD_BUNDLE_REP_TRUST_DOMAIN,
    PROC_WORKLOAD_BUNDLE_REP_BUNDLE,
    PROC_WORKLOAD_BUNDLE_REP_CRL_NUMBER,
    PROC_WORKLOAD_BUNDLE_REP_CRL_SIZE,
};
#define PROC_TRUST_DOMAIN_MAX 255

/* CRL: number (of BUNDLE), offset → bytes of the list's DER from there, at most PROC_CRL_PART_MAX.
 * ATT_E_RETRY crlOther: another list is in force; ATT_E_INVAL: an offset behind its end. */
#define PROC_CRL_PART_MAX ((uint32_t)192 << 10)
enum { PROC_WORKLOAD_CRL_REQ_NUMBER, PROC_WORKLOAD_CRL_REQ_OFFSET };
enum { PROC_WORKLOAD_CRL_REP_BYTES };

/* TOKEN: agent, audience (1 to PROC_AUDIENCES_MAX texts, each with a newline behind it) → spiffeId,
 * token (a JWT-SVID, fresh or from memory), expiresAt (UTC seconds). Errors: attestd/host/tokens.h.
 * TOKEN_KEPT: the same, without waiting for the issuer: from memory, or the refusal that is known;
 * ATT_E_NOTFOUND tokenNotKept: TOKEN would ask the issuer now.
 * TOKEN_FRESH: not one that is kept, unless the issuer cannot be asked.
 * JWT_BUNDLE: () → trustDomain, issuer (iss of its tokens), keys (JSON text of a JWK Set).
 * ATT_E_NOTFOUND tokensOff. */
#define PROC_TOKEN_MAX      16384
#define PROC_JWT_KEYS_MAX   65536
#define PROC_JWT_ISSUER_MAX 512
#define PROC_AUDIENCES_TEXT (PROC_AUDIENCES_MAX * (PROC_AUDIENCE_MAX + 1))
enum { PROC_WORKLOAD_TOKEN_REQ_AGENT, PROC_WORKLOAD_TOKEN_REQ_AUDIENCE };
enum {
    PROC_WORKLOAD_TOKEN_REP_SPIFFE_ID,
    PROC_WORKLOAD_TOKEN_REP_TOKEN,
    PROC_WORKLOAD_TOKEN_REP_EXPIRES_AT,
};
enum {
    PROC_WORKLOAD_JWT_BUNDLE_REP_TRUST_DOMAIN,
    PROC_WORKLOAD_JWT_BUNDLE_REP_ISSUER,
    PROC_WORKLOAD_JWT_BUNDLE_REP_KEYS,
};

/* EXPORT: agent, keyId, pid, uid (of the caller that is to get the key) → (). May this key be given
 * to its agent now? With yes a record "exported" stands in the host's log; without a record there
 * is no yes. Answered to spiffed only. ATT_E_DENIED: keyNotExportable (the entry does not say so),
 * exportUser. ATT_E_RETRY keyChanging: the key or certificate in force is another, or not such a
 * one yet. ATT_E_NOTFOUND noCertificate. ATT_E_UNREACHABLE hostLog: the log cannot be written. */
enum {
    PROC_WORKLOAD_EXPORT_REQ_AGENT,
    PROC_WORKLOAD_EXPORT_REQ_KEY_ID,
    PROC_WORKLOAD_EXPORT_REQ_PID,
    PROC_WORKLOAD_EXPORT_REQ_UID,
};

/* FEDERATION: index → of the trust domain with this number among those whose bundles agents of this
 * host are given: trustDomain, roots (DER), keys (JSON text of a JWK Set), agents (names, a newline
 * behind each). number: another one when anything of any of them is another; 0: nothing is known
 * yet. count: how many there are; where it is 0, index 0 is answered with nothing, and any other is
 * ATT_E_INVAL. Who reads all of them and sees two numbers begins again. */
#define PROC_FEDERATED_MAX        16
#define PROC_FEDERATED_ROOTS_MAX  32
#define PROC_FEDERATED_DER_MAX    ((size_t)64 << 10) /* bytes of one's roots */
#define PROC_FEDERATED_AGENTS_MAX ((size_t)1024 * (PROC_AGENT_MAX + 1))
enum { PROC_WORKLOAD_FEDERATION_REQ_INDEX };
enum {
    PROC_WORKLOAD_FEDERATION_REP_NUMBER,
    PROC_WORKLOAD_FEDERATION_REP_COUNT,
    PROC_WORKLOAD_FEDERATION_REP_TRUST_DOMAIN,
    PROC_WORKLOAD_FEDERATION_REP_ROOTS,
    PROC_WORKLOAD_FEDERATION_REP_KEYS,
    PROC_WORKLOAD_FEDERATION_REP_AGENTS,
};

extern const struct proc_op proc_workload_table[];

#endif
