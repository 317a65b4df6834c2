/* Which member of a record is which column. */
#include "provision/store/store_internal.h"

#define TEXT(type, name)                                                                           \
    {                                                                                              \
#name, STORE_TEXT, offsetof(struct type, name), false                                      \
    }
#define INT(type, name)                                                                            \
    {                                                                                              \
#name, STORE_INT, offsetof(struct type, name), false                                       \
    }
#define BLOB(type, name)                                                                           \
    {                                                                                              \
#name, STORE_BLOB, offsetof(struct type, name), false                                      \
    }
#define FIXED_TEXT(type, name)                                                                     \
    {                                                                                              \
#name, STORE_TEXT, offsetof(struct type, name), true                                       \
    }
#define FIXED_INT(type, name)                                                                      \
    {                                                                                              \
#name, STORE_INT, offsetof(struct type, name), true                                        \
    }
#define TABLE(var, sql_name, type, columns)                                                        \
    const struct store_table var = {sql_name, columns, sizeof(columns) / sizeof((columns)[0]),     \
                                    sizeof(struct type)};                                          \
    _Static_assert(sizeof(columns) / sizeof((columns)[0]) <= STORE_COLUMNS_MAX, "too many "        \
                                                                                "columns")

static const struct store_column accounts[] = {
    TEXT(store_account, id),      TEXT(store_account, thumbprint), TEXT(store_account, jwk),
    TEXT(store_account, status),  TEXT(store_account, ticket),     TEXT(store_account, eab),
    TEXT(store_account, contact), INT(store_account, created_at),
};
TABLE(store_accounts, "accounts", store_account, accounts);

static const struct store_column hosts[] = {
    TEXT(store_host, id),           TEXT(store_host, label),   TEXT(store_host, labels),
    TEXT(store_host, state),        TEXT(store_host, account), TEXT(store_host, reason),
    TEXT(store_host, manufacturer), TEXT(store_host, model),   TEXT(store_host, version),
    TEXT(store_host, ek_source),    TEXT(store_host, notes),   INT(store_host, created_at),
    INT(store_host, updated_at),    INT(store_host, seen_at),  TEXT(store_host, registered_by),
    INT(store_host, view_seen),
};
TABLE(store_hosts, "hosts", store_host, hosts);

static const struct store_column host_eks[] = {
    TEXT(store_host_ek, ek),
    TEXT(store_host_ek, host),
    INT(store_host_ek, proven),
};
TABLE(store_host_eks, "host_eks", store_host_ek, host_eks);

static const struct store_column ek_claims[] = {
    TEXT(store_ek_claim, id),
    TEXT(store_ek_claim, ek),
    TEXT(store_ek_claim, host),
};
TABLE(store_ek_claims, "ek_claims", store_ek_claim, ek_claims);

static const struct store_column tickets[] = {
    TEXT(store_ticket, kid),       BLOB(store_ticket, mac_key),  TEXT(store_ticket, ek),
    TEXT(store_ticket, label),     INT(store_ticket, uses_left), INT(store_ticket, expires_at),
    INT(store_ticket, created_at), INT(store_ticket, uses),      TEXT(store_ticket, created_by),
};
TABLE(store_tickets, "tickets", store_ticket, tickets);

static const struct store_column aks[] = {
    TEXT(store_ak, id),
    FIXED_TEXT(store_ak, account),
    FIXED_TEXT(store_ak, ek),
    TEXT(store_ak, host),
    TEXT(store_ak, state),
    TEXT(store_ak, ended_reason),
    TEXT(store_ak, pcr_selection),
    TEXT(store_ak, logs),
    TEXT(store_ak, profile_boot),
    TEXT(store_ak, facts),
    TEXT(store_ak, cert),
    TEXT(store_ak, clock),
    BLOB(store_ak, secret),
    BLOB(store_ak, nonce),
    BLOB(store_ak, pub),
    BLOB(store_ak, name),
    BLOB(store_ak, ek_pub),
    BLOB(store_ak, m1),
    INT(store_ak, clock_ms),
    INT(store_ak, reset_count),
    INT(store_ak, restart_count),
    INT(store_ak, safe),
    BLOB(store_ak, firmware),
    FIXED_INT(store_ak, created_at),
    INT(store_ak, expires_at),
};
TABLE(store_aks, "aks", store_ak, aks);

