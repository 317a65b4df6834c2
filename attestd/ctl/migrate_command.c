/* migrate scan: static keys of this machine, or of an image of one, and what replaces each. All
 * that is printed passes scan_escape or is one of our own words. */
#include "attestd/ctl/ctl.h"

#include "attestd/scan/scan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#define USERS_MAX 256
#define SHOWN_MAX (4 * SCAN_PATH_MAX)

struct job {
    struct scan_options options;
    enum scan_confidence least;
    bool fail;
    const char *paths[SCAN_PATHS_MAX], *users[USERS_MAX];
    char *texts[SCAN_PATHS_MAX + 1]; /* what of these is ours */
    size_t n_texts;
};

static const char *const confidences[] = {"none", "low", "medium", "high"};
static const char *const sources[SCAN_SOURCES] = {
    [SCAN_SRC_UNIT] = "unit",
    [SCAN_SRC_ENVFILE] = "environment-file",
    [SCAN_SRC_CREDENTIAL] = "credential-file",
    [SCAN_SRC_FILE] = "file",
    [SCAN_SRC_ENVIRON] = "process-environment",
    [SCAN_SRC_ARGUMENT] = "process-arguments",
    [SCAN_SRC_HISTORY] = "shell-history",
};

/* ---- the command line ---- */

static bool flag(const struct ctl_args *args, const char *name)
{
    return json_is_true(json_object_get(args->json, name));
}

static enum ctl_exit wrong(const char *option, const char *expected)
{
    fprintf(stderr, "attestctl: %s: expected %s\n", option, expected);
    return CTL_USAGE;
}

static enum ctl_exit take_users(const struct ctl_args *args, struct job *job)
{
    const char *list = json_string_value(json_object_get(args->json, "user"));
    char *rest = list ? strdup(list) : NULL, *part;
    if (!list) {
        return CTL_OK;
    }
    job->texts[job->n_texts++] = rest;
    while (rest && (part = strsep(&rest, ","))) {
        if (!part[0] || job->options.n_users == USERS_MAX) {
            return wrong("--user", "NAME or NAME,NAME…");
        }
        job->users[job->options.n_users++] = part;
    }
    job->options.users = job->users;
    return CTL_OK;
}

/* Paths go from the root; those of this machine may be relative. */
static enum ctl_exit take_paths(const struct ctl_args *args, struct job *job)
{
    const json_t *list = json_object_get(args->json, "paths");
    char here[SCAN_PATH_MAX] = "";
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *path = json_string_value(json_array_get(list, i));
        char *whole = NULL;
        if (i == SCAN_PATHS_MAX) {
            return wrong("PATH", "at most 256 of them");
        }
        if (path[0] != '/' && !job->options.root) {
            if (!getcwd(here, sizeof here) || asprintf(&whole, "%s/%s", here, path) < 0) {
                fputs("attestctl: the current folder has no path\n", stderr);
                return CTL_FAILED;
            }
            job->texts[job->n_texts++] = whole;
        }
        job->paths[job->options.n_paths++] = whole ? whole : path;
    }
    job->options.paths = job->paths;
    return CTL_OK;
}

static enum ctl_exit take_args(const struct ctl_args *args, struct job *job)
{
    const char *least = json_string_value(json_object_get(args->json, "min-confidence"));
    job->options.root = json_string_value(json_object_get(args->json, "root"));
    job->options.units = !flag(args, "no-units");
    job->options.homes = !flag(args, "no-files");
    job->options.processes = !flag(args, "no-processes");
    job->fail = flag(args, "fail");
    job->least = SCAN_LOW;
    for (int i = SCAN_LOW; least && i <= SCAN_HIGH + 1; i++) {
        if (i > SCAN_HIGH) {
            return wrong("--min-confidence", "low, medium or high");
        }
        if (strcmp(least, confidences[i]) == 0) {
            job->least = (enum scan_confidence)i;
            break;
        }
    }
    enum ctl_exit rc = take_users(args, job);
    return rc == CTL_OK ? take_paths(args, job) : rc;
}

