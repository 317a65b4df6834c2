/* Lists that come in pages: what is there all the while is in exactly one page, whatever comes and
 * goes between them; wrong cursors and limits; who asks for no page. */
#include "tests/unit/issuer/admin_stage.h"

#define HOSTS 430

static void one_entry(struct rig *r, const char *name, const char *selector)
{
    char text[400];
    snprintf(text, sizeof text,
             "trust_domain: bank.example\nagents:\n  - name: %s\n    owner: x@bank.example\n"
             "    hosts: [ \"label:%s\" ]\n    workload: { uid: 1001 }\n    key: tpm\n"
             "    profile: trading\n",
             name, selector);
    rig_admin_done(r, "entry.apply", json_pack("{s:s, s:s}", "text", text, "filename", "e.yaml"));
}

/* Ids of 64 digits in the order of i. */
static const char *id_of(int i)
{
    static char id[4][65];
    static unsigned turn;
    char *at = id[turn++ % 4];
    snprintf(at, 65, "%08x%056x", (unsigned)i * 16u, 7u);
    return at;
}

static enum att_rc put_host(struct store_tx *tx, const char *id, const char *label,
                            const char *labels, const char *state, struct att_err *err)
{
    struct store_host host = {0};
    enum att_rc rc = issuer_host_new(id, state, "inventory", rig_time, &host, err);
    assert_true(issuer_set(&host.label, label) && issuer_set(&host.labels, labels));
    rc = rc ? rc : store_insert(tx, &store_hosts, &host, err);
    store_record_done(&store_hosts, &host);
    return rc;
}

struct more {
    int from, n, step;
    const char *labels; /* of each; NULL: none */
};

static enum att_rc put_hosts(void *user, struct store_tx *tx, struct att_err *err)
{
    const struct more *m = user;
    enum att_rc rc = ATT_OK;
    for (int i = 0; !rc && i < m->n; i++) {
        int at = m->from + i * m->step;
        char label[32];
        snprintf(label, sizeof label, "host-%d", at);
        rc = put_host(tx, id_of(at), label, m->labels ? m->labels : "{}",
                      at % 10 ? STORE_HOST_APPROVED : STORE_HOST_PENDING, err);
    }
    return rc;
}

static void add_hosts(struct rig *r, int from, int n, int step, const char *labels)
{
    struct more m = {from, n, step, labels};
    rig_ok(store_run(r->issuer->store, true, put_hosts, &m, &err));
}

static enum att_rc drop_host(void *user, struct store_tx *tx, struct att_err *err)
{
    return store_delete(tx, &store_hosts, user, err);
}

static void remove_host(struct rig *r, int i)
{
    rig_ok(store_run(r->issuer->store, true, drop_host, (void *)(uintptr_t)id_of(i), &err));
}

struct pages {
    struct rig *rig;
    const char *op, *list, *key;
    json_t *args, *seen; /* owned; seen: by the key */
    int n;               /* pages so far */
    bool more;
};

static void pages_new(struct pages *p, struct rig *r, const char *op, const char *list,
                      const char *key, json_t *args)
{
    *p = (struct pages){r, op, list, key, args, json_object(), 0, true};
}

static void pages_free(struct pages *p)
{
    json_decref(p->args);
    json_decref(p->seen);
}

/* The next page; nothing in it was in one before. Returns its length. */
static size_t next_page(struct pages *p)
{
    json_t *page = rig_admin(p->rig, p->op, json_incref(p->args));
    const json_t *list = json_object_get(page, p->list);
    json_t *next = json_object_get(page, "next");
    size_t i, n = json_array_size(list);
    json_t *row;
    json_array_foreach(list, i, row)
    {
        const char *key = json_string_value(json_object_get(row, p->key));
        assert_non_null(key);
        assert_null(json_object_get(p->seen, key));
        json_object_set_new(p->seen, key, json_integer(p->n));
    }
    p->n++;
    p->more = next != NULL;
    if (next) {
        json_object_set(p->args, "after", next);
    }
    json_decref(page);
    return n;
}

static bool saw(const struct pages *p, int i)
{
    return json_object_get(p->seen, id_of(i)) != NULL;
}

/* ---- hosts ----------------------------------------------------------------------------------- */

