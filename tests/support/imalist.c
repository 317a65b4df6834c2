#include "tests/support/imalist.h"

#include "attestd/base/enc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void le32(struct att_buf *buf, size_t value)
{
    for (unsigned i = 0; i < 4; i++) {
        att_buf_u8(buf, (uint8_t)(value >> (8 * i)));
    }
}

static void field(struct att_buf *buf, struct att_slice bytes)
{
    le32(buf, bytes.len);
    att_buf_put_slice(buf, bytes);
}

static void fields(const struct imalist_entry *entry, struct att_buf *ret)
{
    att_autobuf digest = {0}, name = {0};
    att_buf_printf(&digest, "%s:", entry->prefix);
    att_buf_u8(&digest, 0);
    att_buf_put_slice(&digest, entry->file);
    att_buf_put(&name, entry->name, strlen(entry->name) + 1);
    field(ret, att_buf_slice(&digest));
    field(ret, att_buf_slice(&name));
    for (size_t i = 0; i < entry->n_extra; i++) {
        field(ret, entry->extra[i]);
    }
}

void imalist_data(const struct imalist_entry *entry, struct att_buf *ret)
{
    if (entry->prefix) {
        fields(entry, ret);
    } else {
        static const uint8_t zeroes[256] = {0};
        att_buf_put_slice(ret, entry->file);
        att_buf_put_str(ret, entry->name);
        att_buf_put(ret, zeroes, 256 - strlen(entry->name));
    }
    if (att_buf_ok(ret, NULL) != ATT_OK) {
        abort();
    }
}

static void sha1(const struct imalist_entry *entry, uint8_t ret[20])
{
    uint8_t digest[ATT_HASH_MAX];
    size_t len = 0;
    att_autobuf data = {0};
    imalist_data(entry, &data);
    struct att_slice part = att_buf_slice(&data);
    memset(ret, 0, 20);
    if (entry->violation) {
        return;
    }
    if (att_hash_v("SHA1", digest, &len, &part, 1, NULL) != ATT_OK || len != 20) {
        abort();
    }
    memcpy(ret, digest, 20);
}

void imalist_binary(const struct imalist_entry *entry, struct att_buf *ret)
{
    uint8_t digest[20];
    sha1(entry, digest);
    le32(ret, 10);
    att_buf_put(ret, digest, sizeof digest);
    field(ret, att_slice_str(entry->tmpl));
    if (entry->prefix) {
        att_autobuf data = {0};
        imalist_data(entry, &data);
        field(ret, att_buf_slice(&data));
    } else {
        att_buf_put_slice(ret, entry->file);
        field(ret, att_slice_str(entry->name));
    }
}

void imalist_ascii(const struct imalist_entry *entry, struct att_buf *ret)
{
    uint8_t digest[20];
    sha1(entry, digest);
    att_buf_put_str(ret, "10 ");
    att_buf_hex(ret, ATT_SLICE_ARRAY(digest));
    att_buf_printf(ret, " %s ", entry->tmpl);
    if (entry->prefix) {
        att_buf_printf(ret, "%s:", entry->prefix);
    }
    att_buf_hex(ret, entry->file);
    att_buf_printf(ret, " %s", entry->name);
    for (size_t i = 0; i < entry->n_extra; i++) {
        att_buf_put_str(ret, " ");
        att_buf_hex(ret, entry->extra[i]);
    }
    att_buf_put_str(ret, "\n");
}

static void extend(uint8_t value[ATT_SHA256_LEN], const uint8_t digest[ATT_SHA256_LEN])
{
    struct att_slice parts[] = {ATT_SLICE(value, ATT_SHA256_LEN),
                                ATT_SLICE(digest, ATT_SHA256_LEN)};
    uint8_t next[ATT_SHA256_LEN];
    att_sha256_v(next, parts, 2);
    memcpy(value, next, sizeof next);
}

void imalist_extend(const struct imalist_entry *entry, uint8_t value[ATT_SHA256_LEN])
{
    uint8_t digest[ATT_SHA256_LEN];
    att_autobuf data = {0};
    imalist_data(entry, &data);
    att_sha256(digest, att_buf_slice(&data));
    if (entry->violation) {
        memset(digest, 0xff, sizeof digest);
    }
    extend(value, digest);
}

struct imalist_entry imalist_file(const char *name, uint8_t digest[ATT_SHA256_LEN])
{
    att_sha256(digest, att_slice_str(name));
    return (struct imalist_entry){.tmpl = "ima-ngv2",
                                  .prefix = "ima:sha256",
                                  .file = ATT_SLICE(digest, ATT_SHA256_LEN),
                                  .name = name};
}

void systemdlog_record(struct att_buf *ret, unsigned pcr, const char *type, const char *string,
                       const uint8_t *digest)
{
    uint8_t own[ATT_SHA256_LEN];
    char hex[2 * ATT_SHA256_LEN + 1];
    att_sha256(own, att_slice_str(string));
    att_hex(hex, ATT_SLICE(digest ? digest : own, ATT_SHA256_LEN));
    att_buf_printf(ret,
                   "\x1e{\"pcr\":%u,\"digests\":[{\"hashAlg\":\"sha256\",\"digest\":\"%s\"}],"
                   "\"content_type\":\"systemd\",\"content\":{\"string\":\"%s\",\"bootId\":"
                   "\"6c1e9ac9f3ab4d7fb3d9ba7b5a3e1c55\",\"timestamp\":5210123,\"eventType\":"
                   "\"%s\"}}\n",
                   pcr, hex, string, type);
}

void systemdlog_extend(const char *string, uint8_t value[ATT_SHA256_LEN])
{
    uint8_t digest[ATT_SHA256_LEN];
    att_sha256(digest, att_slice_str(string));
    extend(value, digest);
}