/* ---- the writer ---- */

static json_t *escaped(const char *text)
{
    char shown[SHOWN_MAX];
    scan_escape(shown, sizeof shown, text);
    return json_string(shown);
}

static void set(json_t *object, const char *name, json_t *value)
{
    json_object_set_new(object, name, value);
}

static json_t *finding_json(const struct scan_finding *f)
{
    json_t *o = json_object();
    enum scan_way way = scan_kind_way(f->kind);
    set(o, "source", json_string(sources[f->source]));
    set(o, "kind", json_string(scan_kind_id(f->kind)));
    set(o, "confidence", json_string(confidences[f->confidence]));
    set(o, "name", json_string(f->name));
    set(o, f->pid ? "executable" : "path", escaped(f->path));
    if (f->line) {
        set(o, "line", json_integer(f->line));
    }
    if (f->at[0]) {
        set(o, "at", json_string(f->at));
    }
    if (f->unit[0]) {
        set(o, "unit", escaped(f->unit));
    }
    if (f->pid) {
        set(o, "pid", json_integer(f->pid));
        set(o, "moreProcesses", json_integer(f->more));
    } else {
        char mode[8];
        snprintf(mode, sizeof mode, "%04o", (unsigned)(f->mode & 07777));
        set(o, "mode", json_string(mode));
    }
    set(o, "uid", json_integer(f->uid));
    if (f->overridden) {
        set(o, "overridden", json_true());
    }
    set(o, "way", json_string(scan_way_id(way)));
    set(o, "replacedBy", json_string(scan_way_text(way)));
    return o;
}

static json_t *skipped_json(const struct scan_findings *found)
{
    json_t *list = json_array();
    for (int i = 0; i < SCAN_SKIPS; i++) {
        const struct scan_skipped *s = &found->skipped[i];
        json_t *examples = json_array();
        for (size_t k = 0; k < s->n_examples; k++) {
            json_t *one = json_object();
            set(one, "path", escaped(s->examples[k].path));
            if (s->examples[k].line) {
                set(one, "line", json_integer(s->examples[k].line));
            }
            json_array_append_new(examples, one);
        }
        if (s->n) {
            json_array_append_new(list, json_pack("{s:s, s:s, s:b, s:I, s:o}", "reason",
                                                  scan_skip_id((enum scan_skip)i), "text",
                                                  scan_skip_text((enum scan_skip)i), "notLookedAt",
                                                  scan_skip_matters((enum scan_skip)i) ? 1 : 0,
                                                  "count", (json_int_t)s->n, "examples", examples));
        } else {
            json_decref(examples);
        }
    }
    return list;
}

static void print_json(const struct job *job, const struct scan_findings *found)
{
    json_t *list = json_array();
    for (size_t i = 0; i < found->n; i++) {
        if (found->list[i].confidence >= job->least) {
            json_array_append_new(list, finding_json(&found->list[i]));
        }
    }
    att_autojson *all = json_pack(
        "{s:o, s:o, s:b, s:{s:I, s:I, s:I, s:I}}", "findings", list, "skipped", skipped_json(found),
        "complete", scan_findings_complete(found) ? 1 : 0, "looked", "files",
        (json_int_t)found->looked.files, "units", (json_int_t)found->looked.units, "homes",
        (json_int_t)found->looked.homes, "processes", (json_int_t)found->looked.processes);
    ctl_print_json(all);
}

