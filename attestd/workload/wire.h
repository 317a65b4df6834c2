/* A caller on its way from whod: the reply of WHO (attestd/proc/who_proto.h), both ends. */
#ifndef ATTESTD_WORKLOAD_WIRE_H
#define ATTESTD_WORKLOAD_WIRE_H

#include "attestd/proc/caller.h"
#include "attestd/workload/caller.h"

/* Appends the reply's payload. */
ATT_MUST_USE enum att_rc workload_wire_encode(const struct proc_op *op,
                                              const struct workload_caller *caller,
                                              struct att_buf *ret_payload, struct att_err *err);
/* ATT_E_PROTOCOL when it contradicts itself. */
ATT_MUST_USE enum att_rc workload_wire_parse(const struct proc_msg *msg,
                                             struct workload_caller *ret_caller,
                                             struct att_err *err);

/* Asks whod. again: as in WHO. Errors are whod's and the transport's. */
ATT_MUST_USE enum att_rc workload_wire_who(struct proc_caller *whod, int pidfd, pid_t pid,
                                           int64_t accepted_ms, bool again,
                                           const struct att_slice *files, size_t n_files,
                                           struct workload_caller *ret_caller, struct att_err *err);

#endif
