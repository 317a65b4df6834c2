/* A rig with a TPM and a client, enrolled or not; and its configuration changed while it runs. */
#ifndef TESTS_UNIT_ISSUER_STAGE_H
#define TESTS_UNIT_ISSUER_STAGE_H

#include "tests/unit/issuer/rig.h"

struct stage {
    struct rig rig;
    struct tpm tpm;
    struct client client;
    char ak[256];
};

RIG void stage_new(struct stage *s, const char *boot)
{
    tpm_new(&s->tpm);
    rig_new(&s->rig, s->tpm.base->maker_root, boot);
    client_new(&s->client, &s->rig);
    if (strcmp(boot, "none") != 0) {
        rig_policy(&s->rig, &s->tpm);
    }
}

RIG void stage_free(struct stage *s)
{
    client_free(&s->client);
    rig_free(&s->rig);
    tpm_free(&s->tpm);
}

/* Enrolled and approved, with an entry for its agent. */
RIG void stage_enrol(struct stage *s)
{
    char selector[80];
    rig_enrol(&s->client, &s->tpm, s->ak);
    snprintf(selector, sizeof selector, "ek:%s", s->tpm.ek_id);
    rig_entries(&s->rig, selector);
}

RIG void stage_enrolled(struct stage *s, const char *boot)
{
    stage_new(s, boot);
    stage_enrol(s);
}

RIG void reload(struct rig *r)
{
    struct issuer_settings *fresh = NULL;
    char path[192];
    snprintf(path, sizeof path, "%s/issuer.yaml", r->dir);
    rig_ok(issuer_settings_load(path, &fresh, &err));
    issuer_settings_put(r->issuer->settings);
    r->issuer->settings = fresh;
}

/* The configuration with one text in it replaced, in force. */
RIG void reconfigure(struct rig *r, const char *old, const char *new)
{
    char path[192];
    att_autobuf text = {0}, out = {0};
    snprintf(path, sizeof path, "%s/issuer.yaml", r->dir);
    rig_ok(att_io_read_file(path, 65536, &text, &err));
    const char *all = att_buf_cstr(&text), *at = strstr(all, old);
    assert_non_null(at);
    att_buf_put(&out, all, (size_t)(at - all));
    att_buf_put_str(&out, new);
    att_buf_put_str(&out, at + strlen(old));
    rig_ok(att_io_write_file(path, att_buf_slice(&out), 0644, &err));
    reload(r);
}

/* After dns or devices came into the configuration: issuers of one database make no authority for
 * names at their start, init adds it. */
RIG void restart_with_names(struct rig *r)
{
    char path[192];
    snprintf(path, sizeof path, "%s/issuer.yaml", r->dir);
    issuer_free(r->issuer);
    if (store_spec_shared(r->store)) {
        rig_ok(issuer_init(path, &err));
    }
    rig_open(r);
}

#endif
