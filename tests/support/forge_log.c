#include "tests/support/forge_parts.h"

#include <stdio.h>
#include <string.h>

static struct forge_event *event_raw(struct forge *forge, uint32_t pcr, uint32_t type,
                                     const void *data, size_t len)
{
    forge_must(forge->n_events < FORGE_EVENTS, "room for events");
    struct forge_event *event = &forge->events[forge->n_events++];
    forge_must(len <= sizeof(event->data), "room for an event's data");
    *event = (struct forge_event){.pcr = pcr, .type = type, .data_len = len};
    memcpy(event->data, data, len);
    att_sha256(event->digest, ATT_SLICE(data, len));
    return event;
}

struct forge_event *forge_event_add(struct forge *forge, uint32_t pcr, uint32_t type,
                                    const char *data)
{
    return event_raw(forge, pcr, type, data, strlen(data));
}

static void le(uint8_t *to, uint64_t value, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        to[i] = (uint8_t)(value >> (8 * i));
    }
}

struct forge_event *forge_event_variable(struct forge *forge, uint32_t pcr, uint32_t type,
                                         const char *name, uint8_t content)
{
    uint8_t data[160] = {0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11,
                         0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c};
    size_t n = strlen(name);
    forge_must(32 + 2 * n + 1 <= sizeof(data), "variable");
    le(data + 16, n, 8);
    le(data + 24, 1, 8);
    for (size_t i = 0; i < n; i++) {
        data[32 + 2 * i] = (uint8_t)name[i];
    }
    data[32 + 2 * n] = content;
    return event_raw(forge, pcr, type, data, 32 + 2 * n + 1);
}

/* A short healthy boot. */
void forge_events_default(struct forge *forge)
{
    static const uint8_t zeros[4] = {0};
    (void)forge_event_add(forge, 0, PARSE_EV_S_CRTM_VERSION, "1.0");
    struct forge_event *blob =
        forge_event_add(forge, 0, PARSE_EV_EFI_PLATFORM_FIRMWARE_BLOB, "FV@0x00820000");
    att_sha256(blob->digest, ATT_SLICE_LIT("the firmware volume itself"));
    (void)forge_event_variable(forge, 7, PARSE_EV_EFI_VARIABLE_DRIVER_CONFIG, "SecureBoot", 1);
    (void)forge_event_variable(forge, 7, PARSE_EV_EFI_VARIABLE_DRIVER_CONFIG, "PK", 7);
    (void)forge_event_variable(forge, 1, PARSE_EV_EFI_VARIABLE_BOOT, "Boot0001", 3);
    for (uint32_t pcr = 0; pcr < 8; pcr++) {
        (void)event_raw(forge, pcr, PARSE_EV_SEPARATOR, zeros, sizeof(zeros));
    }
    struct forge_event *shim =
        forge_event_add(forge, 4, PARSE_EV_EFI_BOOT_SERVICES_APPLICATION, "shimx64.efi");
    att_sha256(shim->digest, ATT_SLICE_LIT("the loader's image"));
    (void)forge_event_add(forge, 5, PARSE_EV_EFI_ACTION, "Exit Boot Services Invocation");
}

void forge_extend(struct forge *forge)
{
    memset(&forge->pcrs, 0, sizeof(forge->pcrs));
    forge->pcrs.sel = forge->selection;
    forge->pcrs.digest_len = parse_alg_digest_len(forge->selection.bank);
    for (unsigned pcr = 17; pcr < 23; pcr++) {
        memset(forge->pcrs.value[pcr], 0xff, forge->pcrs.digest_len);
    }
    for (size_t i = 0; i < forge->n_events; i++) {
        const struct forge_event *event = &forge->events[i];
        if (event->type == PARSE_EV_NO_ACTION) {
            continue;
        }
        uint8_t *value = forge->pcrs.value[event->pcr];
        struct att_slice parts[] = {ATT_SLICE(value, ATT_SHA256_LEN),
                                    ATT_SLICE(event->digest, ATT_SHA256_LEN)};
        uint8_t next[ATT_SHA256_LEN];
        att_sha256_v(next, parts, 2);
        memcpy(value, next, sizeof(next));
    }
    for (unsigned pcr = 0; pcr < PARSE_PCR_COUNT; pcr++) {
        if (!(forge->selection.mask & (1U << pcr))) {
            memset(forge->pcrs.value[pcr], 0, sizeof(forge->pcrs.value[pcr]));
        }
    }
}

static void put_le(struct att_buf *buf, uint64_t value, size_t n)
{
    uint8_t bytes[8];
    le(bytes, value, n);
    att_buf_put(buf, bytes, n);
}

/* Crypto-agile, SHA-256 only: PFP 1.06 clause 10.4.5.1. */
void forge_log_encode(const struct forge *forge, struct att_buf *ret)
{
    static const uint8_t sha1[20] = {0};
    put_le(ret, 0, 4);
    put_le(ret, PARSE_EV_NO_ACTION, 4);
    att_buf_put(ret, sha1, sizeof(sha1));
    put_le(ret, 33, 4);
    att_buf_put(ret, "Spec ID Event03", 16);
    put_le(ret, 0, 4);
    att_buf_put(ret, "\x00\x02\x00\x02", 4);
    put_le(ret, 1, 4);
    put_le(ret, PARSE_ALG_SHA256, 2);
    put_le(ret, ATT_SHA256_LEN, 2);
    att_buf_u8(ret, 0);
    for (size_t i = 0; i < forge->n_events; i++) {
        const struct forge_event *event = &forge->events[i];
        put_le(ret, event->pcr, 4);
        put_le(ret, event->type, 4);
        put_le(ret, 1, 4);
        put_le(ret, PARSE_ALG_SHA256, 2);
        att_buf_put(ret, event->digest, sizeof(event->digest));
        put_le(ret, event->data_len, 4);
        att_buf_put(ret, event->data, event->data_len);
    }
}
