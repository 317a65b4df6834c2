/* What the files of spiffed share. One thread, but for those of ask.h. A connection is a peer (a
 * process), a call a job of its peer. */
#ifndef ATTESTD_SPIFFE_SERVICE_H
#define ATTESTD_SPIFFE_SERVICE_H

#include "attestd/proc/links.h"
#include "attestd/proc/sign_proto.h"
#include "attestd/proc/who_proto.h"
#include "attestd/proc/workload_proto.h"
#include "attestd/spiffe/ask.h"
#include "attestd/spiffe/grpc.h"
#include "attestd/spiffe/rate.h"
#include "attestd/spiffe/sds_request.h"
#include "attestd/spiffe/sign_request.h"
#include "attestd/spiffe/spiffed.h"
#include "provision/oidc/jwks.h"

#include <event2/event.h>
#include <protobuf-c/protobuf-c.h>

#define UIDS_MAX          1024
#define UID_RATE          50 /* new connections of a user in a second, on average */
#define UID_BURST         200
#define UID_CALLS_MAX     1024 /* of one user, at one time */
#define UID_EXPORTS_RATE  50   /* private keys that a user's agents are given in a second, … */
#define UID_EXPORTS_BURST 100
#define CALLS_MAX         8192                /* of all */
#define UID_WAITS_MAX     ((int64_t)32 << 20) /* bytes of its answers that wait to be read */
#define WAITS_MAX         ((int64_t)128 << 20)
#define PROVED_MS         1000 /* for so long a caller is taken to be who it was */
#define RETRY_MS          500
#define STEP_MS           250
#define TOLD_MS           1000
#define HELLO_MS          5000

enum job_kind {
    JOB_X509_SVID,
    JOB_X509_BUNDLES,
    JOB_JWT_SVID,
    JOB_JWT_BUNDLES,
    JOB_JWT_VALIDATE,
    JOB_SIGN,
    JOB_CHAIN,
    JOB_WATCH,
    JOB_SDS_STREAM,
    JOB_SDS_FETCH,
    JOB_HEALTH,
    JOB_HEALTH_WATCH,
    JOB_REFLECTION
};

/* A user's share. */
struct share {
    uid_t uid;
    bool used;
    unsigned connections, calls, nobodies;
    struct rate connects, exports;
    int64_t told_ms; /* the last line about it; 0: none */
    unsigned left_out;
    int64_t waits; /* bytes of answers that its streams have to themselves and have not read */
};

struct agent {
    struct agent *next;
    struct spiffed *spiffed;
    char name[PROC_AGENT_MAX + 1];
    unsigned peers;
    /* what attestd last said that it has */
    struct ask_call *asking;
    uint64_t asked, known;    /* standing, when it was asked, and of the answer */
    int64_t retry_ms;         /* attestd could not be asked: not before then again */
    bool fetched;             /* it has been answered, also with "nothing" */
    struct grpc_bytes *chain; /* an encoded ChainResponse; NULL: no certificate in force */
    uint64_t generation;      /* 0: none */
    int64_t not_after;
    char spiffe_id[PROC_SPIFFE_ID_MAX + 1];
    char key_id[PROC_KEY_ID_LEN + 1];
    bool in_hsm, exportable;         /* by the entry: its key may be asked for */
    struct att_buf svid;             /* its certificates, DER, leaf first, one behind the other */
    char hsm[PROC_HSM_NAME_MAX + 1]; /* its module; empty: the default */
};

struct peer {
    struct peer *next, **at;
    struct spiffed *spiffed;
    struct grpc_conn *conn;
    struct share *share;
    struct job *jobs;
    int64_t idle_ms; /* since when it has no job */
    bool nobody;     /* counted as one that is no agent's, or not known yet */
    /* who */
    pid_t pid;
    uid_t uid;
    int pidfd;
    struct event *ended;
    int64_t accepted_ms; /* 0: the pidfd is the socket's own */
    bool challenged;     /* it has not shown yet that it is the writer; nothing is served */
    /* as whom it was granted what */
    struct ask_call *asking;
    struct agent *agent; /* NULL: nobody's, or not asked yet */
    bool identified;     /* identity is known */
    uint8_t identity[32];
    uint64_t asked, entries; /* entries in force when it was asked, and by which it was granted */
    int64_t asked_ms, proved_ms, retry_ms; /* proved_ms: when was asked what was then said */
    bool prove_again;                      /* the entries changed */
    bool prove_now;                        /* a job that is due asks for it */
    int64_t denied_ms; /* when it was told that it is nobody, and for good; 0: it was not */
    char denied[96];
};

