#include "attestd/host/internal.h"
#include "attestd/base/io.h"

#include <string.h>

static const char *path_of(const struct conf_attestd_logs *logs, const char *name)
{
    if (strcmp(name, "firmware") == 0) {
        return logs->firmware;
    }
    if (strcmp(name, "systemd") == 0) {
        return logs->systemd;
    }
    return strcmp(name, "ima") == 0 ? logs->ima : NULL;
}

enum att_rc host_logs_collect(struct host *host, const struct acme_wanted *wanted,
                              struct evidence_logs *ret_logs, struct att_err *err)
{
    struct evidence_logs logs = {0};
    const struct conf_attestd_logs *paths;
    {
        HOST_LOCKED(host);
        paths = host->conf->logs; /* freed only at the end */
    }
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; rc == ATT_OK && i < wanted->n_logs; i++) {
        const char *path = path_of(paths, wanted->logs[i]);
        if (!path) {
            continue; /* a log that we do not know is one that we do not have */
        }
        att_autobuf bytes = ATT_BUF_INIT(EVIDENCE_LOG_MAX);
        struct att_err why = {0};
        rc = att_io_read_file(path, EVIDENCE_LOG_MAX, &bytes, &why);
        if (rc == ATT_E_NOTFOUND) {
            rc = ATT_OK; /* not sent; the issuer decides what that means */
            continue;
        }
        if (rc != ATT_OK) {
            rc = att_fail(err, rc, "%s log: %s", wanted->logs[i], why.msg);
            break;
        }
        rc = evidence_logs_add(&logs, wanted->logs[i], att_buf_slice(&bytes), err);
    }
    if (rc != ATT_OK) {
        evidence_logs_done(&logs);
        return rc;
    }
    *ret_logs = logs;
    return ATT_OK;
}
