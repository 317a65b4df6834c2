#include "attestd/conf/issuer_jwt.h"

#include "attestd/conf/check.h"

#include <string.h>

#define OPT (CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL)
#define STR(member, flags)                                                                         \
    CYAML_FIELD_STRING_PTR(#member, (flags), struct conf_jwt, member, 0, 4096)

const cyaml_schema_field_t conf_jwt_fields[] = {
    STR(issuer, CYAML_FLAG_POINTER),
    STR(listen, OPT),
    STR(cert_file, OPT),
    STR(key_file, OPT),
    STR(keys, OPT),
    STR(lifetime, OPT),
    STR(evidence_max_age, OPT),
    STR(rotate, OPT),
    STR(publish_wait, OPT),
    CYAML_FIELD_END,
};

bool conf_jwt_defaults(struct conf_jwt *jwt)
{
    return !jwt || (conf_default(&jwt->keys, "file") && conf_default(&jwt->lifetime, "5m") &&
                    conf_default(&jwt->evidence_max_age, "1h") &&
                    conf_default(&jwt->rotate, "30d") && conf_default(&jwt->publish_wait, "1h"));
}

static void check_span(struct conf_check *check, const char *path, const char *text, int64_t least,
                       int64_t most, int64_t *ret)
{
    if (conf_check_duration(check, path, text, least, ret) && *ret > most) {
        conf_bad(check, path, "expected at most %llds, found \"%.40s\"", (long long)most, text);
    }
}

/* OpenID Connect Discovery 1.0 §3: https, no query, no fragment. A slash at the end would have two
 * spellings of one issuer. */
static void check_issuer(struct conf_check *check, const char *issuer)
{
    if (!conf_check_url(check, "jwt.issuer", issuer)) {
        return;
    }
    size_t len = strlen(issuer);
    if (len > CONF_JWT_ISSUER_MAX || strpbrk(issuer, "?#") || issuer[len - 1] == '/') {
        conf_bad(check, "jwt.issuer",
                 "expected an https URL of at most %d characters, without query and without a "
                 "slash at its end, found \"%.80s\"",
                 CONF_JWT_ISSUER_MAX, issuer);
    }
}

void conf_jwt_check(struct conf_check *check, struct conf_issuer *conf)
{
    static const char *const stores[] = {"file", "hsm", NULL};
    struct conf_jwt *jwt = conf->jwt;
    if (!jwt) {
        return;
    }
    check_issuer(check, jwt->issuer);
    if (jwt->listen) {
        conf_check_listen(check, "jwt.listen", jwt->listen, jwt->listen_host, &jwt->listen_port);
    }
    if (!jwt->cert_file != !jwt->key_file) {
        conf_bad(check, jwt->cert_file ? "jwt.cert_file" : "jwt.key_file",
                 "expected cert_file and key_file together");
    }
    (void)conf_check_path(check, "jwt.cert_file", jwt->cert_file);
    (void)conf_check_path(check, "jwt.key_file", jwt->key_file);
    (void)conf_check_word(check, "jwt.keys", jwt->keys, stores);
    jwt->keys_hsm = strcmp(jwt->keys, "hsm") == 0;
    if (jwt->keys_hsm && !conf->hsm) {
        conf_bad(check, "jwt.keys", "hsm needs a section hsm, which names the token");
    }
    check_span(check, "jwt.lifetime", jwt->lifetime, CONF_JWT_LIFETIME_MIN_S,
               CONF_JWT_LIFETIME_MAX_S, &jwt->lifetime_s);
    check_span(check, "jwt.evidence_max_age", jwt->evidence_max_age, 60, 86400,
               &jwt->evidence_max_age_s);
    check_span(check, "jwt.rotate", jwt->rotate, 3600, 366LL * 86400, &jwt->rotate_s);
    check_span(check, "jwt.publish_wait", jwt->publish_wait, 60, 7 * 86400, &jwt->publish_wait_s);
    if (jwt->publish_wait_s >= jwt->rotate_s) {
        conf_bad(check, "jwt.publish_wait",
                 "expected less than jwt.rotate (%s), or no key is ever used, found \"%.40s\"",
                 jwt->rotate, jwt->publish_wait);
    }
}