struct job {
    struct job *next, **at;
    struct peer *peer;
    struct grpc_call *call;
    enum job_kind kind;
    bool due;            /* something is to be done when its peer is proved */
    bool sent;           /* a message */
    uint64_t generation; /* of the last message */
    /* SIGN, X509_SVID, SDS_… */
    struct ask_call *asking;
    struct sign_request sign;
    char agent[PROC_AGENT_MAX + 1]; /* for whom keyd was asked; empty: not yet */
    uint64_t entries;               /* … and by which it was that agent */
    uint64_t bundle_generation;     /* X509_SVID: of the last message */
    /* X509_SVID, SDS_…: which key was asked for, not before when again, and what came: PKCS #8,
     * only until a message is made of it, and wiped then. */
    char key_id[PROC_KEY_ID_LEN + 1];
    int64_t retry_ms;
    int64_t need_ms; /* its caller is to be proved by what was asked after this; 0: not yet said */
    struct att_buf key;
    /* JWT_SVID: audiences, a newline behind each (sign.spiffe_id: whose). JWT_VALIDATE: the one
     * audience, and the token. Owned. */
    char *jwt_audience, *jwt;
    int64_t jwt_asked_ms;   /* when the issuer was to be asked; 0: not yet */
    bool jwt_made;          /* it was: attestd-fresh asks once */
    struct sds_stream *sds; /* SDS_…; owned */
    int64_t asked_ms;       /* REFLECTION: its last request */
};

/* The trust domain's roots and revocation list. */
struct bundle {
    struct ask_call *asking;
    uint64_t asked, known; /* standing */
    int64_t retry_ms;
    char trust_domain[PROC_TRUST_DOMAIN_MAX + 1];
    struct att_buf roots, crl, crl_coming; /* DER; roots one behind the other */
    uint64_t crl_number, crl_size;         /* of the list that attestd has */
    uint64_t crl_has;                      /* the number of crl */
    struct grpc_bytes *message;            /* an encoded X509BundlesResponse; NULL: none yet */
    uint64_t generation;
};

/* What an SDS stream was asked last, and answered. */
struct sds_stream {
    struct sds_request want;
    bool anew;        /* names are others than those that were answered */
    char version[17]; /* of the last response */
    uint64_t nonce;   /* … 0: there was none */
};

/* The bundle as SDS has it: PEM. */
struct sds_bundle {
    uint64_t generation; /* of the bundle that it is; 0: none */
    struct att_buf roots, crl;
};

/* The keys by which the trust domain's tokens are verified. */
struct jwt_bundle {
    struct ask_call *asking;
    uint64_t asked, known; /* standing */
    int64_t retry_ms;
    char trust_domain[PROC_TRUST_DOMAIN_MAX + 1];
    struct oidc_jwks *jwks;
    struct att_buf keys; /* JSON text of a JWK Set; empty: none yet, or … */
    bool off;            /* … the issuer mints no tokens, as off_why says */
    struct att_err off_why;
    uint64_t generation;
};

/* Another trust domain, as attestd says. */
struct federated {
    char trust_domain[PROC_TRUST_DOMAIN_MAX + 1];
    struct att_buf roots, pem; /* DER, one behind the other; the same in PEM; empty: it has none */
    struct att_buf keys;       /* JSON text of a JWK Set */
    struct oidc_jwks *jwks;    /* of these; NULL: none verifies here */
    struct att_buf agents;     /* who is given it: names, a newline behind each */
    uint64_t roots_number, keys_number;
};
struct federated_set {
    struct federated v[PROC_FEDERATED_MAX];
    size_t n;
};
struct federation {
    struct ask_call *asking;
    uint64_t asked, known; /* standing */
    int64_t retry_ms;
    bool there;                         /* attestd has been heard, also with "none" */
    struct federated_set *now, *coming; /* NULL: none */
    uint64_t number, coming_number;
};

/* By whose keys a token may be signed: the own trust domain's first. jwks NULL: nobody's. */
struct jwt_keys {
    struct {
        const char *trust_domain;
        const struct oidc_jwks *jwks;
    } of[1 + PROC_FEDERATED_MAX];
    size_t n;
};

struct hsm {
    char module[PROC_HSM_NAME_MAX + 1];
    struct ask *keyd; /* NULL: a free place */
};

