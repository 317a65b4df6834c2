/* Evidence as files that stock tools read: of each agent's last issuance on disk, of an operator's
 * quote as members of an answer. On disk: written aside and
 * switched by rename, so that a reader sees one issuance's files or another's. No fsync: these are
 * for looking at, nothing depends on them. */
#include "attestd/host/issue.h"
#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "certs/chain.h"
#include "provision/evidence/formula.h"
#include "tpm/parse/pcr_file.h"
#include "tpm/parse/public.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct dump {
    int dir;        /* files go here, */
    int before;     /* (the last issuance's; -1: none) */
    json_t *files;  /* or, base64url, here */
    enum att_rc rc; /* sticky */
    struct att_err *err;
};

/* Whether the file holds just these bytes. */
static bool holds(int fd, struct att_slice bytes)
{
    uint8_t part[4096];
    ssize_t n;
    while ((n = read(fd, part, sizeof part)) > 0) {
        if ((size_t)n > bytes.len || memcmp(part, bytes.ptr, (size_t)n) != 0) {
            return false;
        }
        bytes = ATT_SLICE(bytes.ptr + n, bytes.len - (size_t)n);
    }
    return n == 0 && bytes.len == 0;
}

/* What did not change gets another name instead of a copy; nobody writes to these files. */
static bool link_same(const struct dump *d, const char *name, struct att_slice bytes)
{
    att_autofd fd = d->before >= 0
                        ? openat(d->before, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
                        : -1;
    struct stat st;
    return fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
           (size_t)st.st_size == bytes.len && holds(fd, bytes) &&
           linkat(d->before, name, d->dir, name, 0) == 0;
}

static void put(struct dump *d, const char *name, struct att_slice bytes)
{
    if (d->rc != ATT_OK) {
        return;
    }
    if (d->files) {
        d->rc = att_json_set_b64u(d->files, name, bytes, d->err);
        return;
    }
    if (link_same(d, name, bytes)) {
        return;
    }
    att_autofd fd = openat(d->dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        d->rc = att_fail_errno(d->err, ATT_E_IO, "cannot make evidence file %s", name);
        return;
    }
    d->rc = att_io_write_all(fd, bytes, d->err);
}

static void put_log(struct dump *d, const char *file, const struct evidence_logs *logs,
                    const char *name)
{
    const struct evidence_log *log = evidence_logs_find(logs, name);
    if (log && log->has_data) {
        put(d, file, att_buf_slice(&log->data));
    }
    if (log && log->has_data && log->tail.len) {
        char tail[32];
        snprintf(tail, sizeof tail, "%s.tail", file);
        put(d, tail, att_buf_slice(&log->tail));
    }
}

static void put_pem(struct dump *d, const char *name, const char *label, struct att_slice der)
{
    att_autobuf pem = {0};
    if (d->rc == ATT_OK) {
        d->rc = certs_pem_encode(label, der, &pem, d->err);
        put(d, name, att_buf_slice(&pem));
    }
}

static void put_ak(struct dump *d, struct att_slice ak_pub)
{
    put(d, "ak.pub", ak_pub);
    struct parse_public ak;
    att_autobuf spki = {0};
    if (d->rc == ATT_OK) {
        d->rc = parse_public_parse(ak_pub, &ak, d->err);
    }
    if (d->rc == ATT_OK) {
        d->rc = parse_public_spki(&ak, &spki, d->err);
    }
    put_pem(d, "ak.pem", "PUBLIC KEY", att_buf_slice(&spki));
}

static void put_quote(struct dump *d, const struct proc_quote *quote, const uint8_t *extra,
                      const struct evidence_logs *logs)
{
    put(d, "quote", att_buf_slice(&quote->attest));
    put(d, "quote.sig", att_buf_slice(&quote->sig));
    struct parse_pcr_set pcrs;
    att_autobuf values = {0};
    if (d->rc == ATT_OK) {
        d->rc = parse_pcr_set_from_json(quote->pcrs, NULL, &pcrs, d->err);
    }
    if (d->rc == ATT_OK) {
        d->rc = parse_pcr_file_encode(&pcrs, &values, d->err);
    }
    put(d, "pcrs", att_buf_slice(&values));
    char nonce[2 * ATT_SHA256_LEN + 1];
    att_hex(nonce, ATT_SLICE(extra, ATT_SHA256_LEN));
    put(d, "nonce", att_slice_str(nonce));
    put_log(d, "eventlog", logs, "firmware");
    put_log(d, "systemd", logs, "systemd");
    put_log(d, "ima", logs, "ima");
}

static void put_made(struct dump *d, const struct host_evidence *ev)
{
    const struct proc_key_evidence *made = &ev->made;
    if (made->cert_info.len && !made->pub_area.len) {
        put(d, "attributes.cbor", att_buf_slice(&made->cert_info));
        put(d, "attributes.sig", att_buf_slice(&made->cert_sig));
        put(d, "spki", att_buf_slice(&ev->spki));
    } else if (made->cert_info.len) {
        put(d, "certinfo", att_buf_slice(&made->cert_info));
        put(d, "certinfo.sig", att_buf_slice(&made->cert_sig));
        put(d, "pubarea", att_buf_slice(&made->pub_area));
        put(d, "srk.pub", att_buf_slice(&made->srk_pub));
    } else {
        put(d, "spki", att_buf_slice(&ev->spki)); /* no TPM speaks for the key */
    }
    put(d, "evidence.cbor", att_buf_slice(&ev->statement));
    put(d, "keyauth", att_buf_slice(&ev->key_authorization));
    if (made->parent_pub.len) {
        put(d, "parent.pub", att_buf_slice(&made->parent_pub));
    }
    uint8_t extra[ATT_SHA256_LEN];
    evidence_quote_extra(extra, att_buf_slice(&ev->key_authorization),
                         att_buf_slice(&made->cert_info), att_buf_slice(&ev->statement));
    put_quote(d, &made->quote, extra, &ev->logs);
}

static void put_host(struct dump *d, struct host *host)
{
    att_autobuf ak_pem = {0}, ak_pub = {0}, ek_cert = {0};
    {
        HOST_LOCKED(host);
        att_buf_put_slice(&ak_pem, att_buf_slice(&host->ak_pem));
        att_buf_put_slice(&ak_pub, host->identity.ak_pub);
        att_buf_put_slice(&ek_cert, host->identity.ek_cert);
    }
    if (ak_pem.len) { /* none yet: for whom this says which AK it is to be of */
        put(d, "ak.crt", att_buf_slice(&ak_pem));
    }
    put_ak(d, att_buf_slice(&ak_pub));
    if (ek_cert.len) {
        put_pem(d, "ek.crt", "CERTIFICATE", att_buf_slice(&ek_cert));
    }
}

/* One level of plain files is all that we ever put there. */
static void remove_tree(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir) {
        return;
    }
    struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] != '.') {
            (void)unlinkat(dirfd(dir), entry->d_name, 0);
        }
    }
    closedir(dir);
    (void)rmdir(path);
}

