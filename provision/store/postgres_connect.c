/* A connection to PostgreSQL: its options, its making, waiting for its answers with a deadline. */
#include "provision/store/postgres.h"

#include "attestd/base/clock.h"
#include "attestd/base/io.h"
#include "attestd/base/secret.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PASSWORD_MAX 1024
#define VERSION_MIN  130000
#define POLL_MS      60000

/* ---- options
 * ------------------------------------------------------------------------------------- */

static bool set_option(struct store_db *db, const char *key, const char *value)
{
    if (db->n_options == STORE_PG_OPTIONS_MAX) {
        return false;
    }
    char *k = strdup(key), *v = strdup(value);
    if (!k || !v) {
        free(k);
        free(v);
        return false;
    }
    db->keys[db->n_options] = k;
    db->values[db->n_options++] = v;
    return true;
}

static const char *option(const struct store_db *db, const char *key)
{
    for (size_t i = 0; i < db->n_options; i++) {
        if (strcmp(db->keys[i], key) == 0) {
            return db->values[i];
        }
    }
    return NULL;
}

void store_pg_options_done(struct store_db *db)
{
    for (size_t i = 0; i < db->n_options; i++) {
        free(db->keys[i]);
        free(db->values[i]);
    }
    db->n_options = 0;
    free(db->password_file);
    db->password_file = NULL;
}

static bool in_environment(const char *name)
{
    const char *value = getenv(name);
    return value && *value;
}

/* All hosts named are folders of unix sockets (or none is named). What libpq would take from a
 * service's file is not known here, so that is a network. */
static bool local(const struct store_db *db)
{
    if (option(db, "service") || in_environment("PGSERVICE") || option(db, "hostaddr") ||
        in_environment("PGHOSTADDR")) {
        return false;
    }
    const char *host = option(db, "host");
    host = host && *host ? host : getenv("PGHOST");
    while (host && *host) {
        if (*host != '/' && *host != '@' && *host != ',') {
            return false;
        }
        host = strchr(host, ',');
        host = host ? host + 1 : NULL;
    }
    return true;
}

/* What stands in for what is not said. Over a network nothing less than a server that proves its
 * name is assumed; who wants less says so. Of several servers the one that takes writes is ours. */
static bool fill_options(struct store_db *db)
{
    const char *const fill[][2] = {{"connect_timeout", "3"},
                                   {"keepalives_idle", "5"},
                                   {"keepalives_interval", "3"},
                                   {"keepalives_count", "3"},
                                   {"tcp_user_timeout", "10000"},
                                   {"target_session_attrs", "read-write"},
                                   {"sslmode", local(db) ? "disable" : "verify-full"},
                                   {"fallback_application_name", "attest-issuerd"},
                                   {"client_encoding", "UTF8"}};
    bool ok = true;
    for (size_t i = 0; i < sizeof fill / sizeof fill[0]; i++) {
        ok = ok && (option(db, fill[i][0]) || set_option(db, fill[i][0], fill[i][1]));
    }
    const char *host = option(db, "host"), *name = option(db, "dbname");
    snprintf(db->where, sizeof db->where, "postgres %.80s/%.60s", host ? host : "local",
             name ? name : "");
    return ok;
}

enum att_rc store_pg_options(struct store_db *db, const char *conninfo, struct att_err *err)
{
    char *why = NULL;
    PQconninfoOption *options = PQconninfoParse(conninfo, &why);
    PQfreemem(why); /* may quote a password */
    if (!options) {
        return att_fail(err, ATT_E_INVAL,
                        "store: expected postgres://HOST/DATABASE?OPTION=VALUE or "
                        "postgres:KEY=VALUE …, as libpq reads them");
    }
    enum att_rc rc = ATT_OK;
    for (PQconninfoOption *o = options; o->keyword && !rc; o++) {
        if (!o->val) {
            continue;
        }
        if (strcmp(o->keyword, "password") == 0 || strcmp(o->keyword, "sslpassword") == 0) {
            rc = att_fail(err, ATT_E_INVAL,
                          "store: a %s in the connection string; expected it in the file that "
                          "store_password_file names",
                          o->keyword);
        } else if (!set_option(db, o->keyword, o->val)) {
            rc = att_fail(err, ATT_E_NOMEM, "store: no memory");
        }
    }
    PQconninfoFree(options);
    if (!rc && !fill_options(db)) {
        rc = att_fail(err, ATT_E_NOMEM, "store: no memory");
    }
    return rc;
}

/* ---- waiting
 * ---------------------------------------------------------------------------------- */

/* The SQLSTATE's five characters as a number. */
static uint64_t state_number(const char *state)
{
    uint64_t n = 0;
    for (; *state; state++) {
        n = n << 8 | (uint8_t)*state;
    }
    return n;
}

struct meaning {
    const char *state; /* a whole SQLSTATE, or its class */
    enum att_rc rc;
    const char *reason;
    bool lost;
};