static void print_finding(const struct scan_finding *f)
{
    char path[SHOWN_MAX], unit[SCAN_UNIT_MAX * 4 + 1];
    scan_escape(path, sizeof path, f->path);
    scan_escape(unit, sizeof unit, f->unit);
    printf("%-7s %-24s %s\n        ", confidences[f->confidence], scan_kind_id(f->kind), f->name);
    if (f->pid) {
        printf("pid %u%s %s", f->pid, f->source == SCAN_SRC_ARGUMENT ? ", arguments," : "", path);
        if (f->more) {
            printf(" and %u more", f->more);
        }
    } else if (f->line) {
        printf("%s:%u", path, f->line);
    } else {
        printf("%s", path);
    }
    printf("%s%s%s", f->at[0] && !f->pid ? " (" : "", f->pid ? "" : f->at,
           f->at[0] && !f->pid ? ")" : "");
    printf("%s%s, uid %u", unit[0] ? ", unit " : "", unit, (unsigned)f->uid);
    if (!f->pid) {
        printf(", mode %04o", (unsigned)(f->mode & 07777));
    }
    printf("%s\n        replaced by: %s\n", f->overridden ? ", overridden" : "",
           scan_way_id(scan_kind_way(f->kind)));
}

/* Of each reason the first few: all of them are in the JSON. */
static void print_skipped(const struct scan_findings *found)
{
    char path[SHOWN_MAX];
    for (int i = 0; i < SCAN_SKIPS; i++) {
        const struct scan_skipped *s = &found->skipped[i];
        if (s->n == 0) {
            continue;
        }
        printf("%s: %llu %s\n", scan_skip_matters((enum scan_skip)i) ? "skipped" : "noted",
               (unsigned long long)s->n, scan_skip_text((enum scan_skip)i));
        for (size_t k = 0; k < s->n_examples && k < 3; k++) {
            scan_escape(path, sizeof path, s->examples[k].path);
            if (s->examples[k].line) {
                printf("        %s:%u\n", path, s->examples[k].line);
            } else {
                printf("        %s\n", path);
            }
        }
    }
}

static void print_text(const struct job *job, const struct scan_findings *found, size_t n)
{
    bool used[SCAN_WAYS] = {false};
    for (size_t i = 0; i < found->n; i++) {
        if (found->list[i].confidence >= job->least) {
            print_finding(&found->list[i]);
            used[scan_kind_way(found->list[i].kind)] = true;
        }
    }
    for (int i = 0; i < SCAN_WAYS; i++) {
        if (used[i]) {
            printf("%s: %s\n", scan_way_id((enum scan_way)i), scan_way_text((enum scan_way)i));
        }
    }
    print_skipped(found);
    printf("%zu findings in %llu files, %llu units, %llu homes and %llu processes%s\n", n,
           (unsigned long long)found->looked.files, (unsigned long long)found->looked.units,
           (unsigned long long)found->looked.homes, (unsigned long long)found->looked.processes,
           scan_findings_complete(found) ? "" : "; not everything was looked at");
}

/* ---- all of it ---- */

static void no_dumps(void)
{
    const struct rlimit none = {0, 0};
    (void)setrlimit(RLIMIT_CORE, &none);
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

static enum ctl_exit run(const struct ctl_ctx *ctx, const struct job *job)
{
    struct scan_findings found = {0};
    struct att_err err = {0};
    size_t n = 0;
    no_dumps();
    if (scan_run(&job->options, &found, &err) != ATT_OK) {
        return ctl_report(&err);
    }
    for (size_t i = 0; i < found.n; i++) {
        n += found.list[i].confidence >= job->least;
    }
    if (ctx->json) {
        print_json(job, &found);
    } else {
        print_text(job, &found, n);
    }
    bool clean = n == 0 && scan_findings_complete(&found);
    scan_findings_done(&found);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fputs("attestctl: standard output: not all of it could be written\n", stderr);
        return CTL_FAILED;
    }
    return job->fail && !clean ? CTL_FAILED : CTL_OK;
}

enum ctl_exit ctl_migrate_scan(const struct ctl_ctx *ctx, const struct ctl_args *args,
                               const json_t *result)
{
    struct job *job = calloc(1, sizeof *job);
    (void)result;
    enum ctl_exit rc = job ? take_args(args, job) : CTL_FAILED;
    if (rc == CTL_OK) {
        rc = run(ctx, job);
    }
    for (size_t i = 0; job && i < job->n_texts; i++) {
        free(job->texts[i]);
    }
    free(job);
    return rc;
}
