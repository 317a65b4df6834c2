/* The HSM modules of attestd.yaml: the section hsm, which is one module, and the list hsms.
 * Internal to attestd/conf. */
#ifndef CONF_HSMS_H
#define CONF_HSMS_H

#include "attestd/conf/check.h"

/* Every module by itself, and that no two are the same; fills what may be left out. */
void conf_hsms_check(struct conf_check *check, struct conf_attestd *conf);
/* After a check without an error: one list, the host's default first. */
ATT_MUST_USE enum att_rc conf_hsms_settle(struct conf_attestd *conf, struct att_err *err);

#endif
