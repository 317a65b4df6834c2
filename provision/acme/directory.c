#include "provision/acme/member.h"
#include "provision/acme/objects.h"

#include <stdlib.h>
#include <string.h>

void acme_directory_done(struct acme_directory *dir)
{
    if (!dir) {
        return;
    }
    free(dir->new_nonce);
    free(dir->new_account);
    free(dir->new_order);
    free(dir->new_attestation_key);
    free(dir->host_view);
    free(dir->new_token);
    free(dir->revoke_cert);
    free(dir->key_change);
    free(dir->renewal_info);
    free(dir->trust_domain);
    for (size_t i = 0; i < ACME_PROFILES_MAX; i++) {
        free(dir->profiles[i].name);
        free(dir->profiles[i].description);
    }
    *dir = (struct acme_directory){0};
}

static enum att_rc parse_urls(const json_t *json, struct acme_directory *dir, struct att_err *err)
{
    const struct {
        const char *name;
        bool optional;
        char **url;
    } urls[] = {
        {"newNonce", false, &dir->new_nonce},
        {"newAccount", false, &dir->new_account},
        {"newOrder", false, &dir->new_order},
        {"newAttestationKey", true, &dir->new_attestation_key},
        {"hostView", true, &dir->host_view},
        {"newToken", true, &dir->new_token},
        {"revokeCert", true, &dir->revoke_cert},
        {"keyChange", true, &dir->key_change},
        {"renewalInfo", true, &dir->renewal_info},
    };
    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        enum att_rc rc = acme_member_url(json, urls[i].name, urls[i].optional, urls[i].url, err);
        if (rc != ATT_OK) {
            return rc;
        }
    }
    return ATT_OK;
}

static enum att_rc parse_profiles(const json_t *profiles, struct acme_directory *dir,
                                  struct att_err *err)
{
    if (profiles && (!json_is_object(profiles) || json_object_size(profiles) > ACME_PROFILES_MAX)) {
        return att_fail(err, ATT_E_PARSE, "\"profiles\": expected an object of at most %d",
                        ACME_PROFILES_MAX);
    }
    /* jansson's iterators want a non-const object but leave it as it is. */
    json_t *map = json_copy((json_t *)(uintptr_t)profiles);
    const char *name = NULL;
    json_t *description = NULL;
    enum att_rc rc = ATT_OK;
    json_object_foreach(map, name, description)
    {
        struct acme_profile *profile = &dir->profiles[dir->n_profiles];
        rc = acme_member_text(map, name, ACME_TEXT_MAX, false, &profile->description, err);
        if (rc == ATT_OK && !(profile->name = strdup(name))) {
            rc = att_fail(err, ATT_E_NOMEM, "no memory");
        }
        if (rc != ATT_OK) {
            break;
        }
        dir->n_profiles++;
    }
    json_decref(map);
    return rc;
}

static enum att_rc parse_meta(const json_t *meta, struct acme_directory *dir, struct att_err *err)
{
    enum att_rc rc =
        acme_member_bool(meta, "externalAccountRequired", &dir->external_account_required, err);
    if (rc == ATT_OK) {
        rc = parse_profiles(json_object_get(meta, "profiles"), dir, err);
    }
    const json_t *ours = json_object_get(meta, "attestd");
    if (rc != ATT_OK || !ours) {
        return rc;
    }
    json_int_t version = json_integer_value(json_object_get(ours, "version"));
    if (version < 1 || version > 1000) {
        return att_fail(err, ATT_E_PARSE, "meta.attestd: \"version\" is missing or out of range");
    }
    dir->version = (int)version;
    return acme_member_text(ours, "trustDomain", 255, false, &dir->trust_domain, err);
}

enum att_rc acme_directory_parse(const json_t *json, struct acme_directory *ret_dir,
                                 struct att_err *err)
{
    struct acme_directory dir = {0};
    enum att_rc rc = parse_urls(json, &dir, err);
    if (rc == ATT_OK) {
        rc = parse_meta(json_object_get(json, "meta"), &dir, err);
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "directory");
        acme_directory_done(&dir);
        return rc;
    }
    *ret_dir = dir;
    return ATT_OK;
}

static int encode_meta(const struct acme_directory *dir, json_t *json)
{
    json_t *meta = json_object();
    int bad = json_object_set_new(meta, "externalAccountRequired",
                                  json_boolean(dir->external_account_required));
    if (dir->n_profiles) {
        json_t *profiles = json_object();
        for (size_t i = 0; i < dir->n_profiles; i++) {
            bad |= acme_put_text(profiles, dir->profiles[i].name, dir->profiles[i].description);
        }
        bad |= json_object_set_new(meta, "profiles", profiles);
    }
    if (dir->version) {
        json_t *ours = json_pack("{s:i}", "version", dir->version);
        bad |= acme_put_text(ours, "trustDomain", dir->trust_domain);
        bad |= json_object_set_new(meta, "attestd", ours);
    }
    return bad | json_object_set_new(json, "meta", meta);
}

enum att_rc acme_directory_encode(const struct acme_directory *dir, json_t **ret_json,
                                  struct att_err *err)
{
    att_autojson *json = json_object();
    int bad = acme_put_text(json, "newNonce", dir->new_nonce);
    bad |= acme_put_text(json, "newAccount", dir->new_account);
    bad |= acme_put_text(json, "newOrder", dir->new_order);
    bad |= acme_put_text(json, "newAttestationKey", dir->new_attestation_key);
    bad |= acme_put_text(json, "hostView", dir->host_view);
    bad |= acme_put_text(json, "newToken", dir->new_token);
    bad |= acme_put_text(json, "revokeCert", dir->revoke_cert);
    bad |= acme_put_text(json, "keyChange", dir->key_change);
    bad |= acme_put_text(json, "renewalInfo", dir->renewal_info);
    bad |= encode_meta(dir, json);
    if (!json || bad) {
        return att_fail(err, ATT_E_NOMEM, "directory: no memory, or a text is not UTF-8");
    }
    *ret_json = json;
    json = NULL;
    return ATT_OK;
}
