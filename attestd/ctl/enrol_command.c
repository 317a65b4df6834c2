/* enrol: the ticket is typed or pasted without echo, or piped in; never an argument, never a file
 * of ours. */
#include "attestd/ctl/ctl.h"

#include "attestd/base/secret.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#define TICKET_MAX ((size_t)16 << 10) /* as attestd reads */

static volatile sig_atomic_t caught;

static void on_signal(int number)
{
    caught = number;
}

/* ---- the terminal ---- */

static const int ending[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
#define ENDING_COUNT (sizeof ending / sizeof ending[0])

struct quiet {
    struct termios before;
    struct sigaction actions[ENDING_COUNT], stop;
};

/* Signals interrupt read(2), so that the echo comes back before we end. */
static bool quiet_begin(struct quiet *quiet)
{
    if (tcgetattr(STDIN_FILENO, &quiet->before) != 0) {
        return false;
    }
    struct sigaction note = {.sa_handler = on_signal}, ignore = {.sa_handler = SIG_IGN};
    for (size_t i = 0; i < ENDING_COUNT; i++) {
        sigaction(ending[i], &note, &quiet->actions[i]);
    }
    sigaction(SIGTSTP, &ignore, &quiet->stop);
    struct termios silent = quiet->before;
    silent.c_lflag &= ~(tcflag_t)(ECHO | ECHONL);
    return tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent) == 0;
}

/* What is left of a paste does not reach the shell. */
static void quiet_end(const struct quiet *quiet)
{
    (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet->before);
    sigaction(SIGTSTP, &quiet->stop, NULL);
    for (size_t i = 0; i < ENDING_COUNT; i++) {
        sigaction(ending[i], &quiet->actions[i], NULL);
    }
}

/* ---- reading ---- */

/* At a terminal an empty line ends the ticket, and so does the brace that closes it. */
static bool typed_all(const uint8_t *text, size_t len)
{
    if (len == 0 || text[len - 1] != '\n') {
        return false;
    }
    size_t end = len;
    while (end > 0 && (text[end - 1] == '\n' || text[end - 1] == ' ')) {
        end--;
    }
    return end == 0 || text[end - 1] == '}' || (len >= 2 && text[len - 2] == '\n');
}

static enum att_rc read_all(struct att_secret *text, size_t *ret_len, bool terminal,
                            struct att_err *err)
{
    size_t len = 0;
    while (!(terminal && typed_all(text->ptr, len))) {
        ssize_t got = caught ? -1 : read(STDIN_FILENO, text->ptr + len, text->len - len);
        if (caught) {
            return att_fail(err, ATT_E_GONE, "interrupted");
        }
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return att_fail_errno(err, ATT_E_IO, "standard input");
        }
        if (got == 0) {
            break;
        }
        len += (size_t)got;
        if (len > TICKET_MAX) {
            return att_fail(err, ATT_E_LIMIT, "the ticket is longer than %zu bytes", TICKET_MAX);
        }
    }
    while (len > 0 && (text->ptr[len - 1] == '\n' || text->ptr[len - 1] == ' ')) {
        len--;
    }
    *ret_len = len;
    return len ? ATT_OK : att_fail(err, ATT_E_INVAL, "no ticket was given");
}

static enum att_rc read_ticket(struct att_secret *text, size_t *ret_len, struct att_err *err)
{
    if (!isatty(STDIN_FILENO)) {
        return read_all(text, ret_len, false, err);
    }
    struct quiet quiet;
    if (!quiet_begin(&quiet)) {
        return att_fail_errno(err, ATT_E_IO, "the terminal's echo cannot be switched off");
    }
    fputs("Ticket (paste the JSON text, it is not shown; Enter ends it): ", stderr);
    enum att_rc rc = read_all(text, ret_len, true, err);
    quiet_end(&quiet);
    fputc('\n', stderr);
    return rc;
}

/* ---- the command ---- */

static enum att_rc make_args(json_t **ret_args, struct att_err *err)
{
    att_autosecret text = {0};
    size_t len = 0;
    enum att_rc rc = att_secret_new(&text, TICKET_MAX + 1, err);
    if (rc == ATT_OK) {
        rc = read_ticket(&text, &len, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    json_t *ticket = json_stringn((const char *)text.ptr, len);
    *ret_args = ticket ? json_pack("{s:o}", "ticket", ticket) : NULL;
    return *ret_args ? ATT_OK : att_fail(err, ATT_E_PARSE, "the ticket: expected UTF-8 text");
}

static void print_outcome(const json_t *result)
{
    char state[32], id[80], account[600];
    const char *word = ctl_text(result, "state", state, sizeof state);
    const char *ek = ctl_text(result, "ekId", id, sizeof id);
    printf("%s\n  EK id    %s\n  account  %s\n", word, ek,
           ctl_text(result, "account", account, sizeof account));
    if (strcmp(word, "pending") == 0) {
        printf("At the issuer: attestctl host approve %s\n", ek);
    }
}

enum ctl_exit ctl_enrol_run(const struct ctl_ctx *ctx, const struct ctl_args *args,
                            const json_t *result)
{
    (void)args;
    (void)result;
    struct att_err err = {0};
    att_autojson *request = NULL, *answer = NULL;
    enum att_rc got = make_args(&request, &err);
    if (caught) {
        raise((int)caught); /* the ticket is wiped, the echo is back: as if we had not looked */
    }
    if (got != ATT_OK) {
        return ctl_report(&err);
    }
    enum ctl_exit rc = ctl_call(ctx, false, "host.enrol", request, &answer);
    if (rc != CTL_OK) {
        return rc;
    }
    if (ctx->json) {
        ctl_print_json(answer);
    } else {
        print_outcome(answer);
    }
    return CTL_OK;
}