static void hosts_come_and_go_between_pages(void **state)
{
    (void)state;
    struct stage s;
    struct pages p;
    stage_new(&s, "none");
    add_hosts(&s.rig, 10, HOSTS, 10, NULL); /* 10, 20, … */
    pages_new(&p, &s.rig, "host.list", "hosts", "id", json_pack("{s:i}", "limit", 100));
    assert_int_equal(next_page(&p), 100); /* up to 1000 */
    assert_true(p.more);
    remove_host(&s.rig, 500);           /* was listed */
    remove_host(&s.rig, 1000);          /* the cursor itself */
    remove_host(&s.rig, 1010);          /* would be the next one */
    add_hosts(&s.rig, 505, 3, 1, NULL); /* behind the cursor's back */
    add_hosts(&s.rig, 1001, 3, 1, NULL);
    while (p.more) {
        size_t n = next_page(&p);
        assert_true(p.more ? n == 100 : n <= 100);
        remove_host(&s.rig, 4300 - 10 * p.n); /* ahead, or listed */
    }
    for (int i = 10; i <= 10 * HOSTS; i += 10) {
        bool removed = i == 1010 || (i <= 4290 && i >= 4300 - 10 * p.n);
        if (!removed) {
            assert_true(saw(&p, i));
        }
    }
    assert_false(saw(&p, 1010));
    assert_false(saw(&p, 505));
    assert_true(saw(&p, 1001) && saw(&p, 1002) && saw(&p, 1003));
    pages_free(&p);
    stage_free(&s);
}

static void a_state_has_pages_of_its_own(void **state)
{
    (void)state;
    struct stage s;
    struct pages p;
    stage_new(&s, "none");
    add_hosts(&s.rig, 1, HOSTS, 1, NULL); /* each tenth is pending */
    pages_new(&p, &s.rig, "host.list", "hosts", "id",
              json_pack("{s:i, s:s}", "limit", 10, "state", "pending"));
    while (p.more) {
        next_page(&p);
    }
    assert_int_equal(json_object_size(p.seen), HOSTS / 10);
    assert_int_equal(p.n, 5);
    for (int i = 10; i <= HOSTS; i += 10) {
        assert_true(saw(&p, i));
    }
    pages_free(&p);
    json_t *status = rig_admin(&s.rig, "status", json_object());
    const json_t *hosts = json_object_get(status, "hosts");
    assert_int_equal(json_integer_value(json_object_get(hosts, "pending")), HOSTS / 10);
    assert_int_equal(json_integer_value(json_object_get(hosts, "approved")), HOSTS - HOSTS / 10);
    assert_int_equal(json_integer_value(json_object_get(hosts, "banned")), 0);
    json_decref(status);
    stage_free(&s);
}

static void refused_in(struct rig *r, const char *op, json_t *args, const char *reason,
                       const char *words)
{
    json_t *result = NULL;
    struct att_err err = {0};
    assert_int_not_equal(issuer_admin(r->issuer, NULL, op, args, &result, &err), ATT_OK);
    assert_string_equal(err.reason, reason);
    if (!strstr(err.msg, words)) {
        fail_msg("%s: \"%s\" is not in \"%s\"", op, words, err.msg);
    }
    json_decref(args);
}

static void wrong_limits_and_cursors(void **state)
{
    (void)state;
    struct stage s;
    stage_new(&s, "none");
    add_hosts(&s.rig, 1, 3, 1, NULL);
    static const char *const lists[] = {"host.list", "cert.list", "entry.list", "proposal.list"};
    static const int limits[] = {0, -1, 5001};
    for (size_t i = 0; i < 4; i++) {
        for (size_t k = 0; k < 3; k++) {
            refused_in(&s.rig, lists[i], json_pack("{s:i}", "limit", limits[k]), "usage",
                       "limit: expected 1 to 5000, found ");
        }
        refused_in(&s.rig, lists[i], json_pack("{s:s}", "limit", "7"), "usage",
                   "limit: expected a number");
        refused_in(&s.rig, lists[i], json_pack("{s:i}", "after", 7), "usage",
                   "after: expected text");
    }
    static const char *const bad[] = {"", "abc", "zz", "0000001"};
    for (size_t k = 0; k < 4; k++) {
        refused_in(&s.rig, "host.list", json_pack("{s:s}", "after", bad[k]), "usage",
                   "after: expected a host's id of 64 lowercase hex digits");
    }
    char upper[65];
    memset(upper, 'A', 64);
    upper[64] = 0;
    refused_in(&s.rig, "host.list", json_pack("{s:s}", "after", upper), "usage", "lowercase hex");
    refused_in(&s.rig, "cert.list", json_pack("{s:s}", "after", "12-34"), "usage",
               "after: expected a certificate's serial number");
    refused_in(&s.rig, "cert.list", json_pack("{s:s}", "after", "1234"), "certUnknown",
               "no certificate has the serial 1234");
    refused_in(&s.rig, "entry.list", json_pack("{s:s}", "after", "No Name"), "usage",
               "after: expected an entry's name");
    refused_in(&s.rig, "proposal.list", json_pack("{s:s}", "after", "a b"), "usage",
               "after: expected a proposal's id");
    refused_in(&s.rig, "audit.list", json_pack("{s:i}", "limit", 1001), "usage",
               "limit: expected 1 to 1000, found 1001");
    refused_in(&s.rig, "audit.list", json_pack("{s:i}", "limit", 0), "usage",
               "limit: expected 1 to 1000, found 0");
    /* A host that is not there (any more) is a good cursor. */
    json_t *page = rig_admin(&s.rig, "host.list", json_pack("{s:s}", "after", id_of(0)));
    assert_int_equal(json_array_size(json_object_get(page, "hosts")), 3);
    assert_null(json_object_get(page, "next"));
    json_decref(page);
    stage_free(&s);
}

