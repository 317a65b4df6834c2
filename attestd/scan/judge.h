/* Is a value a static key? By its shape (a provider's prefix, a PEM header, a URL with a password),
 * else by its name and how random it looks. Pure; nothing of a value leaves these functions. */
#ifndef ATTESTD_SCAN_JUDGE_H
#define ATTESTD_SCAN_JUDGE_H

#include "attestd/base/slice.h"
#include "attestd/scan/kinds.h"

enum scan_confidence {
    SCAN_NO = 0,
    SCAN_LOW,    /* a name that says so, and a value that need not be one */
    SCAN_MEDIUM, /* a name that says so, and a value that looks random */
    SCAN_HIGH,   /* a shape that hardly anything else has; a known file's own field */
};

struct scan_verdict {
    enum scan_kind kind;
    enum scan_confidence confidence;
};

/* Both may be empty: no name, only the shape counts. */
struct scan_verdict scan_judge(struct att_slice name, struct att_slice value);
/* The same for a field that a file's format makes a credential (the password of a .netrc, the auth
 * of a Docker registry): whatever is not a placeholder or a reference counts. */
struct scan_verdict scan_judge_field(struct att_slice name, struct att_slice value,
                                     enum scan_kind kind);

/* ---- its parts, for tests ---- */

/* shape.c: the first shape in the text, wherever it stands; SCAN_NO: none. */
struct scan_verdict scan_shape(struct att_slice value);
/* shape_url.c: a URL with a password, or with a secret among its parameters. */
struct scan_verdict scan_shape_url(struct att_slice value);
/* shape_store.c: a PKCS#12 or Java keystore that has a private key, or may have one (LOW, MEDIUM);
 * the whole file. */
struct scan_verdict scan_shape_store(struct att_slice value);
/* Whether it is one at all: with certificates alone it is no finding. */
bool scan_is_store(struct att_slice value);
/* shape_pem.c: a private key in PEM (or its Base64) that no passphrase protects. */
struct scan_verdict scan_shape_pem(struct att_slice value);

/* name.c */
enum scan_name {
    SCAN_NAME_PLAIN = 0,
    SCAN_NAME_KEY,      /* …_KEY: may be anything */
    SCAN_NAME_SECRET,   /* …_TOKEN, …_SECRET, …_API_KEY */
    SCAN_NAME_PASSWORD, /* …_PASSWORD */
};
enum scan_name scan_name_class(struct att_slice name);
/* Whose it is by a name like OPENAI_API_KEY; SCAN_GENERIC: it does not say. */
enum scan_kind scan_name_kind(struct att_slice name, enum scan_name class);

#define SCAN_NAME_MAX 64
/* The name as it may be shown: letters, digits and "_.-:"; what does not look like a name (a line
 * of Base64 before a '=' does not) becomes "(withheld)", none "-". */
void scan_name_show(char ret[SCAN_NAME_MAX + 1], struct att_slice name);

/* value.c */
/* Not a secret whatever its name: empty, a placeholder, a boolean, a number, a path, a reference to
 * where the secret is kept, a public key, a password's hash. */
bool scan_value_dull(struct att_slice value);
/* Whether it looks drawn at random: long, of several classes, no words. */
bool scan_value_random(struct att_slice value);
/* A placeholder within a shape: AKIAIOSFODNN7EXAMPLE, sk-xxxxxxxx. */
bool scan_value_placeholder(struct att_slice value);
/* Without white space and one pair of quotes around it. */
struct att_slice scan_value_trim(struct att_slice value);

/* ASCII, either case. */
bool scan_starts(struct att_slice text, const char *with);
bool scan_ends(struct att_slice text, const char *with);
bool scan_has(struct att_slice text, const char *what);
bool scan_is(struct att_slice text, const char *what);

#endif
