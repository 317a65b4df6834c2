/* Writers that come while others are at it share one commit, and so one wait for the disk: who has
 * written hands the turn to the next instead of committing, and the last in the row (or the
 * BATCH_MAX-th) commits for all. Each is told of success only after that. What one of them wrote
 * stands between savepoints, so that its failure is its own. A single writer commits at once.
 *
 * A batch of nothing but soft writers is committed without waiting for the disk
 * (synchronous=NORMAL: SQLite then syncs the log with the next commit under FULL, or at a
 * checkpoint). SQLite takes the level between transactions only: so a soft writer may join the
 * others' batch, but the first other closes a soft one.
 *
 * Checkpoints are done by a thread of their own, so that no request waits for the copying of the
 * log into the database: most of it beside the writers, and what they added meanwhile, which is
 * little, in a turn of its own. The log can start anew after that. */
#include "provision/store/sqlite.h"

#include <stdlib.h>

#define BATCH_MAX        64
#define CHECKPOINT_PAGES 4000 /* 16 MiB: most pages are written again before they are copied */

struct store_batch {
    unsigned members, readers; /* readers: members that have not yet seen the result */
    bool done, lost;           /* lost: SQLite gave up the whole transaction */
    bool soft;
    enum att_rc rc;
    struct att_err why;
};

static enum att_rc command(struct store_writer *w, const char *sql, struct att_err *err)
{
    return store_sqlite_run(w->con, sql, NULL, 0, NULL, NULL, NULL, err);
}

static void take_turn(struct store_writer *w)
{
    pthread_mutex_lock(&w->lock);
    w->waiting++;
    while (w->busy) {
        pthread_cond_wait(&w->turn, &w->lock);
    }
    w->waiting--;
    w->busy = true;
    pthread_mutex_unlock(&w->lock);
}

static void give_turn(struct store_writer *w)
{
    pthread_mutex_lock(&w->lock);
    w->busy = false;
    pthread_cond_signal(&w->turn);
    pthread_mutex_unlock(&w->lock);
}

/* Commits for all members and tells them. */
static void close_batch(struct store_writer *w)
{
    struct store_batch *batch = w->open;
    if (!batch) {
        return;
    }
    w->open = NULL;
    if (!batch->lost && batch->members) {
        batch->rc = command(w, "COMMIT", &batch->why);
    }
    store_sqlite_rollback(w->con); /* nothing to do after a commit */
    if (!batch->members) {
        free(batch);
        return;
    }
    pthread_mutex_lock(&w->lock);
    batch->done = true;
    pthread_cond_broadcast(&w->committed);
    pthread_mutex_unlock(&w->lock);
}

/* With the turn: the next in the row goes on in this batch, or it is closed here. */
static void pass_on(struct store_writer *w)
{
    pthread_mutex_lock(&w->lock);
    bool more = w->waiting > 0; /* nobody leaves the row without having had the turn */
    pthread_mutex_unlock(&w->lock);
    struct store_batch *batch = w->open;
    if (!more || !batch || batch->lost || batch->members >= BATCH_MAX) {
        close_batch(w);
    }
    give_turn(w);
}

/* Prepared anew each time: SQLite acts on this one while it prepares it. */
static enum att_rc set_level(struct store_writer *w, bool soft, struct att_err *err)
{
    if (w->soft == soft) {
        return ATT_OK;
    }
    int code =
        sqlite3_exec(w->con->sqlite, soft ? "PRAGMA synchronous=NORMAL" : "PRAGMA synchronous=FULL",
                     NULL, NULL, NULL);
    if (code != SQLITE_OK) {
        return store_sqlite_fail(w->con, code, "synchronous", err);
    }
    w->soft = soft;
    return ATT_OK;
}

static enum att_rc open_batch(struct store_writer *w, bool soft, struct att_err *err)
{
    struct store_batch *batch = calloc(1, sizeof *batch);
    if (!batch) {
        return att_fail(err, ATT_E_NOMEM, "store: no memory");
    }
    batch->soft = soft;
    enum att_rc rc = set_level(w, soft, err);
    if (!rc) {
        rc = command(w, "BEGIN IMMEDIATE", err);
    }
    if (rc) {
        free(batch);
        return rc;
    }
    w->open = batch;
    return ATT_OK;
}

enum att_rc store_batch_enter(struct store_db *db, enum store_mode mode, struct store_con **ret_con,
                              struct att_err *err)
{
    struct store_writer *w = &db->writer;
    bool soft = mode == STORE_WRITE_SOFT;
    take_turn(w);
    if (w->open && w->open->soft && !soft) {
        close_batch(w);
    }
    w->savepoint = w->open != NULL; /* the first can be undone with the batch itself */
    enum att_rc rc = w->savepoint ? command(w, "SAVEPOINT member", err) : open_batch(w, soft, err);
    if (rc) {
        pass_on(w);
        return rc;
    }
    *ret_con = w->con;
    return ATT_OK;
}

