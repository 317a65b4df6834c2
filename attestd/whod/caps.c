#include "attestd/whod/whod.h"

#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* By the system call: libcap is one more library for two bits. */
static enum att_rc read_caps(struct __user_cap_data_struct data[2], struct att_err *err)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    return syscall(SYS_capget, &header, data) == 0 ? ATT_OK
                                                   : att_fail_errno(err, ATT_E_IO, "capget");
}

/* Nothing can come back by execve; only with CAP_SETPCAP, which a unit's bounding set spares us. */
static void drop_bounding(void)
{
    for (unsigned long cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++) {
        if (cap != CAP_SYS_PTRACE && cap != CAP_DAC_READ_SEARCH) {
            (void)prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
        }
    }
}

enum att_rc whod_caps_drop(bool *ret_ptrace, bool *ret_read, struct att_err *err)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{0}};
    const uint32_t keep = (1u << CAP_SYS_PTRACE) | (1u << CAP_DAC_READ_SEARCH);
    enum att_rc rc = read_caps(data, err);
    if (rc != ATT_OK) {
        return rc;
    }
    drop_bounding();
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0) {
        return att_fail_errno(err, ATT_E_IO, "PR_CAP_AMBIENT_CLEAR_ALL");
    }
    uint32_t kept = data[0].permitted & keep;
    data[0] = (struct __user_cap_data_struct){.effective = kept, .permitted = kept};
    data[1] = (struct __user_cap_data_struct){0};
    if (syscall(SYS_capset, &header, data) != 0) {
        return att_fail_errno(err, ATT_E_IO, "capset");
    }
    *ret_ptrace = (kept & (1u << CAP_SYS_PTRACE)) != 0;
    *ret_read = (kept & (1u << CAP_DAC_READ_SEARCH)) != 0;
    return ATT_OK;
}
