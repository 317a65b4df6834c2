#include "attestd/ctl/ctl.h"

#include "attestd/base/ctl.h"
#include "attestd/base/io.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX        ((size_t)4 << 20)
#define DEFAULT_CONTROL "/run/attestd/control.sock"
#define DEFAULT_ADMIN   "/run/attest-issuerd/admin.sock"

enum ctl_exit ctl_report(const struct att_err *err)
{
    fprintf(stderr, "attestctl: %s%s%s%s\n", err->reason[0] ? err->reason : "",
            err->reason[0] ? ": " : "", err->msg[0] ? err->msg : att_rc_name(err->rc), "");
    /* Ours has an errno; a daemon that says so of somebody behind it has been reached. */
    if (err->rc == ATT_E_UNREACHABLE && err->domain == ATT_DOM_ERRNO) {
        return CTL_UNREACHABLE;
    }
    return err->rc == ATT_E_DENIED && strcmp(err->reason, "socket") == 0 ? CTL_FORBIDDEN
                                                                         : CTL_FAILED;
}

enum ctl_exit ctl_call(const struct ctl_ctx *ctx, bool at_issuer, const char *op,
                       const json_t *args, json_t **ret_result)
{
    struct att_err err = {0};
    if (at_issuer && ctl_is_remote(ctx)) {
        bool forbidden = false;
        if (ctl_remote_call(ctx, op, args, ret_result, &forbidden, &err) == ATT_OK) {
            return CTL_OK;
        }
        enum ctl_exit exit_code = ctl_report(&err);
        bool gone = err.rc == ATT_E_UNREACHABLE && err.domain == ATT_DOM_CURL;
        return forbidden ? CTL_FORBIDDEN : gone ? CTL_UNREACHABLE : exit_code;
    }
    const char *path = at_issuer ? ctx->admin_path : ctx->control_path;
    if (att_ctl_call(path, op, args, ctx->timeout_ms, ret_result, &err) != ATT_OK) {
        return ctl_report(&err);
    }
    return CTL_OK;
}

/* ---- the command table --------------------------------------------------------------------- */

static const struct ctl_command *const tables[] = {ctl_host_commands,     ctl_issuer_commands,
                                                   ctl_manifest_commands, ctl_seal_commands,
                                                   ctl_ca_commands,       ctl_federation_commands};

static const struct ctl_command *find_command(const char *noun, const char *verb)
{
    for (size_t t = 0; t < sizeof tables / sizeof tables[0]; t++) {
        for (const struct ctl_command *c = tables[t]; c->noun; c++) {
            if (strcmp(c->noun, noun) == 0 && (!c->verb || (verb && strcmp(c->verb, verb) == 0))) {
                return c;
            }
        }
    }
    return NULL;
}

static void print_synopsis(FILE *to, const struct ctl_command *command)
{
    fprintf(to, "attestctl %s%s%s", command->noun, command->verb ? " " : "",
            command->verb ? command->verb : "");
    for (const struct ctl_param *p = command->params; p < command->params + CTL_PARAMS_MAX; p++) {
        if (!p->name) {
            break;
        }
        fputs(p->required ? " " : " [", to);
        switch (p->kind) {
        case CTL_POSITIONAL:
            fprintf(to, "%s", p->name);
            break;
        case CTL_WORDS:
            fprintf(to, "%s…", p->name);
            break;
        case CTL_OPTION:
            fprintf(to, "--%s WORD", p->name);
            break;
        case CTL_NUMBER:
            fprintf(to, "--%s N", p->name);
            break;
        case CTL_FLAG:
            fprintf(to, "--%s", p->name);
            break;
        case CTL_LABELS:
            fprintf(to, "--%s \"KEY=VALUE;…\"", p->name);
            break;
        case CTL_FILE:
            fprintf(to, "-f FILE");
            break;
        }
        fputs(p->required ? "" : "]", to);
    }
    fputs(command->takes_rest ? " -- CMD…\n" : "\n", to);
}

