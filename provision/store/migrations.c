/* The schema, as numbered steps that are applied in order and never edited once released. */
#include "provision/store/store_internal.h"

#include "attestd/base/clock.h"

const struct store_migration store_migrations[] = {
    {1,
     "CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL);"
     "CREATE TABLE accounts (id TEXT PRIMARY KEY, thumbprint TEXT NOT NULL UNIQUE,"
     " jwk TEXT NOT NULL, status TEXT NOT NULL, ticket TEXT NOT NULL, eab TEXT NOT NULL,"
     " contact TEXT NOT NULL, created_at BIGINT NOT NULL);"
     "CREATE TABLE hosts (id TEXT PRIMARY KEY, label TEXT NOT NULL, labels TEXT NOT NULL,"
     " state TEXT NOT NULL CHECK (state IN ('pending', 'approved', 'banned')),"
     " account TEXT NOT NULL, reason TEXT NOT NULL, manufacturer TEXT NOT NULL,"
     " model TEXT NOT NULL, version TEXT NOT NULL, ek_source TEXT NOT NULL, notes TEXT NOT NULL,"
     " created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, seen_at BIGINT NOT NULL);"
     "CREATE TABLE host_eks (ek TEXT PRIMARY KEY,"
     " host TEXT NOT NULL REFERENCES hosts (id) ON DELETE CASCADE, proven BIGINT NOT NULL);"
     "CREATE INDEX host_eks_host ON host_eks (host);"
     "CREATE TABLE tickets (kid TEXT PRIMARY KEY, mac_key BLOB NOT NULL, ek TEXT NOT NULL,"
     " label TEXT NOT NULL, uses_left BIGINT NOT NULL CHECK (uses_left >= 0),"
     " expires_at BIGINT NOT NULL, created_at BIGINT NOT NULL);"
     "CREATE TABLE aks (id TEXT PRIMARY KEY, account TEXT NOT NULL REFERENCES accounts (id),"
     " ek TEXT NOT NULL, host TEXT NOT NULL,"
     " state TEXT NOT NULL CHECK (state IN ('pending', 'valid', 'ended')),"
     " ended_reason TEXT NOT NULL, pcr_selection TEXT NOT NULL, logs TEXT NOT NULL,"
     " profile_boot TEXT NOT NULL, facts TEXT NOT NULL, cert TEXT NOT NULL, secret BLOB NOT NULL,"
     " nonce BLOB NOT NULL, pub BLOB NOT NULL, name BLOB NOT NULL, ek_pub BLOB NOT NULL, m1 BLOB "
     "NOT NULL,"
     " clock_ms BIGINT NOT NULL, reset_count BIGINT NOT NULL, restart_count BIGINT NOT NULL,"
     " safe BIGINT NOT NULL, firmware BLOB NOT NULL, created_at BIGINT NOT NULL,"
     " expires_at BIGINT NOT NULL);"
     "CREATE INDEX aks_host ON aks (host);"
     "CREATE INDEX aks_ek ON aks (ek);"
     "CREATE TABLE orders (id TEXT PRIMARY KEY, account TEXT NOT NULL REFERENCES accounts (id),"
     " host TEXT NOT NULL, ak TEXT NOT NULL, identifier_type TEXT NOT NULL,"
     " identifier TEXT NOT NULL, profile TEXT NOT NULL, status TEXT NOT NULL CHECK (status IN"
     " ('pending', 'ready', 'processing', 'valid', 'invalid')),"
     " chall_status TEXT NOT NULL CHECK (chall_status IN ('pending', 'valid', 'invalid')),"
     " error TEXT NOT NULL, token TEXT NOT NULL UNIQUE, pcr_selection TEXT NOT NULL,"
     " logs TEXT NOT NULL, policy TEXT NOT NULL, entry TEXT NOT NULL,"
     " entry_version BIGINT NOT NULL, clock TEXT NOT NULL, decision TEXT NOT NULL, cert TEXT NOT "
     "NULL,"
     " key_spki BLOB NOT NULL, created_at BIGINT NOT NULL, expires_at BIGINT NOT NULL,"
     " verdict_at BIGINT NOT NULL);"
     "CREATE INDEX orders_account ON orders (account);"
     "CREATE INDEX orders_expires ON orders (expires_at);"
     "CREATE TABLE certs (serial TEXT PRIMARY KEY, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,"
     " status TEXT NOT NULL CHECK (status IN ('intent', 'issued', 'abandoned', 'revoked')),"
     " subject TEXT NOT NULL, account TEXT NOT NULL, host TEXT NOT NULL, ord TEXT NOT NULL,"
     " profile TEXT NOT NULL, pem TEXT NOT NULL, decision TEXT NOT NULL, reason TEXT NOT NULL,"
     " tbs BLOB NOT NULL, not_before BIGINT NOT NULL, not_after BIGINT NOT NULL,"
     " created_at BIGINT NOT NULL, ended_at BIGINT NOT NULL);"
     "CREATE INDEX certs_host ON certs (host);"
     "CREATE INDEX certs_subject ON certs (subject);"
     "CREATE INDEX certs_status ON certs (status);"
     "CREATE TABLE entries (name TEXT PRIMARY KEY, spiffe_id TEXT NOT NULL UNIQUE,"
     " json TEXT NOT NULL, version BIGINT NOT NULL, updated_at BIGINT NOT NULL);"
     "CREATE TABLE policies (name TEXT PRIMARY KEY, json TEXT NOT NULL,"
     " version BIGINT NOT NULL, updated_at BIGINT NOT NULL);"
     "CREATE TABLE blobs (sha256 TEXT PRIMARY KEY, data BLOB NOT NULL,"
     " created_at BIGINT NOT NULL);"
     "CREATE TABLE audit (seq BIGINT PRIMARY KEY, at BIGINT NOT NULL, prev BLOB NOT NULL,"
     " hash BLOB NOT NULL UNIQUE, record TEXT NOT NULL);"},
    /* What a host merely lists is a claim beside others' claims, never the owner of the EK id. */
    {2, "CREATE TABLE ek_claims (id TEXT PRIMARY KEY, ek TEXT NOT NULL,"
        " host TEXT NOT NULL REFERENCES hosts (id) ON DELETE CASCADE);"
        "CREATE INDEX ek_claims_ek ON ek_claims (ek);"
        "CREATE INDEX ek_claims_host ON ek_claims (host);"
        "INSERT INTO ek_claims (id, ek, host)"
        " SELECT ek || '@' || host, ek, host FROM host_eks WHERE proven = 0 AND ek <> host;"
        "DELETE FROM host_eks WHERE proven = 0 AND ek <> host;"
        "ALTER TABLE tickets ADD COLUMN uses BIGINT NOT NULL DEFAULT 1;"
        "CREATE INDEX hosts_account ON hosts (account);"
        "CREATE INDEX accounts_ticket ON accounts (ticket);"
        "CREATE INDEX blobs_created ON blobs (created_at);"},
    {3, "CREATE INDEX aks_account ON aks (account);"},
    {4, "ALTER TABLE aks ADD COLUMN clock TEXT NOT NULL DEFAULT '';"
        "CREATE INDEX certs_created ON certs (created_at);"
        "CREATE INDEX certs_host_created ON certs (host, created_at);"
        "CREATE INDEX certs_host_end ON certs (host, not_after);"
        "CREATE INDEX certs_subject_end ON certs (subject, not_after);"
        "CREATE INDEX certs_bytes ON certs (not_after) WHERE tbs <> x'';"
        "DROP INDEX certs_host; DROP INDEX certs_subject;"},
    {5, "ALTER TABLE orders ADD COLUMN measured TEXT NOT NULL DEFAULT '';"},
    {6, "CREATE TABLE audit_leaves (seq BIGINT PRIMARY KEY, salt BLOB NOT NULL,"
        " leaf BLOB NOT NULL);"},
    /* RFC 8555 and RFC 9773 whole; orders for DNS names, which have several authorizations. */
    {7,
     "ALTER TABLE orders ADD COLUMN authz TEXT NOT NULL DEFAULT '';"
     "ALTER TABLE orders ADD COLUMN replaces TEXT NOT NULL DEFAULT '';"
     "ALTER TABLE certs ADD COLUMN replaced TEXT NOT NULL DEFAULT '';"
     "CREATE TABLE dns_orders (id TEXT PRIMARY KEY, account TEXT NOT NULL REFERENCES accounts "
     "(id),"
     " names TEXT NOT NULL, profile TEXT NOT NULL, status TEXT NOT NULL CHECK (status IN"
     " ('pending', 'ready', 'processing', 'valid', 'invalid')), error TEXT NOT NULL,"
     " cert TEXT NOT NULL, replaces TEXT NOT NULL, created_at BIGINT NOT NULL,"
     " expires_at BIGINT NOT NULL);"
     "CREATE INDEX dns_orders_account ON dns_orders (account, created_at);"
     "CREATE INDEX dns_orders_expires ON dns_orders (expires_at);"
     "CREATE TABLE dns_authzs (id TEXT PRIMARY KEY,"
     " ord TEXT NOT NULL REFERENCES dns_orders (id) ON DELETE CASCADE, account TEXT NOT NULL,"
     " name TEXT NOT NULL, status TEXT NOT NULL CHECK (status IN"
     " ('pending', 'processing', 'valid', 'invalid', 'deactivated')), token TEXT NOT NULL "
     "UNIQUE,"
     " error TEXT NOT NULL, created_at BIGINT NOT NULL, expires_at BIGINT NOT NULL,"
     " validated_at BIGINT NOT NULL);"
     "CREATE INDEX dns_authzs_ord ON dns_authzs (ord);"
     "CREATE INDEX dns_authzs_status ON dns_authzs (status);"
     "CREATE TABLE renewals (scope TEXT PRIMARY KEY, at BIGINT NOT NULL, reason TEXT NOT NULL);"},
    {8, "ALTER TABLE orders ADD COLUMN parent TEXT NOT NULL DEFAULT '';"},
    /* Authorities that were made after the first ones, which are files; who uses them; which hosts
     * have heard of them. */
    {9, "CREATE TABLE authorities (id TEXT PRIMARY KEY, kind TEXT NOT NULL,"
        " state TEXT NOT NULL CHECK (state IN"
        " ('requested', 'prepared', 'published', 'active', 'outgoing', 'retired')),"
        " keyref TEXT NOT NULL, root_keyref TEXT NOT NULL, chain TEXT NOT NULL, root TEXT NOT NULL,"
        " csr TEXT NOT NULL, view BIGINT NOT NULL, created_at BIGINT NOT NULL,"
        " published_at BIGINT NOT NULL, activated_at BIGINT NOT NULL, retired_at BIGINT NOT NULL);"
        "CREATE TABLE issuers (id TEXT PRIMARY KEY, name TEXT NOT NULL, generation BIGINT NOT NULL,"
        " lacks TEXT NOT NULL, seen_at BIGINT NOT NULL);"
        "ALTER TABLE hosts ADD COLUMN view_seen BIGINT NOT NULL DEFAULT 0;"},
    /* Who registered what, what waits for a second person, and requests that were done. */
    {10, "ALTER TABLE tickets ADD COLUMN created_by TEXT NOT NULL DEFAULT '';"
         "ALTER TABLE hosts ADD COLUMN registered_by TEXT NOT NULL DEFAULT '';"
         "CREATE TABLE proposals (id TEXT PRIMARY KEY, op TEXT NOT NULL, args TEXT NOT NULL,"
         " sha256 TEXT NOT NULL, effect TEXT NOT NULL, state TEXT NOT NULL CHECK (state IN"
         " ('open', 'approved', 'rejected')), by_who TEXT NOT NULL, by_id TEXT NOT NULL,"
         " decided_by TEXT NOT NULL, reason TEXT NOT NULL, created_at BIGINT NOT NULL,"
         " expires_at BIGINT NOT NULL, decided_at BIGINT NOT NULL);"
         "CREATE INDEX proposals_state ON proposals (state);"
         "CREATE TABLE admin_requests (id TEXT PRIMARY KEY, op TEXT NOT NULL, at BIGINT NOT NULL);"
         "CREATE INDEX admin_requests_at ON admin_requests (at);"},
    /* Orders for names that are no agents' are of two types. */
    {11, "ALTER TABLE dns_orders ADD COLUMN type TEXT NOT NULL DEFAULT 'dns';"
         "ALTER TABLE dns_authzs ADD COLUMN type TEXT NOT NULL DEFAULT 'dns';"
         "ALTER TABLE dns_authzs ADD COLUMN host TEXT NOT NULL DEFAULT '';"
         "ALTER TABLE dns_authzs ADD COLUMN ak TEXT NOT NULL DEFAULT '';"
         "ALTER TABLE dns_authzs ADD COLUMN spki TEXT NOT NULL DEFAULT '';"
         "ALTER TABLE dns_authzs ADD COLUMN decision TEXT NOT NULL DEFAULT '';"
         "ALTER TABLE certs ADD COLUMN firmware TEXT NOT NULL DEFAULT '';"
         "CREATE TABLE step_pending (secret TEXT PRIMARY KEY, ek TEXT NOT NULL,"
         " source TEXT NOT NULL, facts TEXT NOT NULL, spki BLOB NOT NULL, seq BIGINT NOT NULL,"
         " created_at BIGINT NOT NULL, expires_at BIGINT NOT NULL);"
         "CREATE INDEX step_pending_ek ON step_pending (ek, source, seq);"
         "CREATE INDEX step_pending_seq ON step_pending (seq);"
         "CREATE INDEX step_pending_expires ON step_pending (expires_at);"},
    /* What each minute's sweep and a rotation's last step ask of 100,000 hosts and a million
     * certificates (tests/unit/store/test_plans). */
    {12, "CREATE INDEX aks_ended ON aks (expires_at) WHERE state <> 'valid';"
         "CREATE INDEX certs_status_kind_end ON certs (status, kind, not_after);"
         "DROP INDEX certs_status;"},
    /* Keys that sign tokens (JWT-SVIDs). */
    {13, "CREATE TABLE jwt_keys (kid TEXT PRIMARY KEY, keyref TEXT NOT NULL, jwk TEXT NOT NULL,"
         " created_at BIGINT NOT NULL, active_at BIGINT NOT NULL);"},
    /* Allow lists of IMA, which boot policies name by digest. */
    {14, "CREATE TABLE allowlists (sha256 TEXT PRIMARY KEY, label TEXT NOT NULL,"
         " data BLOB NOT NULL, entries BIGINT NOT NULL, created_at BIGINT NOT NULL);"},
    /* Which of a host's HSM modules has an order's key. */
    {15, "ALTER TABLE orders ADD COLUMN hsm TEXT NOT NULL DEFAULT '';"},
    /* Bundles of other trust domains, and how the last look at each endpoint ended. */
    {16, "CREATE TABLE federated (name TEXT PRIMARY KEY, bundle TEXT NOT NULL,"
         " sha256 TEXT NOT NULL, source TEXT NOT NULL, outcome TEXT NOT NULL,"
         " reason TEXT NOT NULL, detail TEXT NOT NULL, sequence BIGINT NOT NULL,"
         " hint_s BIGINT NOT NULL, anew BIGINT NOT NULL, failures BIGINT NOT NULL,"
         " tried_at BIGINT NOT NULL, fetched_at BIGINT NOT NULL, changed_at BIGINT NOT NULL);"},
    /* An account's recent orders, which each newOrder counts, without reading the orders. */
    {17, "CREATE INDEX orders_account_recent ON orders (account, created_at, status);"
         "DROP INDEX orders_account;"},
    /* Hosts by what an operator asks of them: a state, page by page, how many there are of each,
     * and a label (tests/unit/store/test_plans). */
    {18, "CREATE INDEX hosts_state ON hosts (state, id);"
         "CREATE INDEX hosts_label ON hosts (label);"},
    /* Which issuer can use which key for tokens; changes of a bundle that have no record yet. */
    {19, "ALTER TABLE issuers ADD COLUMN jwt TEXT NOT NULL DEFAULT '';"
         "ALTER TABLE federated ADD COLUMN records_paid_at BIGINT NOT NULL DEFAULT 0;"
         "ALTER TABLE federated ADD COLUMN unrecorded BIGINT NOT NULL DEFAULT 0;"},
};
const size_t store_n_migrations = sizeof store_migrations / sizeof store_migrations[0];

