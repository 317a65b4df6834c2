/* Two issuers of one PostgreSQL. */
#ifndef TESTS_UNIT_ISSUER_PAIR_H
#define TESTS_UNIT_ISSUER_PAIR_H

#include "tests/unit/issuer/stage.h"

struct pair {
    struct stage a; /* the host's client begins at this one */
    struct rig b;
};

/* An issuer of the same fleet: the database is the other's, the CA a copy, the rest its own. */
RIG void join(struct rig *b, const struct rig *a, const char *boot)
{
    char command[1024];
    snprintf(b->dir, sizeof b->dir, "%.80s/issuer-test-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(b->dir));
    rig_copy(b->store, sizeof b->store, a->store);
    snprintf(command, sizeof command,
             "mkdir -m 700 '%s/state' && cp -a '%s/state/ca' '%s/state/' && cp -a '%s/ek' '%s/'",
             b->dir, a->dir, b->dir, a->dir, b->dir);
    assert_int_equal(system(command), 0);
    rig_config(b, boot, NULL);
    rig_open(b);
}

RIG void pair_new(struct pair *p)
{
    stage_enrolled(&p->a, "none");
    join(&p->b, &p->a.rig, "none");
}

RIG void pair_free(struct pair *p)
{
    p->a.client.rig = &p->a.rig;
    rig_free(&p->b);
    stage_free(&p->a);
}

RIG void at(struct pair *p, bool b)
{
    p->a.client.rig = b ? &p->b : &p->a.rig;
}

#endif
