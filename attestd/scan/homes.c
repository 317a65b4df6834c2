#include "attestd/scan/internal.h"

#include "attestd/base/clock.h"

#include <errno.h>
#include <limits.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PASSWD_UNIT "/etc/passwd"

/* ---- whose homes ---- */

static struct att_slice field(struct att_slice *line)
{
    const uint8_t *colon = line->len ? memchr(line->ptr, ':', line->len) : NULL;
    size_t len = colon ? (size_t)(colon - line->ptr) : line->len, taken = colon ? len + 1 : len;
    struct att_slice part = ATT_SLICE(line->ptr, len);
    *line = ATT_SLICE(line->ptr + taken, line->len - taken);
    return part;
}

static bool number(struct att_slice text, uid_t *ret)
{
    uint64_t value = 0;
    for (size_t i = 0; i < text.len && i < 11; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9') {
            return false;
        }
        value = value * 10 + (uint64_t)(text.ptr[i] - '0');
    }
    *ret = (uid_t)value;
    return text.len > 0 && text.len <= 10 && value < UINT32_MAX;
}

static bool known(const struct scan_ctx *ctx, const char *path)
{
    for (size_t i = 0; i < ctx->n_homes; i++) {
        if (strcmp(ctx->homes[i].path, path) == 0) {
            return true;
        }
    }
    return false;
}

static bool asked(const struct scan_ctx *ctx, const char *name, uid_t uid)
{
    const struct scan_options *o = ctx->options;
    for (size_t i = 0; i < o->n_users; i++) {
        if (strcmp(o->users[i], name) == 0) {
            return true;
        }
    }
    /* Whoever is not root looks at what is his own; in an image at what he can read. */
    return o->n_users == 0 && (o->root || geteuid() == 0 || geteuid() == uid);
}

static void add(struct scan_ctx *ctx, struct att_slice name, struct att_slice path, uid_t uid)
{
    struct scan_home home = {.uid = uid};
    while (path.len > 1 && path.ptr[path.len - 1] == '/') {
        path.len--;
    }
    bool form = name.len && name.len < sizeof home.name && path.len > 1 &&
                path.len < sizeof home.path && path.ptr[0] == '/' && !memchr(path.ptr, 0, path.len);
    if (!form) {
        return;
    }
    memcpy(home.name, name.ptr, name.len);
    memcpy(home.path, path.ptr, path.len);
    if (!asked(ctx, home.name, uid) || known(ctx, home.path)) {
        return;
    }
    if (ctx->n_homes == SCAN_HOMES_MAX) {
        scan_findings_skip(ctx->findings, SCAN_SKIP_MANY, PASSWD_UNIT, 0);
        return;
    }
    ctx->homes[ctx->n_homes++] = home;
}

/* passwd(5) */
static void passwd(struct scan_ctx *ctx)
{
    struct stat st;
    struct scan_text text;
    enum scan_skip why = SCAN_SKIPS;
    bool changed;
    int fd = scan_open(&ctx->root, PASSWD_UNIT, false, &st, &why);
    bool ok = fd >= 0 && scan_read(fd, &ctx->buf, &text, &changed, &why);
    if (fd >= 0) {
        close(fd);
    }
    if (!ok) {
        scan_skipped(ctx, &ctx->root, PASSWD_UNIT, why);
        return;
    }
    struct att_slice all = ATT_SLICE(text.ptr, text.len);
    while (all.len) {
        const uint8_t *end = memchr(all.ptr, '\n', all.len);
        size_t len = end ? (size_t)(end - all.ptr) : all.len, taken = end ? len + 1 : len;
        struct att_slice line = ATT_SLICE(all.ptr, len), parts[6];
        uid_t uid;
        for (size_t i = 0; i < 6; i++) {
            parts[i] = field(&line);
        }
        if (number(parts[2], &uid)) {
            add(ctx, parts[0], parts[5], uid);
        }
        all = ATT_SLICE(all.ptr + taken, all.len - taken);
    }
    att_wipe(ctx->buf.ptr, text.len);
}