static const struct store_column orders[] = {
    TEXT(store_order, id),
    FIXED_TEXT(store_order, account),
    FIXED_TEXT(store_order, host),
    TEXT(store_order, ak),
    FIXED_TEXT(store_order, identifier_type),
    FIXED_TEXT(store_order, identifier),
    TEXT(store_order, profile),
    TEXT(store_order, status),
    TEXT(store_order, chall_status),
    TEXT(store_order, error),
    FIXED_TEXT(store_order, token),
    TEXT(store_order, pcr_selection),
    TEXT(store_order, logs),
    TEXT(store_order, policy),
    TEXT(store_order, entry),
    INT(store_order, entry_version),
    TEXT(store_order, clock),
    TEXT(store_order, decision),
    TEXT(store_order, cert),
    TEXT(store_order, measured),
    TEXT(store_order, authz),
    FIXED_TEXT(store_order, replaces),
    TEXT(store_order, hsm),
    TEXT(store_order, parent),
    BLOB(store_order, key_spki),
    FIXED_INT(store_order, created_at),
    INT(store_order, expires_at),
    INT(store_order, verdict_at),
};
TABLE(store_orders, "orders", store_order, orders);

static const struct store_column certs[] = {
    TEXT(store_cert, serial),
    FIXED_TEXT(store_cert, id),
    FIXED_TEXT(store_cert, kind),
    TEXT(store_cert, status),
    FIXED_TEXT(store_cert, subject),
    FIXED_TEXT(store_cert, account),
    FIXED_TEXT(store_cert, host),
    FIXED_TEXT(store_cert, ord),
    TEXT(store_cert, profile),
    TEXT(store_cert, pem),
    TEXT(store_cert, decision),
    TEXT(store_cert, reason),
    TEXT(store_cert, replaced),
    FIXED_TEXT(store_cert, firmware),
    BLOB(store_cert, tbs),
    FIXED_INT(store_cert, not_before),
    FIXED_INT(store_cert, not_after),
    FIXED_INT(store_cert, created_at),
    INT(store_cert, ended_at),
};
TABLE(store_certs, "certs", store_cert, certs);

static const struct store_column entries[] = {
    TEXT(store_entry, name),   TEXT(store_entry, spiffe_id), TEXT(store_entry, json),
    INT(store_entry, version), INT(store_entry, updated_at),
};
TABLE(store_entries, "entries", store_entry, entries);

static const struct store_column policies[] = {
    TEXT(store_policy, name),
    TEXT(store_policy, json),
    INT(store_policy, version),
    INT(store_policy, updated_at),
};
TABLE(store_policies, "policies", store_policy, policies);

static const struct store_column allowlists[] = {
    TEXT(store_allowlist, sha256), TEXT(store_allowlist, label),     BLOB(store_allowlist, data),
    INT(store_allowlist, entries), INT(store_allowlist, created_at),
};
TABLE(store_allowlists, "allowlists", store_allowlist, allowlists);

static const struct store_column dns_orders[] = {
    TEXT(store_dns_order, id),
    FIXED_TEXT(store_dns_order, account),
    FIXED_TEXT(store_dns_order, type),
    FIXED_TEXT(store_dns_order, names),
    TEXT(store_dns_order, profile),
    TEXT(store_dns_order, status),
    TEXT(store_dns_order, error),
    TEXT(store_dns_order, cert),
    FIXED_TEXT(store_dns_order, replaces),
    FIXED_INT(store_dns_order, created_at),
    INT(store_dns_order, expires_at),
};
TABLE(store_dns_orders, "dns_orders", store_dns_order, dns_orders);

static const struct store_column dns_authzs[] = {
    TEXT(store_dns_authz, id),
    FIXED_TEXT(store_dns_authz, ord),
    FIXED_TEXT(store_dns_authz, account),
    FIXED_TEXT(store_dns_authz, type),
    FIXED_TEXT(store_dns_authz, name),
    TEXT(store_dns_authz, status),
    FIXED_TEXT(store_dns_authz, token),
    TEXT(store_dns_authz, error),
    TEXT(store_dns_authz, host),
    TEXT(store_dns_authz, ak),
    TEXT(store_dns_authz, spki),
    TEXT(store_dns_authz, decision),
    FIXED_INT(store_dns_authz, created_at),
    INT(store_dns_authz, expires_at),
    INT(store_dns_authz, validated_at),
};
TABLE(store_dns_authzs, "dns_authzs", store_dns_authz, dns_authzs);