/* https://www.postgresql.org/docs/current/errcodes-appendix.html; the first that fits. */
static const struct meaning meanings[] = {
    {"23505", ATT_E_EXISTS, "exists", false},
    {"23", ATT_E_CONFLICT, "conflict", false},
    {"40", ATT_E_RETRY, STORE_BUSY, false},
    {"55P03", ATT_E_RETRY, STORE_BUSY, false}, /* lock_timeout */
    {"57014", ATT_E_RETRY, STORE_BUSY, false}, /* statement_timeout */
    {"53100", ATT_E_IO, "diskFull", false},
    {"53", ATT_E_UNREACHABLE, "storeDown", true}, /* no memory, no connections */
    {"57P", ATT_E_UNREACHABLE, "storeDown", true},
    {"08", ATT_E_UNREACHABLE, "storeDown", true},
    {"25P", ATT_E_UNREACHABLE, "storeDown", true},   /* idle_in_transaction_session_timeout */
    {"25006", ATT_E_UNREACHABLE, "storeDown", true}, /* it became a standby */
    {"22021", ATT_E_INVAL, "notUtf8", false},
    {"XX", ATT_E_IO, "storeCorrupt", false},
    {"", ATT_E_IO, "store", false},
};

static enum att_rc failed(struct store_con *con, const PGresult *result, const char *what,
                          struct att_err *err)
{
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    state = state ? state : "";
    if (con->mode == STORE_READ && strcmp(state, "25006") == 0) { /* a closure of ours */
        return att_fail(err, ATT_E_INTERNAL, "%s: %.120s in a transaction that only reads",
                        con->db->where, what);
    }
    const struct meaning *m = meanings;
    while (strncmp(m->state, state, strlen(m->state)) != 0) {
        m++;
    }
    con->lost = con->lost || m->lost || PQstatus(con->pg) != CONNECTION_OK;
    enum att_rc rc =
        att_fail_native(err, m->rc, ATT_DOM_POSTGRES, state_number(state), "%s: %.120s: %.160s",
                        con->db->where, what, text ? text : PQerrorMessage(con->pg));
    att_err_reason(err, m->reason);
    return rc;
}

enum att_rc store_pg_lost(struct store_con *con, const char *what, struct att_err *err)
{
    con->lost = true;
    const char *text = PQerrorMessage(con->pg);
    enum att_rc rc =
        att_fail_native(err, ATT_E_UNREACHABLE, ATT_DOM_POSTGRES, 0, "%s: %.120s: %.160s",
                        con->db->where, what, text && *text ? text : "no answer in time");
    att_err_reason(err, "storeDown");
    return rc;
}

static bool wait_socket(struct store_con *con, short events, int64_t deadline_ms)
{
    struct pollfd fd = {.fd = PQsocket(con->pg), .events = events};
    for (;;) {
        int64_t left = deadline_ms - att_boottime_ms();
        if (left <= 0 || fd.fd < 0) {
            return false;
        }
        int n = poll(&fd, 1, left < POLL_MS ? (int)left : POLL_MS);
        if (n > 0) {
            return true;
        }
        if (n < 0 && errno != EINTR) {
            return false;
        }
    }
}

/* The next result has come, or the connection is lost (false). */
static bool wait_result(struct store_con *con, int64_t deadline_ms)
{
    int unsent = PQflush(con->pg);
    while (unsent == 1) {
        if (!wait_socket(con, POLLIN | POLLOUT, deadline_ms) || !PQconsumeInput(con->pg)) {
            return false;
        }
        unsent = PQflush(con->pg);
    }
    while (unsent == 0 && PQisBusy(con->pg)) {
        if (!wait_socket(con, POLLIN, deadline_ms) || !PQconsumeInput(con->pg)) {
            return false;
        }
    }
    return unsent == 0;
}

static bool good(const PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);
    return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
}

enum att_rc store_pg_finish(struct store_con *con, const char *what, int64_t limit_ms,
                            PGresult **ret_result, struct att_err *err)
{
    int64_t deadline_ms = att_boottime_ms() + limit_ms;
    PGresult *last = NULL;
    enum att_rc rc = ATT_OK;
    for (;;) {
        if (!wait_result(con, deadline_ms)) {
            rc = rc ? rc : store_pg_lost(con, what, err);
            con->lost = true;
            break;
        }
        PGresult *result = PQgetResult(con->pg);
        if (!result) {
            break;
        }
        if (!rc && !good(result)) {
            rc = failed(con, result, what, err);
        }
        PQclear(last);
        last = result;
    }
    if (!rc && ret_result) {
        *ret_result = last;
    } else {
        PQclear(last);
    }
    return rc;
}

enum att_rc store_pg_command(struct store_con *con, const char *sql, int64_t limit_ms,
                             PGresult **ret_result, struct att_err *err)
{
    return PQsendQuery(con->pg, sql) ? store_pg_finish(con, sql, limit_ms, ret_result, err)
                                     : store_pg_lost(con, sql, err);
}