/* Users that another directory service knows have a folder here, too. */
static void folders(struct scan_ctx *ctx)
{
    struct stat st;
    size_t n = 0;
    enum scan_skip why = SCAN_SKIPS;
    int fd = scan_open(&ctx->root, "/home", true, &st, &why);
    char **names = fd >= 0 ? scan_names(fd, &n, &why) : NULL;
    scan_skipped(ctx, &ctx->root, "/home", why);
    for (size_t i = 0; i < n; i++) {
        char path[NAME_MAX + 8];
        snprintf(path, sizeof path, "/home/%s", names[i]);
        int home = scan_open(&ctx->root, path, true, &st, &why);
        if (home >= 0) {
            add(ctx, att_slice_str(names[i]), att_slice_str(path), st.st_uid);
            close(home);
        }
    }
    free(names);
}

enum att_rc scan_homes_load(struct scan_ctx *ctx, struct att_err *err)
{
    const struct scan_options *o = ctx->options;
    ctx->homes = calloc(SCAN_HOMES_MAX, sizeof *ctx->homes);
    if (!ctx->homes) {
        return att_fail(err, ATT_E_NOMEM, "homes");
    }
    passwd(ctx);
    folders(ctx);
    for (size_t i = 0; i < o->n_users; i++) {
        bool found = false;
        for (size_t k = 0; k < ctx->n_homes; k++) {
            found |= strcmp(ctx->homes[k].name, o->users[i]) == 0;
        }
        if (!found) {
            return att_fail(err, ATT_E_NOTFOUND,
                            "--user: \"%.60s\" has no home in /etc/passwd or /home", o->users[i]);
        }
    }
    return ATT_OK;
}

bool scan_home_root(struct scan_ctx *ctx, const struct scan_home *home, struct scan_root *ret)
{
    enum scan_skip why;
    if (!scan_root_below(&ctx->root, home->path, ret, &why)) {
        return false;
    }
    ctx->home_until_ms =
        att_boottime_ms() + (ctx->options->home_ms ? ctx->options->home_ms : SCAN_HOME_MS);
    ret->owner = home->uid;
    ret->has_owner = true;
    return true;
}

/* ---- what lies there ---- */

struct known {
    const char *path; /* a pattern */
    enum scan_format format;
    const char *names;
    enum scan_kind kind;
    const char *name;
    bool binary;
};