/* One more member, if what it wrote stands. */
static enum att_rc join(struct store_writer *w, struct att_err *err)
{
    enum att_rc rc = w->savepoint ? command(w, "RELEASE member", err) : ATT_OK;
    if (!rc && sqlite3_get_autocommit(w->con->sqlite)) {
        rc = att_fail(err, ATT_E_IO, "store %s: the transaction was given up", w->con->db->path);
    }
    if (!rc) {
        w->open->members++;
    }
    return rc;
}

enum att_rc store_batch_leave(struct store_db *db, struct att_err *err)
{
    struct store_writer *w = &db->writer;
    struct att_err own = {0};
    enum att_rc rc = join(w, err ? err : &own);
    if (rc) {
        store_batch_undo(db, err ? err : &own);
        return rc;
    }
    struct store_batch *batch = w->open;
    batch->readers++;
    pass_on(w);
    pthread_mutex_lock(&w->lock);
    while (!batch->done) {
        pthread_cond_wait(&w->committed, &w->lock);
    }
    rc = batch->rc;
    if (rc && err) {
        *err = batch->why;
    }
    bool last = --batch->readers == 0;
    pthread_mutex_unlock(&w->lock);
    if (last) {
        free(batch);
    }
    return rc;
}

/* What the others in it are told: what the database said. Why this one was refused, if that is how
 * it took the error, is nothing of theirs. */
static void give_up(struct store_writer *w, struct store_batch *batch, const struct att_err *why)
{
    batch->rc = ATT_E_IO;
    if (why && why->rc && why->domain == ATT_DOM_SQLITE) {
        batch->why = *why;
        batch->rc = why->rc;
        return;
    }
    (void)att_fail(&batch->why, ATT_E_IO, "store %s: the transaction was given up",
                   w->con->db->path);
    att_err_reason(&batch->why, "store");
}

void store_batch_undo(struct store_db *db, const struct att_err *why)
{
    struct store_writer *w = &db->writer;
    struct store_batch *batch = w->open;
    if (!sqlite3_get_autocommit(w->con->sqlite)) {
        if (!batch->members) {
            close_batch(w);
        } else if (sqlite3_exec(w->con->sqlite, "ROLLBACK TO member; RELEASE member", NULL, NULL,
                                NULL) != SQLITE_OK) {
            batch->lost = true;
        }
    } else {
        batch->lost = true; /* a full disk does that: those before are undone, too */
    }
    if (w->open && batch->lost) {
        give_up(w, batch, why);
    }
    pass_on(w);
}

/* ---- checkpoints
 * ----------------------------------------------------------------------------------------- */

static int see_commit(void *user, sqlite3 *sqlite, const char *name, int pages)
{
    (void)sqlite;
    (void)name;
    struct store_writer *w = user;
    pthread_mutex_lock(&w->lock);
    w->wal_pages = pages;
    if (pages >= CHECKPOINT_PAGES) {
        pthread_cond_signal(&w->grown);
    }
    pthread_mutex_unlock(&w->lock);
    return SQLITE_OK;
}

/* What fails here (a full disk, a reader of old pages) is tried again after the next commit. */
static void checkpoint(struct store_writer *w)
{
    sqlite3 *sqlite = w->checkpoint_con->sqlite;
    (void)sqlite3_wal_checkpoint_v2(sqlite, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    take_turn(w);
    close_batch(w);
    (void)sqlite3_wal_checkpoint_v2(sqlite, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    give_turn(w);
}

static void *run_checkpointer(void *user)
{
    struct store_writer *w = user;
    pthread_mutex_lock(&w->lock);
    while (!w->stop) {
        if (w->wal_pages < CHECKPOINT_PAGES) {
            pthread_cond_wait(&w->grown, &w->lock);
            continue;
        }
        w->wal_pages = 0;
        pthread_mutex_unlock(&w->lock);
        checkpoint(w);
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

enum att_rc store_batch_init(struct store_db *db, struct att_err *err)
{
    struct store_writer *w = &db->writer;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->turn, NULL);
    pthread_cond_init(&w->committed, NULL);
    pthread_cond_init(&w->grown, NULL);
    enum att_rc rc = store_sqlite_con_open(db, &w->con, err);
    if (!rc) {
        rc = store_sqlite_con_open(db, &w->checkpoint_con, err);
    }
    if (rc) {
        return rc;
    }
    sqlite3_wal_hook(w->con->sqlite, see_commit, w);
    if (pthread_create(&w->checkpointer, NULL, run_checkpointer, w) != 0) {
        return att_fail(err, ATT_E_IO, "store %s: a thread cannot be started", db->path);
    }
    w->started = true;
    return ATT_OK;
}

void store_batch_done(struct store_db *db)
{
    struct store_writer *w = &db->writer;
    if (w->started) {
        pthread_mutex_lock(&w->lock);
        w->stop = true;
        pthread_cond_signal(&w->grown);
        pthread_mutex_unlock(&w->lock);
        pthread_join(w->checkpointer, NULL);
    }
    store_sqlite_con_free(w->checkpoint_con);
    store_sqlite_con_free(w->con);
    pthread_cond_destroy(&w->grown);
    pthread_cond_destroy(&w->committed);
    pthread_cond_destroy(&w->turn);
    pthread_mutex_destroy(&w->lock);
}
