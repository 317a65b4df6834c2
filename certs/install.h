/* An agent's chain and the reference to its key, switched as one.
 *
 *   DIR/NAME          symbolic link to .gen/NAME.<serial>     the switch
 *   DIR/.gen/NAME.<serial>/{chain.pem,key.uri}                written and synced whole before it
 *
 * Order: the new generation's folder and files are made and synced; the link is replaced by
 * rename(2) of a new link; its folder is synced; generations other than the new and the previous
 * one are removed. A crash before the rename leaves the old pair in force (and a folder that the
 * next install removes), after it the new one. Never is there a chain beside the key of another
 * generation. The previous generation stays for readers who opened its folder before the switch. */
#ifndef CERTS_INSTALL_H
#define CERTS_INSTALL_H

#include "attestd/base/buf.h"

#include <stdbool.h>

/* Folders 0755, chain.pem and key.uri 0644: neither is secret. name: certs_agent_name_check.
 * chain_pem must be a PEM chain and key_uri one line (a newline is added). Writers of one name must
 * not run at the same time. */
ATT_MUST_USE enum att_rc certs_install(const char *dir, const char *name,
                                       struct att_slice chain_pem, const char *key_uri,
                                       struct att_err *err);
/* The same in steps, for whoever has other work between them. Each is ATT_OK or leaves what was in
 * force; certs_install_gen_done after any of them (a generation that did not come in force goes).
 *   begin   everything that can be known before the certificate: the folder, key.uri, an empty
 *           chain.pem, all synced
 *   fill    the chain, synced. Not looked at: the caller has parsed it
 *   switch  the link. NOT synced: after a loss of power the old pair may be in force again
 *   end     syncs the link, removes older generations
 * Whoever writes down elsewhere which key is in force may do so between switch and end, and calls
 * certs_install_settle at its next start. */
struct certs_install_gen {
    unsigned long long number, previous; /* number 0: nothing begun */
    int dirfd, gensfd, chainfd;
    bool in_force;
    char name[256], folder[256];
};
void certs_install_gen_done(struct certs_install_gen *gen);
ATT_MUST_USE enum att_rc certs_install_begin(const char *dir, const char *name, const char *key_uri,
                                             struct certs_install_gen *ret_gen,
                                             struct att_err *err);
ATT_MUST_USE enum att_rc certs_install_fill(struct certs_install_gen *gen,
                                            struct att_slice chain_pem, struct att_err *err);
ATT_MUST_USE enum att_rc certs_install_switch(struct certs_install_gen *gen, struct att_err *err);
ATT_MUST_USE enum att_rc certs_install_end(struct certs_install_gen *gen, struct att_err *err);
/* Makes the link point to a generation that names this key, if it does not. ATT_E_NOTFOUND: there
 * is none with a whole chain; the link is left alone. */
ATT_MUST_USE enum att_rc certs_install_settle(const char *dir, const char *name,
                                              const char *key_uri, bool *ret_changed,
                                              struct att_err *err);
/* Both of one generation, even while another is being installed. key_uri comes without its newline.
 * ATT_E_NOTFOUND: nothing installed. */
ATT_MUST_USE enum att_rc certs_install_load(const char *dir, const char *name,
                                            struct att_buf *ret_chain_pem,
                                            struct att_buf *ret_key_uri, struct att_err *err);
/* Takes the link away first, then every generation; absent is ATT_OK. */
ATT_MUST_USE enum att_rc certs_install_remove(const char *dir, const char *name,
                                              struct att_err *err);

#endif