static const struct store_column step_pending[] = {
    TEXT(store_step, secret),
    FIXED_TEXT(store_step, ek),
    FIXED_TEXT(store_step, source),
    FIXED_TEXT(store_step, facts),
    BLOB(store_step, spki),
    FIXED_INT(store_step, seq),
    FIXED_INT(store_step, created_at),
    FIXED_INT(store_step, expires_at),
};
TABLE(store_step_pending, "step_pending", store_step, step_pending);

static const struct store_column renewals[] = {
    TEXT(store_renewal, scope),
    INT(store_renewal, at),
    TEXT(store_renewal, reason),
};
TABLE(store_renewals, "renewals", store_renewal, renewals);

static const struct store_column proposals[] = {
    TEXT(store_proposal, id),
    FIXED_TEXT(store_proposal, op),
    TEXT(store_proposal, args),
    FIXED_TEXT(store_proposal, sha256),
    FIXED_TEXT(store_proposal, effect),
    TEXT(store_proposal, state),
    FIXED_TEXT(store_proposal, by_who),
    FIXED_TEXT(store_proposal, by_id),
    TEXT(store_proposal, decided_by),
    TEXT(store_proposal, reason),
    FIXED_INT(store_proposal, created_at),
    FIXED_INT(store_proposal, expires_at),
    INT(store_proposal, decided_at),
};
TABLE(store_proposals, "proposals", store_proposal, proposals);

static const struct store_column admin_requests[] = {
    TEXT(store_admin_request, id),
    FIXED_TEXT(store_admin_request, op),
    FIXED_INT(store_admin_request, at),
};
TABLE(store_admin_requests, "admin_requests", store_admin_request, admin_requests);

static const struct store_column authorities[] = {
    TEXT(store_authority, id),          FIXED_TEXT(store_authority, kind),
    TEXT(store_authority, state),       FIXED_TEXT(store_authority, keyref),
    TEXT(store_authority, root_keyref), TEXT(store_authority, chain),
    TEXT(store_authority, root),        TEXT(store_authority, csr),
    INT(store_authority, view),         FIXED_INT(store_authority, created_at),
    INT(store_authority, published_at), INT(store_authority, activated_at),
    INT(store_authority, retired_at),
};
TABLE(store_authorities, "authorities", store_authority, authorities);

static const struct store_column issuers[] = {
    TEXT(store_issuer, id),    TEXT(store_issuer, name), INT(store_issuer, generation),
    TEXT(store_issuer, lacks), TEXT(store_issuer, jwt),  INT(store_issuer, seen_at),
};
TABLE(store_issuers, "issuers", store_issuer, issuers);

static const struct store_column jwt_keys[] = {
    TEXT(store_jwt_key, kid),       FIXED_TEXT(store_jwt_key, keyref),
    FIXED_TEXT(store_jwt_key, jwk), FIXED_INT(store_jwt_key, created_at),
    INT(store_jwt_key, active_at),
};
TABLE(store_jwt_keys, "jwt_keys", store_jwt_key, jwt_keys);

static const struct store_column federated[] = {
    TEXT(store_federated, name),           TEXT(store_federated, bundle),
    TEXT(store_federated, sha256),         TEXT(store_federated, source),
    TEXT(store_federated, outcome),        TEXT(store_federated, reason),
    TEXT(store_federated, detail),         INT(store_federated, sequence),
    INT(store_federated, hint_s),          INT(store_federated, anew),
    INT(store_federated, failures),        INT(store_federated, tried_at),
    INT(store_federated, fetched_at),      INT(store_federated, changed_at),
    INT(store_federated, records_paid_at), INT(store_federated, unrecorded),
};
TABLE(store_federated, "federated", store_federated, federated);

const struct store_table *const store_tables[STORE_TABLES] = {
    &store_accounts,       &store_hosts,       &store_host_eks,     &store_ek_claims,
    &store_tickets,        &store_aks,         &store_orders,       &store_certs,
    &store_entries,        &store_policies,    &store_dns_orders,   &store_dns_authzs,
    &store_renewals,       &store_authorities, &store_issuers,      &store_proposals,
    &store_admin_requests, &store_allowlists,  &store_step_pending, &store_jwt_keys,
    &store_federated,
};
