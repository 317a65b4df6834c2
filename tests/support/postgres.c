#include "tests/support/postgres.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <libpq-fe.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_S 120

static char dir[96];
static pid_t server, owner;
static unsigned databases;

bool test_store_is_postgres(void)
{
    const char *store = getenv("ATT_TEST_STORE");
    return store && strcmp(store, "postgres") == 0;
}

static void spec_of(const char *database, char ret_spec[TEST_SPEC_MAX])
{
    snprintf(ret_spec, TEST_SPEC_MAX, "postgres:host=%s user=att dbname=%s", dir, database);
}

static bool skipped(int status)
{
    return WIFEXITED(status) && WEXITSTATUS(status) == 77;
}

static void be_server(void)
{
    char script[512];
    const char *source = getenv("ATT_SOURCE_DIR");
    int log;
    char path[128];
    snprintf(script, sizeof script, "%s/tests/support/postgres.sh", source ? source : ".");
    snprintf(path, sizeof path, "%s/log", dir);
    log = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (log < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0 || setpgid(0, 0) != 0) {
        _exit(1);
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    /* Its sanitizers' settings are nothing to the server. */
    execl("/bin/bash", "bash", script, "serve", dir, (char *)NULL);
    _exit(1);
}

static void show_log(void)
{
    char command[160];
    snprintf(command, sizeof command, "tail -n 40 '%s/log' >&2", dir);
    (void)!system(command);
}

void test_postgres_start(void)
{
    char spec[TEST_SPEC_MAX];
    spec_of("postgres", spec);
    server = fork();
    assert_true(server >= 0);
    if (server == 0) {
        be_server();
    }
    for (int i = 0; i < START_S * 20; i++) {
        int status;
        if (PQping(strchr(spec, ':') + 1) == PQPING_OK) {
            return;
        }
        if (waitpid(server, &status, WNOHANG) == server) {
            show_log();
            if (skipped(status)) {
                exit(77);
            }
            break;
        }
        usleep(50000);
    }
    show_log();
    fail_msg("PostgreSQL did not start in %s", dir);
}

void test_postgres_stop(void)
{
    if (server > 0) {
        kill(server, SIGQUIT);
        waitpid(server, NULL, 0);
        server = 0;
    }
}

void test_postgres_freeze(bool frozen)
{
    char command[128];
    /* The postmaster's children have sessions of their own, so by their parent. */
    snprintf(command, sizeof command, "pkill -%s -P %d; kill -%s %d", frozen ? "STOP" : "CONT",
             (int)server, frozen ? "STOP" : "CONT", (int)server);
    assert_int_equal(system(command), 0);
}

static void at_end(void)
{
    char command[160];
    if (getpid() != owner) {
        return;
    }
    if (server > 0) {
        kill(server, SIGCONT);
    }
    test_postgres_stop();
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    (void)!system(command);
}

static void first_start(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%.60s/att-pg-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(dir));
    assert_int_equal(chmod(dir, 0755), 0);
    owner = getpid();
    atexit(at_end);
    test_postgres_start();
}

static PGresult *ask(const char *spec, const char *sql)
{
    PGconn *con = PQconnectdb(strchr(spec, ':') + 1);
    if (PQstatus(con) != CONNECTION_OK) {
        fail_msg("%s", PQerrorMessage(con));
    }
    PGresult *result = PQexec(con, sql);
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
        fail_msg("%s: %s", sql, PQerrorMessage(con));
    }
    PQfinish(con);
    return result;
}

void test_postgres_database(char ret_spec[TEST_SPEC_MAX])
{
    char sql[96], name[24], admin[TEST_SPEC_MAX];
    if (!server) {
        first_start();
    }
    spec_of("postgres", admin);
    snprintf(name, sizeof name, "t%u", ++databases);
    snprintf(sql, sizeof sql, "CREATE DATABASE %s TEMPLATE template0 STRATEGY file_copy", name);
    PQclear(ask(admin, sql));
    spec_of(name, ret_spec);
}

void test_store_new(const char *folder, const char *name, char ret_spec[TEST_SPEC_MAX])
{
    if (test_store_is_postgres()) {
        test_postgres_database(ret_spec);
    } else {
        assert_true(snprintf(ret_spec, TEST_SPEC_MAX, "%s/%s", folder, name) < TEST_SPEC_MAX);
    }
}

struct first {
    char *text;
    size_t room;
    bool seen;
};

static int take(void *user, int n, char **values, char **names)
{
    struct first *first = user;
    (void)names;
    if (!first->seen && n > 0 && first->text) {
        snprintf(first->text, first->room, "%s", values[0] ? values[0] : "");
    }
    first->seen = true;
    return 0;
}

static void in_sqlite(const char *path, const char *sql, struct first *first)
{
    sqlite3 *db = NULL;
    char *error = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    sqlite3_busy_timeout(db, 10000);
    if (sqlite3_exec(db, sql, take, first, &error) != SQLITE_OK) {
        fail_msg("%s: %s", sql, error);
    }
    sqlite3_close(db);
}

void test_store_ask(const char *spec, const char *sql, char *ret, size_t room)
{
    if (ret) {
        ret[0] = 0;
    }
    if (strncmp(spec, "postgres:", 9) != 0) {
        in_sqlite(spec, sql, &(struct first){ret, room, false});
        return;
    }
    PGresult *result = ask(spec, sql);
    if (ret && PQntuples(result) > 0) {
        snprintf(ret, room, "%s", PQgetvalue(result, 0, 0));
    }
    PQclear(result);
}

void test_store_sql(const char *spec, const char *sql)
{
    test_store_ask(spec, sql, NULL, 0);
}
