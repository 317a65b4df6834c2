/* /proc/PID/cmdline, behind one byte that chooses the interpreter. */
#include "attestd/workload/cmdline.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const exes[] = {
        "/usr/bin/python3.11", "/bin/sh",       "/bin/bash",  "/usr/bin/perl",
        "/usr/bin/ruby3",      "/usr/bin/node", "/opt/agent", ""};
    if (size == 0) {
        return 0;
    }
    struct att_slice script, line = ATT_SLICE(data + 1, size - 1);
    if (workload_cmdline_script(att_slice_str(exes[data[0] % 8]), line, &script) &&
        (script.len == 0 || script.ptr < line.ptr ||
         script.ptr + script.len > line.ptr + line.len || memchr(script.ptr, 0, script.len))) {
        abort();
    }
    return 0;
}
