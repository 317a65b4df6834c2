/* Notes, verifiers' keys and checkpoints: what parses is read the same when it is written again. */
#include "provision/audit/ecdsa.h"
#include "provision/audit/note.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_vkey(struct att_slice bytes)
{
    struct audit_vkey vkey, back;
    char text[AUDIT_VKEY_MAX];
    if (audit_vkey_parse(bytes, &vkey, NULL) == ATT_OK) {
        audit_vkey_text(&vkey, text);
        if (audit_vkey_parse(att_slice_str(text), &back, NULL) != ATT_OK ||
            strcmp(vkey.name, back.name) != 0 || vkey.id != back.id ||
            memcmp(vkey.key, back.key, sizeof vkey.key) != 0) {
            __builtin_trap();
        }
    }
}

static void check_p256(struct att_slice bytes, const struct audit_note *note)
{
    struct audit_p256_vkey vkey, back;
    char text[AUDIT_P256_VKEY_MAX];
    if (audit_p256_vkey_parse(bytes, &vkey, NULL) != ATT_OK) {
        return;
    }
    audit_p256_vkey_text(&vkey, text);
    if (audit_p256_vkey_parse(att_slice_str(text), &back, NULL) != ATT_OK || vkey.id != back.id ||
        strcmp(vkey.name, back.name) != 0 || memcmp(vkey.spki, back.spki, sizeof vkey.spki) != 0) {
        __builtin_trap();
    }
    if (note) {
        (void)!audit_p256_verify(note, &vkey, NULL);
    }
}

static void check_checkpoint(struct att_slice bytes)
{
    struct audit_checkpoint c, back;
    struct att_buf text = {0};
    if (audit_checkpoint_parse(bytes, &c, NULL) != ATT_OK) {
        return;
    }
    audit_checkpoint_text(&c, &text);
    if (text.len > bytes.len || memcmp(text.ptr, bytes.ptr, text.len) != 0 ||
        audit_checkpoint_parse(att_buf_slice(&text), &back, NULL) != ATT_OK ||
        back.size != c.size || back.counter != c.counter ||
        memcmp(&back.root, &c.root, sizeof c.root) != 0) {
        __builtin_trap();
    }
    att_buf_done(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* The key of the examples; its signature holds for one text. */
    static const char go[] = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    static const char tpm[] =
        "example.com/log+de61a5ec+AjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0I"
        "ABJIHs3Kz87Z0SN2UHUWyGHZ5bflix0BE9r0f4iJ+Se5BCjzZG3RMv/eCYshAF0FJBTy5bZ9/Q7GXR5w/hgoqtj8=";
    struct audit_note note;
    struct audit_vkey vkey;
    check_vkey(ATT_SLICE(data, size));
    check_p256(ATT_SLICE(data, size), NULL);
    check_checkpoint(ATT_SLICE(data, size));
    if (audit_note_parse(ATT_SLICE(data, size), &note, NULL) != ATT_OK) {
        return 0;
    }
    if (note.n == 0 || note.text.len + 2 > size || note.text.ptr[note.text.len - 1] != '\n') {
        __builtin_trap();
    }
    check_checkpoint(note.text);
    check_p256(att_slice_str(tpm), &note);
    if (audit_vkey_parse(att_slice_str(go), &vkey, NULL) == ATT_OK) {
        (void)!audit_note_verify(&note, &vkey, NULL);
    }
    return 0;
}