/* One after the other; the newest is the schema's version (asked by
 * tests/unit/store). */
_Static_assert(sizeof store_migrations / sizeof store_migrations[0] == STORE_SCHEMA_VERSION,
               "the newest migration is the schema's version");

struct migrate {
    struct store *store;
    int64_t have;
};

static enum att_rc see_version(void *user, const struct store_row *row, struct att_err *err)
{
    (void)err;
    struct migrate *m = user;
    m->have = m->store->ops->row_int(row, 0);
    return ATT_OK;
}

static enum att_rc apply(void *user, struct store_tx *tx, struct att_err *err)
{
    struct migrate *m = user;
    const struct store_db_ops *ops = tx->store->ops;
    enum att_rc rc = ops->script(tx->con,
                                 "CREATE TABLE IF NOT EXISTS migrations"
                                 " (number BIGINT PRIMARY KEY, applied_at BIGINT NOT NULL)",
                                 err);
    if (!rc) {
        rc = store_exec(tx, "SELECT COALESCE(MAX(number), 0) FROM migrations", NULL, 0, see_version,
                        m, NULL, err);
    }
    if (rc) {
        return rc;
    }
    if (m->have > STORE_SCHEMA_VERSION) {
        return att_fail(err, ATT_E_UNSUPPORTED,
                        "store: the database has schema %lld, this program knows up to %d",
                        (long long)m->have, STORE_SCHEMA_VERSION);
    }
    for (size_t i = 0; i < store_n_migrations; i++) {
        if (store_migrations[i].number <= m->have) {
            continue;
        }
        rc = ops->script(tx->con, store_migrations[i].sql, err);
        if (!rc) {
            const struct store_value values[] = {STORE_VINT(store_migrations[i].number),
                                                 STORE_VINT(att_now_utc_s())};
            rc = store_exec(tx, "INSERT INTO migrations (number, applied_at) VALUES (?1, ?2)",
                            values, 2, NULL, NULL, NULL, err);
        }
        if (rc) {
            att_err_prefix(err, "migration %d", store_migrations[i].number);
            return rc;
        }
    }
    return ATT_OK;
}