static void print_help(FILE *to)
{
    fputs("usage: attestctl [--json] [--socket PATH] [--issuer PATH] [--timeout S] NOUN [VERB] …\n"
          "  --json         the whole answer as JSON\n"
          "  --socket PATH  attestd's control socket (" DEFAULT_CONTROL ")\n"
          "  --issuer PATH  attest-issuerd's admin socket (" DEFAULT_ADMIN ")\n"
          "  --issuer https://HOST:PORT --cacert FILE  its admin API, with\n"
          "     --cert FILE --key FILE  a client certificate, or\n"
          "     --token-file FILE       a token of an OpenID provider\n"
          "     --request-id ID         the same for a request that is sent again: done once\n"
          "exit: 0 ok, 1 refused or failed, 2 usage, 3 cannot reach the daemon, 4 not permitted\n",
          to);
    static const char *const titles[] = {"\non a host:\n",
                                         "\nat the issuer:\n",
                                         "\nmanifests, anywhere:\n",
                                         "\nwhere policies are signed:\n",
                                         "\nthe issuer's authorities:\n",
                                         "\nother trust domains, at the issuer:\n"};
    _Static_assert(sizeof titles / sizeof titles[0] == sizeof tables / sizeof tables[0],
                   "a title for each table");
    for (size_t t = 0; t < sizeof tables / sizeof tables[0]; t++) {
        fputs(titles[t], to);
        for (const struct ctl_command *c = tables[t]; c->noun; c++) {
            fputs("  ", to);
            print_synopsis(to, c);
            fprintf(to, "      %s\n", c->help);
        }
    }
}

/* ---- arguments ----------------------------------------------------------------------------- */

/* Returns the parameter that a word on the command line belongs to. */
static const struct ctl_param *match_param(const struct ctl_command *command, const char *word,
                                           const json_t *so_far)
{
    for (const struct ctl_param *p = command->params; p < command->params + CTL_PARAMS_MAX; p++) {
        if (!p->name) {
            break;
        }
        const char *key = p->kind == CTL_FILE ? "filename" : p->key ? p->key : p->name;
        bool free_word = word[0] != '-' || !word[1];
        if (free_word) {
            if (p->kind == CTL_WORDS) {
                return p;
            }
            if ((p->kind == CTL_POSITIONAL || p->kind == CTL_FILE) &&
                !json_object_get(so_far, key)) {
                return p;
            }
        } else if (p->kind == CTL_FILE
                       ? strcmp(word, "-f") == 0
                       : strncmp(word, "--", 2) == 0 && strcmp(word + 2, p->name) == 0) {
            return p;
        }
    }
    return NULL;
}

static enum ctl_exit read_file_param(const char *path, json_t *args)
{
    att_autobuf text = {0};
    struct att_err err = {0};
    const char *real = strcmp(path, "-") == 0 ? "/dev/stdin" : path;
    if (att_io_read_file(real, FILE_MAX, &text, &err) != ATT_OK) {
        return ctl_report(&err);
    }
    json_t *content = json_stringn((const char *)text.ptr, text.len);
    if (!content) {
        fprintf(stderr, "attestctl: %s: expected UTF-8 text\n", path);
        return CTL_FAILED;
    }
    json_object_set_new(args, "text", content);
    json_object_set_new(args, "filename", json_string(path));
    return CTL_OK;
}

static enum ctl_exit set_number(const char *name, const char *word, const char *key, json_t *args)
{
    char *end = NULL;
    errno = 0;
    long long n = strtoll(word, &end, 10);
    if (errno || end == word || *end) {
        fprintf(stderr, "attestctl: --%s: expected a whole number, found \"%s\"\n", name, word);
        return CTL_USAGE;
    }
    json_object_set_new(args, key, json_integer(n));
    return CTL_OK;
}

/* "zone=trading;rack=7"; what a key and a value may be is for the issuer to say. */
static enum ctl_exit set_labels(const char *name, const char *word, const char *key, json_t *args)
{
    json_t *labels = json_object();
    json_object_set_new(args, key, labels);
    while (*word) {
        size_t len = strcspn(word, ";");
        const char *equals = memchr(word, '=', len);
        json_t *value = NULL;
        if (equals && equals != word) {
            value = json_stringn(equals + 1, len - (size_t)(equals + 1 - word));
        }
        if (!value || json_object_setn_new(labels, word, (size_t)(equals - word), value) != 0) {
            fprintf(stderr, "attestctl: --%s: expected KEY=VALUE;KEY=VALUE, found \"%s\"\n", name,
                    word);
            return CTL_USAGE;
        }
        word += len + (word[len] ? 1 : 0);
    }
    return CTL_OK;
}

