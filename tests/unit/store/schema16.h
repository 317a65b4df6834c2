/* A store as schema 16 left it, with a row in each table that has changed since, and what an
 * upgrade has made of them: for both databases (test_store, test_postgres). */
#ifndef ATT_TESTS_STORE_SCHEMA16_H
#define ATT_TESTS_STORE_SCHEMA16_H

#include "provision/store/store_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const char schema_16[] =
    "DROP INDEX orders_account_recent; CREATE INDEX orders_account ON orders (account);"
    "DROP INDEX hosts_state; DROP INDEX hosts_label;"
    "ALTER TABLE issuers DROP COLUMN jwt;"
    "ALTER TABLE federated DROP COLUMN records_paid_at;"
    "ALTER TABLE federated DROP COLUMN unrecorded;"
    "DELETE FROM migrations WHERE number > 16;"
    "INSERT INTO issuers (id, name, generation, lacks, seen_at) VALUES ('i1', 'a:/s', 3, '', 7);"
    "INSERT INTO federated (name, bundle, sha256, source, outcome, reason, detail, sequence, "
    "hint_s,"
    " anew, failures, tried_at, fetched_at, changed_at) VALUES ('p.example', '{}', 'aa', "
    "'endpoint',"
    " 'updated', '', '', 4, 300, 0, 1, 10, 9, 8);";

static enum att_rc see_upgraded(void *user, struct store_tx *tx, struct att_err *err)
{
    struct store_issuer issuer = {0};
    struct store_federated federated = {0};
    (void)user;
    enum att_rc rc = store_get(tx, &store_issuers, "i1", &issuer, err);
    rc = rc ? rc : store_get(tx, &store_federated, "p.example", &federated, err);
    if (!rc) {
        assert_string_equal(issuer.name, "a:/s");
        assert_string_equal(issuer.jwt, "");
        assert_int_equal(issuer.seen_at, 7);
        assert_int_equal(federated.changed_at, 8);
        assert_int_equal(federated.records_paid_at, 0);
        assert_int_equal(federated.unrecorded, 0);
    }
    store_record_done(&store_issuers, &issuer);
    store_record_done(&store_federated, &federated);
    return rc;
}

#endif