/* As attestctl asked before there were pages. */
static void who_asks_for_no_page_gets_all_or_nothing(void **state)
{
    (void)state;
    struct stage s;
    stage_new(&s, "none");
    add_hosts(&s.rig, 1, ISSUER_LISTED_MAX, 1, NULL);
    json_t *all = rig_admin(&s.rig, "host.list", json_object());
    assert_int_equal(json_array_size(json_object_get(all, "hosts")), ISSUER_LISTED_MAX);
    assert_null(json_object_get(all, "next"));
    json_decref(all);
    add_hosts(&s.rig, ISSUER_LISTED_MAX + 1, 1, 1, NULL);
    refused_in(&s.rig, "host.list", json_object(), "listTooLong", "more than 5000 of the hosts");
    json_t *few = rig_admin(&s.rig, "host.list", json_pack("{s:s}", "state", "pending"));
    assert_int_equal(json_array_size(json_object_get(few, "hosts")), ISSUER_LISTED_MAX / 10);
    json_decref(few);
    all = rig_admin(&s.rig, "host.list", json_pack("{s:i}", "limit", ISSUER_LISTED_MAX));
    assert_string_equal(json_string_value(json_object_get(all, "next")), id_of(ISSUER_LISTED_MAX));
    json_decref(all);
    stage_free(&s);
}

/* A page ends before it is too long for an answer, and the next one goes on. */
static void long_rows_make_short_pages(void **state)
{
    (void)state;
    struct stage s;
    struct pages p;
    size_t room = 300000, most = 0;
    char *labels = calloc(1, room + 1);
    assert_non_null(labels);
    snprintf(labels, room, "{\"zone\":\"%0*d\"}", (int)room - 20, 7);
    stage_new(&s, "none");
    add_hosts(&s.rig, 1, 40, 1, labels);
    refused_in(&s.rig, "host.list", json_object(), "listTooLong", "of the hosts");
    pages_new(&p, &s.rig, "host.list", "hosts", "id", json_pack("{s:i}", "limit", 1000));
    while (p.more) {
        size_t n = next_page(&p);
        most = n > most ? n : most;
        assert_true(n > 0);
    }
    assert_int_equal(json_object_size(p.seen), 40);
    assert_true(most < 15 && p.n > 2);
    pages_free(&p);
    free(labels);
    stage_free(&s);
}

static void hosts_by_label_and_prefix(void **state)
{
    (void)state;
    struct stage s;
    stage_new(&s, "none");
    add_hosts(&s.rig, 1, 300, 1, NULL);
    json_t *host = rig_admin(&s.rig, "host.show", json_pack("{s:s}", "id", "host-17"));
    assert_string_equal(issuer_string(host, "id"), id_of(17));
    json_decref(host);
    char prefix[65];
    snprintf(prefix, sizeof prefix, "%.8s", id_of(18));
    host = rig_admin(&s.rig, "host.show", json_pack("{s:s}", "id", prefix));
    assert_string_equal(issuer_string(host, "id"), id_of(18));
    json_decref(host);
    prefix[7] = 0; /* too short for one */
    refused_in(&s.rig, "host.show", json_pack("{s:s}", "id", prefix), "hostUnknown", "no host");
    refused_in(&s.rig, "host.show", json_pack("{s:s}", "id", ""), "hostUnknown", "no host");
    refused_in(&s.rig, "host.show", json_pack("{s:s}", "id", "00000000%"), "hostUnknown",
               "no host");
    char longer[80];
    snprintf(longer, sizeof longer, "%s0", id_of(18));
    refused_in(&s.rig, "host.show", json_pack("{s:s}", "id", longer), "hostUnknown", "no host");
    add_hosts(&s.rig, 5000, 1, 1, NULL);
    json_t *labels = json_pack("{s:s, s:s}", "id", id_of(5000), "label", "host-17");
    rig_admin_done(&s.rig, "host.approve", labels);
    refused_in(&s.rig, "host.show", json_pack("{s:s}", "id", "host-17"), "hostAmbiguous",
               "2 hosts match");
    stage_free(&s);
}