static enum ctl_exit set_param(const struct ctl_param *p, const char *word, struct ctl_args *args)
{
    const char *key = p->key ? p->key : p->name;
    switch (p->kind) {
    case CTL_FLAG:
        json_object_set_new(args->json, key, json_true());
        return CTL_OK;
    case CTL_NUMBER:
        return set_number(p->name, word, key, args->json);
    case CTL_LABELS:
        return set_labels(p->name, word, key, args->json);
    case CTL_FILE:
        args->file = word;
        return read_file_param(word, args->json);
    case CTL_WORDS:
    case CTL_OPTION:
    case CTL_POSITIONAL:
        break;
    }
    if (p->kind == CTL_OPTION && strcmp(p->name, "out") == 0) {
        args->out = word; /* stays here: no daemon writes where a caller says */
        return CTL_OK;
    }
    json_t *value = json_string(word);
    if (!value) {
        fprintf(stderr, "attestctl: %s: expected UTF-8 text\n", p->name);
        return CTL_USAGE;
    }
    if (p->kind == CTL_WORDS) {
        if (!json_object_get(args->json, key)) {
            json_object_set_new(args->json, key, json_array());
        }
        json_array_append_new(json_object_get(args->json, key), value);
        return CTL_OK;
    }
    json_object_set_new(args->json, key, value);
    return CTL_OK;
}

static bool has_param(const struct ctl_param *p, const struct ctl_args *args)
{
    if (p->kind == CTL_OPTION && strcmp(p->name, "out") == 0) {
        return args->out;
    }
    return json_object_get(args->json, p->kind == CTL_FILE ? "filename"
                                       : p->key            ? p->key
                                                           : p->name);
}

static enum ctl_exit usage_of(const struct ctl_command *command)
{
    fputs("usage: ", stderr);
    print_synopsis(stderr, command);
    return CTL_USAGE;
}

static enum ctl_exit parse_args(const struct ctl_command *command, int argc, char **argv,
                                struct ctl_args *args)
{
    for (int i = 0; i < argc; i++) {
        if (command->takes_rest && strcmp(argv[i], "--") == 0) {
            args->rest = argv + i + 1;
            break;
        }
        const struct ctl_param *p = match_param(command, argv[i], args->json);
        if (!p) {
            fprintf(stderr, "attestctl: unexpected argument \"%s\"\n", argv[i]);
            return usage_of(command);
        }
        bool wants_value = argv[i][0] == '-' && argv[i][1] && p->kind != CTL_FLAG;
        if (wants_value && ++i == argc) {
            fprintf(stderr, "attestctl: %s: expected a value\n", argv[i - 1]);
            return usage_of(command);
        }
        enum ctl_exit rc = set_param(p, argv[i], args);
        if (rc != CTL_OK) {
            return rc;
        }
    }
    for (const struct ctl_param *p = command->params; p < command->params + CTL_PARAMS_MAX; p++) {
        if (p->name && p->required && !has_param(p, args)) {
            fprintf(stderr, "attestctl: %s is missing\n", p->name);
            return usage_of(command);
        }
    }
    return CTL_OK;
}

/* ---- running ------------------------------------------------------------------------------- */

static enum ctl_exit run_command(const struct ctl_ctx *ctx, const struct ctl_command *command,
                                 int argc, char **argv)
{
    att_autojson *json = json_object(), *result = NULL;
    struct ctl_args args = {.json = json};
    enum ctl_exit rc = parse_args(command, argc, argv, &args);
    if (rc == CTL_OK && command->paged) {
        return ctl_pages_run(ctx, command, &args);
    }
    if (rc == CTL_OK && command->op) {
        rc = ctl_call(ctx, command->at_issuer, command->op, args.json, &result);
    }
    if (rc != CTL_OK) {
        return rc;
    }
    if (command->show) {
        return command->show(ctx, &args, result);
    }
    if (ctx->json) {
        ctl_print_json(result);
    } else if (command->list) {
        ctl_print_list(json_object_get(result, command->list), command->columns);
    } else {
        ctl_print_object(result, 0);
    }
    return CTL_OK;
}