/* ---- making
 * ----------------------------------------------------------------------------------- */

/* Read for each connection, so that it can be changed while we run. */
static enum att_rc read_password(const struct store_db *db, char ret[PASSWORD_MAX + 1],
                                 struct att_err *err)
{
    att_autobuf text = {0};
    struct stat st;
    if (db->password_file[0] != '/') {
        return att_fail(
            err, ATT_E_INVAL,
            "store_password_file %s: systemd gave this process no credentials: expected "
            "LoadCredential= in its unit; a command beside it: "
            "systemd-run -P --wait -p LoadCredential=...",
            db->password_file);
    }
    enum att_rc rc = att_io_read_file(db->password_file, PASSWORD_MAX, &text, err);
    if (!rc && stat(db->password_file, &st) == 0 && (st.st_mode & 07)) {
        rc = att_fail(err, ATT_E_INVAL, "store_password_file %s: everybody may read it",
                      db->password_file);
    }
    while (!rc && text.len && (text.ptr[text.len - 1] == '\n' || text.ptr[text.len - 1] == '\r')) {
        text.len--;
    }
    if (!rc && (text.len == 0 || memchr(text.ptr, 0, text.len))) {
        rc = att_fail(err, ATT_E_INVAL, "store_password_file %s: holds no password",
                      db->password_file);
    }
    if (!rc) {
        memcpy(ret, text.ptr, text.len);
        ret[text.len] = 0;
    }
    if (text.ptr) {
        att_wipe(text.ptr, text.len);
    }
    return rc;
}

static PGconn *dial(const struct store_db *db, const char *password)
{
    const char *keys[STORE_PG_OPTIONS_MAX + 2] = {0}, *values[STORE_PG_OPTIONS_MAX + 2] = {0};
    size_t n = 0;
    for (; n < db->n_options; n++) {
        keys[n] = db->keys[n];
        values[n] = db->values[n];
    }
    if (password[0]) {
        keys[n] = "password";
        values[n] = password;
    }
    return PQconnectdbParams(keys, values, 0);
}

static void ignore_notice(void *user, const PGresult *result)
{
    (void)user;
    (void)result;
}

/* The server's own limits: an issuer that hangs, or is cut off, does not keep the others from
 * writing. Nobody's default takes the durability of a commit away. */
static const char session[] =
    "SET statement_timeout = '15s'; SET lock_timeout = '10s';"
    "SET idle_in_transaction_session_timeout = '15s';"
    "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 3; SET tcp_keepalives_count = 3;"
    "SET tcp_user_timeout = '10s'; SET standard_conforming_strings = on;"
    "SELECT CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')"
    " THEN set_config('synchronous_commit', 'on', false) END";

static enum att_rc check_server(struct store_con *con, struct att_err *err)
{
    const char *encoding = PQparameterStatus(con->pg, "server_encoding");
    if (PQserverVersion(con->pg) < VERSION_MIN) {
        return att_fail(err, ATT_E_UNSUPPORTED, "%s: PostgreSQL %d; expected 13 or later",
                        con->db->where, PQserverVersion(con->pg) / 10000);
    }
    if (!encoding || strcmp(encoding, "UTF8") != 0) {
        return att_fail(err, ATT_E_UNSUPPORTED,
                        "%s: the database's encoding is %s; expected UTF8 (CREATE DATABASE … "
                        "ENCODING 'UTF8')",
                        con->db->where, encoding ? encoding : "unknown");
    }
    return ATT_OK;
}

enum att_rc store_pg_connect(struct store_db *db, struct store_con **ret_con, struct att_err *err)
{
    char password[PASSWORD_MAX + 1] = "";
    enum att_rc rc = db->password_file ? read_password(db, password, err) : ATT_OK;
    if (rc) {
        return rc;
    }
    struct store_con *con = calloc(1, sizeof *con);
    if (con) {
        con->db = db;
        con->pg = dial(db, password);
    }
    att_wipe(password, sizeof password);
    if (!con || !con->pg) {
        store_pg_con_free(con);
        return att_fail(err, ATT_E_NOMEM, "store: no memory for a connection");
    }
    if (PQstatus(con->pg) != CONNECTION_OK) {
        rc = store_pg_lost(con, "connecting", err);
    } else {
        PQsetNoticeReceiver(con->pg, ignore_notice, NULL);
        rc = PQsetnonblocking(con->pg, 1) == 0 ? check_server(con, err)
                                               : store_pg_lost(con, "connecting", err);
    }
    if (!rc) {
        rc = store_pg_command(con, session, STORE_PG_STATEMENT_MS, NULL, err);
    }
    if (rc) {
        store_pg_con_free(con);
        return rc;
    }
    *ret_con = con;
    return ATT_OK;
}

void store_pg_con_free(struct store_con *con)
{
    if (con) {
        PQfinish(con->pg);
        free(con);
    }
}