struct spiffed {
    struct spiffed_opts opts;
    struct grpc_opts grpc;
    struct event *accepting, *step;
    struct ask *who, *again, *same, *views, *tokens, *watch, *keyd;
    struct hsm hsms[PROC_LINKS_HSMS_MAX]; /* in the order in which their first agent came */
    struct ask_call *watching;
    uint64_t entries, standing; /* 0: not known yet */
    int64_t watch_retry_ms, ticked_ms, deaf_told_ms;
    bool watch_fails;
    struct bundle bundle;
    struct sds_bundle sds;
    struct jwt_bundle jwt;
    struct federation federation;
    struct peer *peers;
    struct agent *agents;
    struct share shares[UIDS_MAX];
    unsigned connections, calls;
    int64_t waits;     /* as of a user's, of all */
    unsigned nobodies; /* connections that are nobody's agent, or not known yet */
    uint64_t accepted, refused, cut, signatures;
};

/* ---- peer.c: connections ---- */
void spiffed_accept(struct spiffed *spiffed);
void spiffed_peer_closed(void *peer);
void spiffed_peer_cut(void *peer, const char *why);
void spiffed_peer_answered(void *peer);
/* Those that are nobody's, or not known yet, have half of all places. */
void spiffed_peer_count(struct peer *peer, bool nobody);
/* Is it time for a line about this user? ret_left_out: how many were left out before it. */
bool spiffed_worth_a_line(struct share *share, unsigned *ret_left_out);

/* ---- proof.c: who a peer is ---- */
/* Ends whose time is over: nobody's, with nothing to do or told so. tick: a second has gone. */
void spiffed_peer_step(struct peer *peer, bool tick);
bool spiffed_peer_alive(const struct peer *peer);
/* It is known who it is, by the entries in force, and not for longer than PROVED_MS. */
bool spiffed_peer_proved(const struct peer *peer);
/* Serves its due jobs once it is known who it is. */
void spiffed_peer_pump(struct peer *peer);

/* ---- service.c: jobs ---- */
extern const struct grpc_method spiffed_methods[];
void spiffed_request(void *peer, struct grpc_call *call, const struct grpc_method *method,
                     struct att_slice message);
/* Calls of a user, from their first byte on. */
bool spiffed_begin(void *peer);
void spiffed_end_of_call(void *peer);
void spiffed_ended(void *peer, struct grpc_call *call);
void spiffed_job_serve(struct job *job); /* its peer is proved */
/* Is there room for one more answer of a stream's own (grpc_bytes.own)? Each may be of megabytes,
 * and a user has a thousand streams. False: the job stays due, and is served when others are read.
 */
bool spiffed_has_room(const struct job *job);
void spiffed_waits(void *peer, int64_t bytes);
void spiffed_finish(struct job *job, enum grpc_status status, const char *message);
/* The same, in the words of an error of another process. */
void spiffed_finish_err(struct job *job, enum att_rc rc, const struct att_err *err);

/* Does it say nothing about agents, so that everybody is answered? */
bool spiffed_is_public(const struct job *job);
/* May a user who has own of the taken, of all that there are, have one more? As many as he has stay
 * free beside: one user has half at most, and each further one half of the rest. A dozen users can
 * have all of 1024 between them. */
bool spiffed_leaves_room(int64_t own, int64_t taken, int64_t all);

/* ---- reflection.c ---- */
/* One request of a stream of them; its answer is the next one. */
void spiffed_reflection(struct job *job, struct att_slice message);

/* ---- signer.c ---- */
/* False: the message is not of its form, or asks for what there is not; the call is finished. */
bool spiffed_sign_parse(struct job *job, struct att_slice message);
void spiffed_sign_serve(struct job *job);
void spiffed_chain_serve(struct job *job);

/* ---- sds.c ---- */
/* One DiscoveryRequest of a stream, or the only one. False: the call is finished. */
bool spiffed_sds_take(struct job *job, struct att_slice message);
void spiffed_sds_serve(struct job *job);
void spiffed_sds_stream_free(struct sds_stream *sds);
void spiffed_sds_done(struct sds_bundle *bundle);
/* Is it one whose answer is made of the bundle? */
bool spiffed_sds_is(const struct job *job);

/* ---- export.c ---- */
/* May this caller be given a private key now? Its agent's certificate, what it is by its entry, and
 * the bundle are then known. False: not known yet (the job stays due), or the call is over; stays:
 * what it is told if the key is none that leaves its store. */
