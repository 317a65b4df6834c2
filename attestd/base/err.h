/* Results and their context. A function that can fail returns enum att_rc; what the caller can do
 * about it is the code, what happened is in the optional struct att_err, its last argument. */
#ifndef ATTESTD_BASE_ERR_H
#define ATTESTD_BASE_ERR_H

#include <stdint.h>

#define ATT_MUST_USE          __attribute__((warn_unused_result))
#define ATT_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define ATT_CLEANUP(fn)       __attribute__((cleanup(fn)))

/* Split by what the caller can do. ATT_OK is zero; everything else is a refusal. */
enum att_rc {
    ATT_OK = 0,
    ATT_E_NOMEM,       /* give up this request */
    ATT_E_INVAL,       /* the caller passed something it must not */
    ATT_E_PARSE,       /* bytes do not have their form: fix the input */
    ATT_E_LIMIT,       /* a named cap was exceeded */
    ATT_E_NOTFOUND,    /* no such thing */
    ATT_E_EXISTS,      /* already there */
    ATT_E_CONFLICT,    /* state does not allow it now */
    ATT_E_DENIED,      /* policy says no: the same request will be refused again */
    ATT_E_AUTH,        /* a signature, MAC or password does not verify */
    ATT_E_REENROL,     /* the AK record is gone or stale: enrol again */
    ATT_E_RETRY,       /* the same request may succeed soon */
    ATT_E_TIMEOUT,     /* a deadline passed */
    ATT_E_UNREACHABLE, /* the peer cannot be reached: back off */
    ATT_E_GONE,        /* a device or peer disappeared */
    ATT_E_LOCKOUT,     /* TPM dictionary-attack lockout: wait, never reset */
    ATT_E_IO,          /* the operating system refused */
    ATT_E_CRYPTO,      /* the crypto library failed */
    ATT_E_PROTOCOL,    /* the peer broke the protocol */
    ATT_E_UNSUPPORTED, /* not on this platform or build */
    ATT_E_INTERNAL,    /* a bug of ours */
};

enum att_domain {
    ATT_DOM_NONE = 0,
    ATT_DOM_ERRNO,    /* native = errno */
    ATT_DOM_TSS,      /* native = TSS2_RC */
    ATT_DOM_PKCS11,   /* native = CK_RV */
    ATT_DOM_OPENSSL,  /* native = ERR_get_error() */
    ATT_DOM_CURL,     /* native = CURLcode */
    ATT_DOM_SQLITE,   /* native = extended result code */
    ATT_DOM_HTTP,     /* native = status code */
    ATT_DOM_POSTGRES, /* native = SQLSTATE, its five characters as a big-endian number */
};

/* What happened. Never holds a secret. Zero-initialise with {0}; reusable after att_err_clear. */
struct att_err {
    enum att_rc rc;
    enum att_domain domain;
    uint64_t native;
    const char *file; /* static storage */
    int line;
    char reason[40]; /* a machine-readable word, e.g. "quoteNonce"; may be empty */
    char msg[400];   /* one sentence for people */
};

/* Fills err (which may be NULL) unless it already holds an error, and returns rc. */
enum att_rc att_err_set(struct att_err *err, enum att_rc rc, enum att_domain domain,
                        uint64_t native, const char *file, int line, const char *fmt, ...)
    ATT_PRINTF(7, 8);

#define att_fail(err, rc, ...)                                                                     \
    att_err_set((err), (rc), ATT_DOM_NONE, 0, __FILE__, __LINE__, __VA_ARGS__)
#define att_fail_native(err, rc, domain, native, ...)                                              \
    att_err_set((err), (rc), (domain), (uint64_t)(native), __FILE__, __LINE__, __VA_ARGS__)
/* Appends strerror(errno). */
#define att_fail_errno(err, rc, ...)                                                               \
    att_err_set((err), (rc), ATT_DOM_ERRNO, (uint64_t)errno, __FILE__, __LINE__, __VA_ARGS__)
/* Takes the newest OpenSSL error off the queue, clears the queue, and appends its text. */
#define att_fail_openssl(err, rc, ...)                                                             \
    att_err_set((err), (rc), ATT_DOM_OPENSSL, 0, __FILE__, __LINE__, __VA_ARGS__)

/* Sets the reason word of an error just made; err may be NULL. */
void att_err_reason(struct att_err *err, const char *reason);
/* Puts "text: " before the message, to say in which larger act it happened; err may be NULL. */
void att_err_prefix(struct att_err *err, const char *fmt, ...) ATT_PRINTF(2, 3);
void att_err_clear(struct att_err *err);

/* Stable short name: "ok", "parse", "denied" … Never NULL. */
const char *att_rc_name(enum att_rc rc);

#endif
