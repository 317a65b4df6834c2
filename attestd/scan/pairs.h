/* Names and values out of the files that hold static keys. Pure parsers: they rewrite the bytes
 * that they are given in place (quotes and escapes only ever shorten a text), so that a value is
 * nowhere but there, and hand slices of them to a sink. Nothing is an error that ends a file: what
 * does not have its form is told by its line and looked at for shapes. */
#ifndef ATTESTD_SCAN_PAIRS_H
#define ATTESTD_SCAN_PAIRS_H

#include "attestd/base/slice.h"

struct scan_text {
    uint8_t *ptr;
    size_t len;
};

struct scan_pair {
    struct att_slice name, value; /* of the text; name may be empty */
    uint32_t line;                /* 1 …; 0: the format has none */
    const char *at;               /* static: "Environment", "ExecStart", "comment"; or "" */
};

/* All but pair may be NULL. */
struct scan_sink {
    void *user;
    void (*pair)(void *user, const struct scan_pair *pair);
    /* A unit's empty assignment: what at collected before is off. */
    void (*reset)(void *user, const char *at);
    /* EnvironmentFile=, LoadCredential=: path as it stands, with its '-' and
     * specifiers. name: the credential */
    void (*file)(void *user, const char *at, struct att_slice name, struct att_slice path,
                 uint32_t line);
    void (*bad)(void *user, uint32_t line); /* this line has not its form */
};

enum scan_format {
    SCAN_LINES = 0, /* no form: shapes in each line */
    SCAN_ENV,       /* systemd.exec(5) EnvironmentFile=, pam_env, .env, a shell's assignments */
    SCAN_UNIT,      /* systemd.syntax(7), systemd.exec(5) */
    SCAN_INI,       /* sections, key = value; TOML's simple lines */
    SCAN_YAML,      /* key: value, - NAME=VALUE; no structure */
    SCAN_JSON,
    SCAN_NETRC,
    SCAN_PGPASS,
    SCAN_WHOLE,   /* the file is the value */
    SCAN_HISTORY, /* command lines: of bash, zsh, fish */
};
/* JSON and YAML are told apart by the first character; a byte order mark is passed over. */
void scan_parse(enum scan_format format, struct scan_text text, const struct scan_sink *sink);

void scan_envfile(struct scan_text text, const struct scan_sink *sink);
void scan_unitfile(struct scan_text text, const struct scan_sink *sink);
void scan_ini(struct scan_text text, const struct scan_sink *sink);
void scan_yaml(struct scan_text text, const struct scan_sink *sink);
void scan_json(struct scan_text text, const struct scan_sink *sink);
void scan_netrc(struct scan_text text, const struct scan_sink *sink);
void scan_pgpass(struct scan_text text, const struct scan_sink *sink);
void scan_lines(struct scan_text text, uint32_t line, const struct scan_sink *sink);
/* /proc/PID/environ and /proc/PID/cmdline: strings that end with NUL. */
void scan_environ(struct scan_text text, const struct scan_sink *sink);
void scan_cmdline(struct scan_text text, const struct scan_sink *sink);

/* One command line a line; times that a shell puts before it are passed over. */
void scan_history(struct scan_text text, const struct scan_sink *sink);

/* The next word as systemd splits them: quotes and C escapes resolved. False: none is left. */
bool scan_word_next(struct scan_text *rest, struct scan_text *ret_word);
/* Resolves C escapes (systemd.syntax(7)) up to the end of the text; returns the new length. */
size_t scan_unescape(struct scan_text text);

/* One argument of a command. option: the one before it. */
void scan_argument(const struct scan_sink *sink, const char *at, uint32_t line,
                   struct att_slice option, struct scan_text word);
/* A line without name; what it begins may go on behind it (a PEM block): all is the text's rest. */
void scan_nameless(const struct scan_sink *sink, const char *at, uint32_t line,
                   struct att_slice text, size_t rest);
/* What stands before a '=' and is no name, but a line with a URL that has parameters. */
bool scan_name_has_url(struct att_slice name);

#endif