bool spiffed_export_may(struct job *job, const char *stays);
/* The key in force is in job->key: the caller makes its message of it and calls
 * spiffed_export_done. False: it was asked for, once for a message, and the job is due again when
 * it is here. Not while job->asking, nor before job->retry_ms. */
bool spiffed_export_key(struct job *job);
/* It did not come: who has a message keeps it and gets the next one later, who has none is told to
 * come again. */
void spiffed_export_later(struct job *job, const struct att_err *err);
void spiffed_export_done(struct job *job); /* wipes the key */

/* ---- health.c ---- */
void spiffed_health(struct job *job, struct att_slice message); /* Check, Watch */
void spiffed_health_changed(struct spiffed *spiffed);           /* attestd is away, or back */

/* ---- svid.c ---- */
/* FetchX509SVID: the certificate with its key, for agents whose entry says "exportable". */
void spiffed_svid_serve(struct job *job);

/* ---- jwt.c ---- */
/* FetchJWTSVID and ValidateJWTSVID. False: the call is finished. */
bool spiffed_jwt_parse(struct job *job, struct att_slice message);
void spiffed_jwt_serve(struct job *job);
void spiffed_jwt_refresh(struct spiffed *spiffed); /* if the keys are not those in force */
void spiffed_jwt_look(struct spiffed *spiffed);    /* the same, if somebody wants them */
void spiffed_jwt_step(struct spiffed *spiffed);    /* ends calls that have waited for too long */
void spiffed_jwt_done(struct jwt_bundle *bundle);
/* Is this a JWT-SVID of one of these trust domains, for this audience, at this time (UTC seconds)?
 * Its sub says of which; only that one's keys count. ATT_E_AUTH, by reason: tokenForm, tokenAlg,
 * tokenKid, tokenSubject, tokenDomain, tokenSignature, tokenAudience, tokenExpired, tokenNotYet.
 * The caller calls oidc_jwt_done. */
ATT_MUST_USE enum att_rc spiffed_jwt_judge(const struct jwt_keys *keys, const char *token,
                                           const char *audience, int64_t now,
                                           struct oidc_jwt *ret_jwt, struct att_err *err);

/* ---- federation.c ---- */
void spiffed_federation_refresh(struct spiffed *spiffed); /* if it is not what is in force */
bool spiffed_federation_known(const struct spiffed *spiffed);
void spiffed_federation_done(struct federation *federation);
/* The next of those that the agent is given, from *at on (0 at first). NULL: no more. */
const struct federated *spiffed_federated(const struct spiffed *spiffed, const struct agent *agent,
                                          size_t *at);
/* By its name of len characters. NULL: the agent is not given it. */
const struct federated *spiffed_federated_by(const struct spiffed *spiffed,
                                             const struct agent *agent, const char *trust_domain,
                                             size_t len);
/* A number over the roots (keys) of all that the agent is given; 0 where it is given none. */
uint64_t spiffed_federated_roots(const struct spiffed *spiffed, const struct agent *agent);
uint64_t spiffed_federated_keys(const struct spiffed *spiffed, const struct agent *agent);

/* ---- spiffed.c ---- */
/* Whom to ask for signatures of keys in this module. NULL: no memory. */
struct ask *spiffed_hsm(struct spiffed *spiffed, const char *module);

/* ---- agents.c ---- */
struct agent *spiffed_agent_join(struct spiffed *spiffed, struct att_slice name);
void spiffed_agent_leave(struct agent *agent);
/* Asks attestd what it has now, if that is not known. */
void spiffed_agent_refresh(struct agent *agent);
/* What it has now is known, or was when attestd could be asked last. */
bool spiffed_agent_known(const struct agent *agent);

/* ---- standing.c ---- */
void spiffed_watch(struct spiffed *spiffed);          /* asks attestd whether anything changed */
void spiffed_bundle_refresh(struct spiffed *spiffed); /* if it is not the one in force */
void spiffed_bundle_done(struct bundle *bundle);
/* What is in an answer for this agent has another number when anything of it is another. */
uint64_t spiffed_bundle_number(const struct spiffed *spiffed, const struct agent *agent);
/* The X509BundlesResponse for this agent. The caller unrefs it; NULL: no memory. */
struct grpc_bytes *spiffed_bundle_message(const struct spiffed *spiffed, const struct agent *agent);
/* The lists of crl, which they borrow; returns how many. */
#define SPIFFED_CRLS_MAX 8
size_t spiffed_bundle_lists(const struct bundle *bundle, ProtobufCBinaryData ret[SPIFFED_CRLS_MAX]);

#endif
