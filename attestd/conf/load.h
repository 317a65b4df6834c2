/* What the three kinds of file share. Internal to attestd/conf. */
#ifndef CONF_LOAD_H
#define CONF_LOAD_H

#include "attestd/conf/conf.h"

/* errors is empty and never NULL. */
typedef enum att_rc conf_parse_fn(struct att_slice yaml, void **ret, struct conf_errors *errors,
                                  struct att_err *err);

ATT_MUST_USE enum att_rc conf_parse_with(conf_parse_fn *fn, struct att_slice yaml, void **ret,
                                         struct conf_errors *errors, struct att_err *err);
ATT_MUST_USE enum att_rc conf_load_with(conf_parse_fn *fn, const char *path, void **ret,
                                        struct conf_errors *errors, struct att_err *err);

#endif