static const struct known in_home[] = {
    {".aws/credentials", SCAN_INI, NULL, SCAN_NONE, NULL, false},
    {".aws/config", SCAN_INI, NULL, SCAN_NONE, NULL, false},
    {".config/gcloud/application_default_credentials.json", SCAN_JSON,
     "refresh_token private_key client_secret", SCAN_GOOGLE_CREDENTIAL, NULL, false},
    {".config/gcloud/legacy_credentials/*/adc.json", SCAN_JSON,
     "refresh_token private_key client_secret", SCAN_GOOGLE_CREDENTIAL, NULL, false},
    {".config/gcloud/*.db", SCAN_LINES, NULL, SCAN_NONE, NULL, true},
    {".azure/*.json", SCAN_JSON,
     "secret refreshToken accessToken client_secret servicePrincipalKey", SCAN_AZURE_SECRET, NULL,
     false},
    {".kube/config", SCAN_YAML,
     "token password client-key-data id-token refresh-token access-token", SCAN_KUBERNETES, NULL,
     false},
    {".netrc", SCAN_NETRC, "password", SCAN_PASSWORD, NULL, false},
    {".git-credentials", SCAN_LINES, NULL, SCAN_NONE, NULL, false},
    {".config/git/credentials", SCAN_LINES, NULL, SCAN_NONE, NULL, false},
    {".docker/config.json", SCAN_JSON, "auth identitytoken registrytoken", SCAN_REGISTRY, NULL,
     false},
    {".dockercfg", SCAN_JSON, "auth", SCAN_REGISTRY, NULL, false},
    {".config/containers/auth.json", SCAN_JSON, "auth identitytoken registrytoken", SCAN_REGISTRY,
     NULL, false},
    {".npmrc", SCAN_INI, "_authToken _auth _password", SCAN_REGISTRY, NULL, false},
    {".yarnrc.yml", SCAN_YAML, "npmAuthToken npmAuthIdent", SCAN_REGISTRY, NULL, false},
    {".pypirc", SCAN_INI, "password", SCAN_REGISTRY, NULL, false},
    {".config/pip/pip.conf", SCAN_INI, NULL, SCAN_NONE, NULL, false},
    {".pip/pip.conf", SCAN_INI, NULL, SCAN_NONE, NULL, false},
    {".cargo/credentials*", SCAN_INI, "token", SCAN_REGISTRY, NULL, false},
    {".gem/credentials", SCAN_YAML, NULL, SCAN_REGISTRY, NULL, false},
    {".m2/settings.xml", SCAN_LINES, NULL, SCAN_NONE, NULL, false},
    {".gradle/gradle.properties", SCAN_INI, NULL, SCAN_NONE, NULL, false},
    {".composer/auth.json", SCAN_JSON, NULL, SCAN_REGISTRY, NULL, false},
    {".config/composer/auth.json", SCAN_JSON, NULL, SCAN_REGISTRY, NULL, false},
    {".config/gh/hosts.yml", SCAN_YAML, "oauth_token", SCAN_GITHUB, NULL, false},
    {".config/github-copilot/*.json", SCAN_JSON, "oauth_token", SCAN_GITHUB, NULL, false},
    {".config/glab-cli/config.yml", SCAN_YAML, "token", SCAN_GITLAB, NULL, false},
    {".pgpass", SCAN_PGPASS, "password", SCAN_DATABASE, NULL, false},
    {".my.cnf", SCAN_INI, "password", SCAN_DATABASE, NULL, false},
    {".vault-token", SCAN_WHOLE, NULL, SCAN_VAULT, "vault-token", false},
    {".terraform.d/credentials.tfrc.json", SCAN_JSON, "token", SCAN_SERVICE, NULL, false},
    {".terraformrc", SCAN_INI, "token", SCAN_SERVICE, NULL, false},
    {".config/doctl/config.yaml", SCAN_YAML, "access-token", SCAN_SERVICE, NULL, false},
    {".databrickscfg", SCAN_INI, "token client_secret password", SCAN_SERVICE, NULL, false},
    {".config/rclone/rclone.conf", SCAN_INI, "pass token secret_access_key", SCAN_SERVICE, NULL,
     false},
    {".s3cfg", SCAN_INI, "secret_key", SCAN_AWS_SECRET, NULL, false},
    {".boto", SCAN_INI, "aws_secret_access_key", SCAN_AWS_SECRET, NULL, false},
    {".kaggle/kaggle.json", SCAN_JSON, "key", SCAN_SERVICE, NULL, false},
    {".huggingface/token", SCAN_WHOLE, NULL, SCAN_HUGGINGFACE, "token", false},
    {".cache/huggingface/token", SCAN_WHOLE, NULL, SCAN_HUGGINGFACE, "token", false},
    {".cache/huggingface/stored_tokens", SCAN_INI, "hf_token", SCAN_HUGGINGFACE, NULL, false},
    {".codex/auth.json", SCAN_JSON, "OPENAI_API_KEY access_token refresh_token", SCAN_OPENAI, NULL,
     false},
    {".claude/.credentials.json", SCAN_JSON, "accessToken refreshToken", SCAN_ANTHROPIC, NULL,
     false},
    {".gemini/oauth_creds.json", SCAN_JSON, "access_token refresh_token", SCAN_GOOGLE_CREDENTIAL,
     NULL, false},
    {".config/sops/age/keys.txt", SCAN_LINES, NULL, SCAN_NONE, NULL, false},
    {".snowflake/*.toml", SCAN_INI, "password token", SCAN_DATABASE, NULL, false},
    {".env", SCAN_ENV, NULL, SCAN_NONE, NULL, false},
    {".bashrc", SCAN_ENV, NULL, SCAN_NONE, NULL, false},
    {".bash_profile", SCAN_ENV, NULL, SCAN_NONE, NULL, false},
    {".profile", SCAN_ENV, NULL, SCAN_NONE, NULL, false},
    {".zshrc", SCAN_ENV, NULL, SCAN_NONE, NULL, false},
    {".zshenv", SCAN_ENV, NULL, SCAN_NONE, NULL, false},
    {".zprofile", SCAN_ENV, NULL, SCAN_NONE, NULL, false},
    {".pam_environment", SCAN_ENV, NULL, SCAN_NONE, NULL, false},
    {".config/environment.d/*.conf", SCAN_ENV, NULL, SCAN_NONE, NULL, false},
    {".ssh/*", SCAN_LINES, NULL, SCAN_NONE, NULL, false},
    {"*.pem", SCAN_LINES, NULL, SCAN_NONE, NULL, false},
    {"*.key", SCAN_LINES, NULL, SCAN_NONE, NULL, false},
    {"*.p12", SCAN_WHOLE, NULL, SCAN_NONE, NULL, false},
    {"*.pfx", SCAN_WHOLE, NULL, SCAN_NONE, NULL, false},
    {"*.jks", SCAN_WHOLE, NULL, SCAN_NONE, NULL, false},
    {".keystore", SCAN_WHOLE, NULL, SCAN_NONE, NULL, false},
    {".bash_history", SCAN_HISTORY, NULL, SCAN_NONE, NULL, true},
    {".zsh_history", SCAN_HISTORY, NULL, SCAN_NONE, NULL, true},
    {".zhistory", SCAN_HISTORY, NULL, SCAN_NONE, NULL, true},
    {".histfile", SCAN_HISTORY, NULL, SCAN_NONE, NULL, true},
    {".sh_history", SCAN_HISTORY, NULL, SCAN_NONE, NULL, true},
    {".ash_history", SCAN_HISTORY, NULL, SCAN_NONE, NULL, true},
    {".local/share/fish/fish_history", SCAN_HISTORY, NULL, SCAN_NONE, NULL, true},
    {".python_history", SCAN_HISTORY, NULL, SCAN_NONE, NULL, true},
    {".node_repl_history", SCAN_HISTORY, NULL, SCAN_NONE, NULL, true},
    {".psql_history", SCAN_HISTORY, NULL, SCAN_NONE, NULL, true},
    {".mysql_history", SCAN_HISTORY, NULL, SCAN_NONE, NULL, true},
    {".rediscli_history", SCAN_HISTORY, NULL, SCAN_NONE, NULL, true},
};