static bool take_timeout(const char *word, struct ctl_ctx *ctx)
{
    char *end = NULL;
    errno = 0;
    long s = strtol(word, &end, 10);
    if (errno || end == word || *end || s < 1 || s > 3600) {
        fprintf(stderr, "attestctl: --timeout: expected 1 to 3600 seconds, found \"%s\"\n", word);
        return false;
    }
    ctx->timeout_ms = (int)s * 1000;
    return true;
}

/* Where the value of a global option goes; NULL: it is none. Those of the admin API come before the
 * noun: "policy sign" has a --key of its own. */
static const char **global_text(const char *word, struct ctl_ctx *ctx, bool before_noun)
{
    const struct {
        const char *name;
        const char **into;
        bool anywhere;
    } all[] = {
        {"--socket", &ctx->control_path, true},
        {"--issuer", &ctx->admin_path, true},
        {"--cert", &ctx->cert, false},
        {"--key", &ctx->key, false},
        {"--cacert", &ctx->cacert, false},
        {"--token-file", &ctx->token_file, false},
        {"--request-id", &ctx->request_id, false},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (strcmp(word, all[i].name) == 0 && (all[i].anywhere || before_noun)) {
            return all[i].into;
        }
    }
    return NULL;
}

/* Takes the global options out of argv; they may stand anywhere, but for those of the admin API.
 * 0: one is wrong. */
static int take_globals(int argc, char **argv, struct ctl_ctx *ctx)
{
    int kept = 1;
    bool ours = true; /* what stands behind "--" is another program's */
    for (int i = 1; i < argc; i++) {
        ours = ours && strcmp(argv[i], "--") != 0;
        if (!ours) {
            argv[kept++] = argv[i];
            continue;
        }
        const char **into = global_text(argv[i], ctx, kept == 1);
        bool timeout = strcmp(argv[i], "--timeout") == 0;
        if (strcmp(argv[i], "--json") == 0) {
            ctx->json = true;
        } else if ((into || timeout) && i + 1 == argc) {
            fprintf(stderr, "attestctl: %s: expected a value\n", argv[i]);
            return 0;
        } else if (into) {
            *into = argv[++i];
        } else if (timeout) {
            if (!take_timeout(argv[++i], ctx)) {
                return 0;
            }
        } else {
            argv[kept++] = argv[i];
        }
    }
    argv[kept] = NULL;
    return kept;
}

static int unknown_command(char **argv)
{
    fprintf(stderr, "attestctl: no command \"%s%s%s\"; it may be one of:\n", argv[1],
            argv[2] ? " " : "", argv[2] ? argv[2] : "");
    bool any = false;
    for (int pass = 0; pass < 2 && !any; pass++) {
        for (size_t t = 0; t < sizeof tables / sizeof tables[0]; t++) {
            for (const struct ctl_command *c = tables[t]; c->noun; c++) {
                if (pass == 1 || strcmp(c->noun, argv[1]) == 0) {
                    fputs("  ", stderr);
                    print_synopsis(stderr, c);
                    any = true;
                }
            }
        }
    }
    return CTL_USAGE;
}

int ctl_main(int argc, char **argv)
{
    struct ctl_ctx ctx = {
        .control_path = DEFAULT_CONTROL, .admin_path = DEFAULT_ADMIN, .timeout_ms = 60000};
    argc = take_globals(argc, argv, &ctx);
    if (argc == 0) {
        return CTL_USAGE;
    }
    if (argc < 2) {
        print_help(stderr);
        return CTL_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help(stdout);
        return CTL_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("attestctl " ATT_VERSION);
        return CTL_OK;
    }
    const struct ctl_command *command = find_command(argv[1], argv[2]);
    if (!command) {
        return unknown_command(argv);
    }
    int skip = command->verb ? 3 : 2;
    if (argc > skip && strcmp(argv[skip], "--help") == 0) {
        print_synopsis(stdout, command);
        printf("  %s\n", command->help);
        return CTL_OK;
    }
    enum ctl_exit rc = run_command(&ctx, command, argc - skip, argv + skip);
    if (fflush(stdout) != 0) {
        fprintf(stderr, "attestctl: standard output: %s\n", strerror(errno));
        return CTL_FAILED;
    }
    return (int)rc;
}