/* On a database without tables the question itself fails: asked for first, in both dialects. */
static enum att_rc look(void *user, struct store_tx *tx, struct att_err *err)
{
    struct migrate *m = user;
    const char *sql = m->store->ops->shared
                          ? "SELECT COUNT(*) FROM pg_catalog.pg_class WHERE oid ="
                            " to_regclass('migrations')"
                          : "SELECT COUNT(*) FROM sqlite_master WHERE name = 'migrations'";
    enum att_rc rc = store_exec(tx, sql, NULL, 0, see_version, m, NULL, err);
    if (!rc && m->have) {
        rc = store_exec(tx, "SELECT COALESCE(MAX(number), 0) FROM migrations", NULL, 0, see_version,
                        m, NULL, err);
    }
    return rc;
}

enum att_rc store_schema(struct store *store, int64_t *ret_number, struct att_err *err)
{
    struct migrate m = {.store = store};
    enum att_rc rc = store_run(store, false, look, &m, err);
    if (!rc) {
        *ret_number = m.have;
    }
    return rc;
}

/* Who writes has the turn, in a shared database, too: of several issuers that start at once one
 * makes the tables and the others find them made. An issuer that has nothing to do waits for
 * nobody. */
enum att_rc store_migrate(struct store *store, struct att_err *err)
{
    struct migrate m = {.store = store};
    int64_t have = 0;
    enum att_rc rc = store->ops->shared ? store_schema(store, &have, err) : ATT_OK;
    if (rc || have == STORE_SCHEMA_VERSION) {
        return rc;
    }
    return store_run(store, true, apply, &m, err);
}