static const struct known of_system[] = {
    {"/etc/environment", SCAN_ENV, NULL, SCAN_NONE, NULL, false},
    {"/etc/environment.d/*.conf", SCAN_ENV, NULL, SCAN_NONE, NULL, false},
    {"/etc/default/*", SCAN_ENV, NULL, SCAN_NONE, NULL, false},
    {"/etc/sysconfig/*", SCAN_ENV, NULL, SCAN_NONE, NULL, false},
    {"/etc/profile", SCAN_ENV, NULL, SCAN_NONE, NULL, false},
    {"/etc/profile.d/*.sh", SCAN_ENV, NULL, SCAN_NONE, NULL, false},
    {"/etc/bash.bashrc", SCAN_ENV, NULL, SCAN_NONE, NULL, false},
    {"/etc/crontab", SCAN_ENV, NULL, SCAN_NONE, NULL, false},
    {"/etc/cron.d/*", SCAN_ENV, NULL, SCAN_NONE, NULL, false},
    {"/etc/pip.conf", SCAN_INI, NULL, SCAN_NONE, NULL, false},
    {"/etc/npmrc", SCAN_INI, "_authToken _auth _password", SCAN_REGISTRY, NULL, false},
    {"/etc/boto.cfg", SCAN_INI, "aws_secret_access_key", SCAN_AWS_SECRET, NULL, false},
    {"/etc/mysql/debian.cnf", SCAN_INI, "password", SCAN_DATABASE, NULL, false},
    {"/etc/kubernetes/*.conf", SCAN_YAML, "token password client-key-data", SCAN_KUBERNETES, NULL,
     false},
    {"/etc/rancher/k3s/k3s.yaml", SCAN_YAML, "token password client-key-data", SCAN_KUBERNETES,
     NULL, false},
    {"/var/lib/kubelet/config.json", SCAN_JSON, "auth", SCAN_REGISTRY, NULL, false},
    {"/etc/ssl/private/*", SCAN_LINES, NULL, SCAN_NONE, NULL, false},
    {"/etc/pki/tls/private/*", SCAN_LINES, NULL, SCAN_NONE, NULL, false},
    {"/etc/*/*.key", SCAN_LINES, NULL, SCAN_NONE, NULL, false},
    {"/etc/*/*.p12", SCAN_WHOLE, NULL, SCAN_NONE, NULL, false},
    {"/etc/*/*.pfx", SCAN_WHOLE, NULL, SCAN_NONE, NULL, false},
    {"/etc/*/*.jks", SCAN_WHOLE, NULL, SCAN_NONE, NULL, false},
    {"/etc/*/*.keystore", SCAN_WHOLE, NULL, SCAN_NONE, NULL, false},
    {"/etc/letsencrypt/archive/*/privkey*.pem", SCAN_LINES, NULL, SCAN_NONE, NULL, false},
};