/* ---- what an entry selects ------------------------------------------------------------------- */

static void the_hosts_of_an_entry(void **state)
{
    (void)state;
    struct stage s;
    struct pages p;
    stage_new(&s, "none");
    add_hosts(&s.rig, 1, HOSTS, 1, "{\"zone\":\"trading\"}");
    add_hosts(&s.rig, 1000, 1500, 1, "{\"zone\":\"other\"}");
    add_hosts(&s.rig, 3000, 5, 1, "{\"zone\":\"trading\"}"); /* behind a whole part of others */
    one_entry(&s.rig, RIG_NAME, "zone=trading");
    pages_new(&p, &s.rig, "entry.show", "selectedHosts", "id",
              json_pack("{s:s}", "name", RIG_NAME));
    assert_int_equal(next_page(&p), 200);
    assert_true(p.more);
    json_object_set_new(p.args, "limit", json_integer(100));
    while (p.more) {
        next_page(&p);
    }
    assert_int_equal(json_object_size(p.seen), HOSTS + 5);
    refused_in(&s.rig, "entry.show", json_pack("{s:s, s:s}", "name", RIG_NAME, "after", "x"),
               "usage", "after: expected a host's id");
    refused_in(&s.rig, "entry.show", json_pack("{s:s, s:i}", "name", RIG_NAME, "limit", 0), "usage",
               "limit: expected 1 to 5000");
    pages_free(&p);
    stage_free(&s);
}

/* ---- certificates ---------------------------------------------------------------------------- */

struct certs {
    int from, n;
    int64_t at;
};

static enum att_rc put_certs(void *user, struct store_tx *tx, struct att_err *err)
{
    const struct certs *c = user;
    enum att_rc rc = ATT_OK;
    for (int i = 0; !rc && i < c->n; i++) {
        char serial[40], id[40];
        struct store_cert row = {
            .not_before = c->at, .not_after = c->at + 3600, .created_at = c->at};
        /* Neither in the order of their making nor against it. */
        snprintf(serial, sizeof serial, "%032x", (unsigned)(c->from + i) * 2654435761u);
        snprintf(id, sizeof id, "of-a-list-%d", c->from + i);
        assert_true(issuer_set(&row.serial, serial) && issuer_set(&row.id, id) &&
                    issuer_set(&row.kind, "agent") && issuer_set(&row.status, "issued") &&
                    issuer_set(&row.subject, i % 2 ? "spiffe://bank.example/agent/odd"
                                                   : "spiffe://bank.example/agent/even") &&
                    issuer_set(&row.account, "") && issuer_set(&row.host, id_of(1 + i % 3)) &&
                    issuer_set(&row.ord, id) && issuer_set(&row.profile, "trading") &&
                    issuer_set(&row.pem, "") && issuer_set(&row.decision, "") &&
                    issuer_set(&row.reason, "") && issuer_set(&row.replaced, "") &&
                    issuer_set(&row.firmware, ""));
        rc = store_insert(tx, &store_certs, &row, err);
        store_record_done(&store_certs, &row);
    }
    return rc;
}

static void add_certs(struct rig *r, int from, int n, int64_t at)
{
    struct certs c = {from, n, at};
    rig_ok(store_run(r->issuer->store, true, put_certs, &c, &err));
}

static void is_time(const json_t *obj, const char *name, int64_t at)
{
    char text[ATT_TIME_TEXT_LEN];
    att_time_text(text, at);
    assert_string_equal(issuer_string(obj, name), text);
}

/* Of a list, too, each member is what was written under its name. */
static void a_listed_certificate_is_the_one_that_was_made(void **state)
{
    (void)state;
    struct stage s;
    stage_new(&s, "none");
    add_hosts(&s.rig, 1, 3, 1, NULL);
    add_certs(&s.rig, 1, 1, rig_time - 100);
    json_t *all = rig_admin(&s.rig, "cert.list", json_object());
    const json_t *one = json_array_get(json_object_get(all, "certificates"), 0);
    assert_string_equal(issuer_string(one, "host"), id_of(1));
    assert_string_equal(issuer_string(one, "profile"), "trading");
    is_time(one, "notBefore", rig_time - 100);
    is_time(one, "notAfter", rig_time - 100 + 3600);
    is_time(one, "createdAt", rig_time - 100);
    json_decref(all);
    stage_free(&s);
}

