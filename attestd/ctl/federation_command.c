/* Other trust domains' bundles at the issuer. */
#include "attestd/ctl/ctl.h"

#define NAME                                                                                       \
    {                                                                                              \
        CTL_POSITIONAL, "name", NULL, true                                                         \
    }

const struct ctl_command ctl_federation_commands[] = {
    {.noun = "federation",
     .verb = "list",
     .help = "the trust domains that are federated with, and how their last look ended",
     .at_issuer = true,
     .op = "federation.list",
     .list = "trustDomains",
     .columns = {{"TRUST DOMAIN", "trustDomain"},
                 {"PROFILE", "profile"},
                 {"OUTCOME", "outcome"},
                 {"REASON", "reason"},
                 {"SEQUENCE", "sequence"},
                 {"ROOTS", "roots"},
                 {"KEYS", "keys"},
                 {"FETCHED", "fetchedAt"}}},
    {.noun = "federation",
     .verb = "show",
     .help = "one of them, with its bundle",
     .at_issuer = true,
     .op = "federation.show",
     .params = {NAME}},
    {.noun = "federation",
     .verb = "refresh",
     .help = "looks at its endpoint now, and says what came of it",
     .at_issuer = true,
     .op = "federation.refresh",
     .params = {NAME}},
    {.noun = "federation",
     .verb = "reset",
     .help =
         "the next bundle counts whatever was known: its sequence, and the roots of https_spiffe",
     .at_issuer = true,
     .op = "federation.reset",
     .params = {NAME}},
    {.noun = NULL},
};