static void path_for(const struct host *host, const char *name, const char *before,
                     const char *after, char ret[4096])
{
    snprintf(ret, 4096, "%s/%s%s%s", host->paths.evidence, before, name, after);
}

void host_evidence_tidy(struct host *host, const char *name)
{
    char path[4096];
    path_for(host, name, ".", ".new", path);
    remove_tree(path);
    path_for(host, name, ".", ".old", path);
    remove_tree(path);
}

enum att_rc host_evidence_write(struct host *host, const char *name,
                                const struct host_evidence *evidence, struct att_err *err)
{
    char fresh[4096], last[4096];
    host_evidence_tidy(host, name); /* what a kill left */
    path_for(host, name, ".", ".new", fresh);
    path_for(host, name, "", "", last);
    if (mkdir(fresh, 0700) != 0) {
        return att_fail_errno(err, ATT_E_IO, "cannot make %s", fresh);
    }
    att_autofd dir = open(fresh, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) {
        return att_fail_errno(err, ATT_E_IO, "cannot open %s", fresh);
    }
    att_autofd before = open(last, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct dump d = {.dir = dir, .before = before, .rc = ATT_OK, .err = err};
    put_made(&d, evidence);
    put_host(&d, host);
    if (d.rc != ATT_OK) {
        remove_tree(fresh);
    }
    return d.rc;
}

enum att_rc host_evidence_show(struct host *host, const char *name, struct att_err *err)
{
    char fresh[4096], path[4096], old[4096];
    path_for(host, name, ".", ".new", fresh);
    path_for(host, name, ".", ".old", old);
    path_for(host, name, "", "", path);
    if (rename(path, old) != 0 && errno != ENOENT) {
        return att_fail_errno(err, ATT_E_IO, "cannot move %s aside", path);
    }
    return rename(fresh, path) == 0 ? ATT_OK
                                    : att_fail_errno(err, ATT_E_IO, "cannot put %s in place", path);
}

enum att_rc host_evidence_remove(struct host *host, const char *name, struct att_err *err)
{
    char path[4096];
    host_evidence_tidy(host, name);
    path_for(host, name, "", "", path);
    remove_tree(path);
    return access(path, F_OK) != 0 && errno == ENOENT
               ? ATT_OK
               : att_fail(err, ATT_E_IO, "cannot remove %s", path);
}

enum att_rc host_user_quote(struct host *host, struct att_slice nonce, const char *pcr_selection,
                            json_t **ret_files, char *ret_extra_hex, struct att_err *err)
{
    /* Every log that this host has. */
    struct acme_wanted wanted = {.logs = {"firmware", "systemd", "ima"}, .n_logs = 3};
    struct evidence_logs logs = {0};
    struct proc_quote quote = {0};
    att_autobuf manifest = {0};
    uint8_t extra[ATT_SHA256_LEN];
    enum att_rc rc = host_logs_collect(host, &wanted, &logs, err);
    if (rc == ATT_OK) {
        rc = evidence_manifest_encode(&logs, &manifest, err);
    }
    bool again = true;
    for (int tries = 0; rc == ATT_OK && again && tries < HOST_QUOTE_TRIES; tries++) {
        proc_quote_done(&quote);
        rc = proc_keyd_user_quote(host->keyd, nonce, pcr_selection, att_buf_slice(&manifest),
                                  &quote, extra, err);
        if (rc == ATT_OK) {
            rc = host_logs_read_again(host, &logs, quote.pcrs, &again, err);
        }
    }
    if (rc == ATT_OK) {
        att_autojson *files = json_object();
        struct dump d = {.dir = -1, .before = -1, .files = files, .rc = ATT_OK, .err = err};
        put_quote(&d, &quote, extra, &logs);
        put_host(&d, host);
        rc = d.rc;
        if (rc == ATT_OK) {
            *ret_files = json_incref(files);
            att_hex(ret_extra_hex, ATT_SLICE_ARRAY(extra));
        }
    }
    proc_quote_done(&quote);
    evidence_logs_done(&logs);
    return rc;
}