/* Fifty of each second, pages of seven: most end within a second. */
static void certificates_of_one_second_are_told_apart(void **state)
{
    (void)state;
    struct stage s;
    struct pages p;
    stage_new(&s, "none");
    add_hosts(&s.rig, 1, 3, 1, NULL);
    for (int i = 0; i < 6; i++) {
        add_certs(&s.rig, 1 + 50 * i, 50, rig_time - 100 + i);
    }
    pages_new(&p, &s.rig, "cert.list", "certificates", "serial", json_pack("{s:i}", "limit", 7));
    while (p.more) {
        next_page(&p);
        add_certs(&s.rig, 1000 + p.n, 1, rig_time + p.n); /* newer: in front of the first page */
    }
    assert_int_equal(json_object_size(p.seen), 300);
    assert_int_equal(p.n, 43);
    pages_free(&p);
    pages_new(&p, &s.rig, "cert.list", "certificates", "serial",
              json_pack("{s:i, s:s, s:s, s:s}", "limit", 10, "name", "odd", "host", "host-2",
                        "status", "issued"));
    while (p.more) {
        next_page(&p);
    }
    /* i % 2 and i % 3 == 1 of 0 … 49: 1, 7, 13, … 49 */
    assert_int_equal(json_object_size(p.seen), 6 * 9);
    pages_free(&p);
    /* Without a limit two hundred, and that there is more. */
    pages_new(&p, &s.rig, "cert.list", "certificates", "serial", json_object());
    assert_int_equal(next_page(&p), 200);
    assert_true(p.more);
    pages_free(&p);
    stage_free(&s);
}

/* ---- entries, proposals ---------------------------------------------------------------------- */

static void entries_in_pages(void **state)
{
    (void)state;
    struct stage s;
    struct pages p;
    stage_new(&s, "none");
    for (int i = 0; i < 12; i++) {
        char name[20];
        snprintf(name, sizeof name, "agent-%02d", i);
        one_entry(&s.rig, name, "zone=trading");
    }
    pages_new(&p, &s.rig, "entry.list", "entries", "name", json_pack("{s:i}", "limit", 5));
    while (p.more) {
        next_page(&p);
    }
    assert_int_equal(json_object_size(p.seen), 12);
    assert_int_equal(p.n, 3);
    pages_free(&p);
    json_t *all = rig_admin(&s.rig, "entry.list", json_object());
    assert_int_equal(json_array_size(json_object_get(all, "entries")), 12);
    assert_true(json_is_integer(json_object_get(all, "version")));
    json_decref(all);
    stage_free(&s);
}

/* A state is looked for in each page; what has none of it is a page all the same. */
static void proposals_in_pages(void **state)
{
    (void)state;
    struct stage s;
    struct pages p;
    stage_new(&s, "none");
    with_admin(&s);
    for (int i = 0; i < 23; i++) {
        json_t *id =
            proposed(&s, "op", "audit.erase", json_pack("{s:i, s:s}", "seq", 1, "reason", "x"));
        if (i % 4 == 0) {
            json_t *args = json_pack("{s:o, s:s}", "id", id, "reason", "no");
            rig_ok(as(&s, "op", "proposal.reject", args, NULL, &err));
        } else {
            json_decref(id);
        }
    }
    static const struct {
        const char *state;
        size_t n;
    } all[] = {{NULL, 23}, {"rejected", 6}, {"open", 17}, {"approved", 0}};
    for (size_t i = 0; i < 4; i++) {
        json_t *args = json_pack("{s:i}", "limit", 4);
        if (all[i].state) {
            json_object_set_new(args, "state", json_string(all[i].state));
        }
        pages_new(&p, &s.rig, "proposal.list", "proposals", "id", args);
        while (p.more) {
            next_page(&p);
        }
        assert_int_equal(json_object_size(p.seen), all[i].n);
        assert_int_equal(p.n, 6);
        pages_free(&p);
    }
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hosts_come_and_go_between_pages),
        cmocka_unit_test(a_state_has_pages_of_its_own),
        cmocka_unit_test(wrong_limits_and_cursors),
        cmocka_unit_test(who_asks_for_no_page_gets_all_or_nothing),
        cmocka_unit_test(long_rows_make_short_pages),
        cmocka_unit_test(hosts_by_label_and_prefix),
        cmocka_unit_test(the_hosts_of_an_entry),
        cmocka_unit_test(a_listed_certificate_is_the_one_that_was_made),
        cmocka_unit_test(certificates_of_one_second_are_told_apart),
        cmocka_unit_test(entries_in_pages),
        cmocka_unit_test(proposals_in_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
