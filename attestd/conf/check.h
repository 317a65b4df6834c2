/* Checks of single values, noted with line and field. Internal to attestd/conf. */
#ifndef CONF_CHECK_H
#define CONF_CHECK_H

#include "attestd/conf/listener.h"
#include "attestd/conf/tree.h"

struct conf_check {
    struct conf_errors *errors;
    const struct conf_node *root; /* for lines; NULL: there is no file */
};

/* "profiles[1].lifetime" from printf's words. */
struct conf_path {
    char text[CONF_PATH_MAX];
};
struct conf_path conf_path(const char *fmt, ...) ATT_PRINTF(1, 2);

#define conf_bad(check, path, ...)                                                                 \
    conf_error_at((check)->errors, (check)->root, (path), __VA_ARGS__)

/* Each returns whether it holds, and notes an error otherwise; text NULL is fine: required keys are
 * the schema's to ask for. */
bool conf_check_path(struct conf_check *check, const char *path, const char *text);
bool conf_check_name(struct conf_check *check, const char *path, const char *text);
bool conf_check_pcrs(struct conf_check *check, const char *path, const char *text);
bool conf_check_url(struct conf_check *check, const char *path, const char *text);
bool conf_check_http_url(struct conf_check *check, const char *path, const char *text);
bool conf_check_hex256(struct conf_check *check, const char *path, const char *text);
bool conf_check_text(struct conf_check *check, const char *path, const char *text, size_t max);
bool conf_check_trust_domain(struct conf_check *check, const char *path, const char *text);
bool conf_check_duration(struct conf_check *check, const char *path, const char *text,
                         int64_t least_s, int64_t *ret_s);
/* 1 … 32 characters of a policyRef (tpm/parse/pcr_policy.h). */
bool conf_check_policy_ref(struct conf_check *check, const char *path, const char *text);
/* One of a NULL-ended list of words. */
bool conf_check_word(struct conf_check *check, const char *path, const char *text,
                     const char *const *words);
/* Every member a word of the list, none twice. */
bool conf_check_words(struct conf_check *check, const char *path, char *const *texts, size_t n,
                      const char *const *words);
/* ADDRESS:PORT with the address in numbers; IPv6 in brackets. */
void conf_check_listen(struct conf_check *check, const char *path, const char *listen,
                       char ret_host[64], uint16_t *ret_port);
/* metrics_listen of either daemon: that, unix:/PATH, or none. */
void conf_check_metrics(struct conf_check *check, const char *listen, struct conf_listener *ret_at);
void conf_check_log(struct conf_check *check, const char *log, const char *level, bool *ret_json,
                    enum att_log_level *ret_least);
bool conf_check_group(struct conf_check *check, char **group); /* "none" and "" become NULL */

extern const char *const conf_log_names[]; /* firmware systemd ima NULL */
/* *text = copy of fallback when it is NULL; false without memory. */
bool conf_default(char **text, const char *fallback);

#endif