static void look(struct scan_ctx *ctx, const struct scan_root *root, const struct known *k)
{
    const struct scan_place place = {
        .source = k->format == SCAN_ENV       ? SCAN_SRC_ENVFILE
                  : k->format == SCAN_HISTORY ? SCAN_SRC_HISTORY
                                              : SCAN_SRC_CREDENTIAL,
        .format = k->format,
        .names = k->names,
        .kind = k->kind,
        .name = k->name,
        .binary = k->binary,
    };
    scan_glob(ctx, root, k->path, &place);
}

void scan_homes(struct scan_ctx *ctx)
{
    for (size_t i = 0; i < ctx->n_homes; i++) {
        struct scan_root root;
        if (!scan_home_root(ctx, &ctx->homes[i], &root)) {
            continue;
        }
        ctx->findings->looked.homes++;
        for (size_t k = 0; k < sizeof in_home / sizeof *in_home; k++) {
            look(ctx, &root, &in_home[k]);
        }
        scan_root_done(&root);
    }
}

/* systemd.exec(5): credentials in clear, each file one, by its name. */
static void store(struct scan_ctx *ctx, const char *dir)
{
    struct stat st;
    size_t n = 0;
    enum scan_skip why = SCAN_SKIPS;
    int fd = scan_open(&ctx->root, dir, true, &st, &why);
    char **names = fd >= 0 ? scan_names(fd, &n, &why) : NULL;
    scan_skipped(ctx, &ctx->root, dir, why);
    for (size_t i = 0; i < n; i++) {
        char path[NAME_MAX + 64], name[SCAN_NAME_MAX + 1];
        scan_name_show(name, att_slice_str(names[i]));
        struct att_slice text = att_slice_str(name);
        const struct scan_place place = {.source = SCAN_SRC_CREDENTIAL,
                                         .format = SCAN_WHOLE,
                                         .kind = scan_ends(text, "pin") ? SCAN_PIN : SCAN_GENERIC,
                                         .name = name,
                                         .binary = true};
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        scan_file(ctx, &ctx->root, path, &place);
    }
    free(names);
}

void scan_system(struct scan_ctx *ctx)
{
    for (size_t k = 0; k < sizeof of_system / sizeof *of_system; k++) {
        look(ctx, &ctx->root, &of_system[k]);
    }
    store(ctx, "/etc/credstore");
    store(ctx, "/run/credstore");
    store(ctx, "/usr/lib/credstore");
}
