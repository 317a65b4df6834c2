/* /proc/PID/cgroup: a unit is a name that systemd could have given, and never stands below a user's
 * manager. */
#include "attestd/workload/text.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct att_slice path;
    if (workload_cgroup_parse(ATT_SLICE(data, size), &path, NULL) != ATT_OK) {
        return 0;
    }
    struct att_slice unit = workload_cgroup_unit(path);
    if (unit.len > 255 ||
        (unit.len && (memchr(unit.ptr, '/', unit.len) || memchr(unit.ptr, '\n', unit.len)))) {
        abort();
    }
    const uint8_t *manager = memmem(path.ptr, path.len, "/user@", 6);
    if (unit.len && manager && unit.ptr > manager + 1) {
        abort();
    }
    (void)workload_cgroup_in_slice(path, "trading.slice");
    return 0;
}
