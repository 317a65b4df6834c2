/* An agent's chain and the reference to its key, switched as one.
 *
 *   DIR/NAME          symbolic link to .gen/NAME.<serial>     the switch
 *   DIR/.gen/NAME.<serial>/{chain.pem,key.uri}                written and synced whole before it
 *
 * Order: the new generation's folder and files are made and synced; the link is replaced by
 * rename(2) of a new link; the folder is synced; generations other than the new and the previous
 * one are removed. A crash before the rename leaves the old pair in force (and a folder that the
 * next install removes), after it the new one. Never is there a chain beside the key of another
 * generation. The previous generation stays for readers who opened its folder before the switch. */
#ifndef CERTS_INSTALL_H
#define CERTS_INSTALL_H

#include "attestd/base/buf.h"

/* Folders 0755, chain.pem and key.uri 0644: neither is secret. name: certs_agent_name_check.
 * chain_pem must be a PEM chain and key_uri one line (a newline is added). Writers of one name must
 * not run at the same time. */
ATT_MUST_USE enum att_rc certs_install(const char *dir, const char *name,
                                       struct att_slice chain_pem, const char *key_uri,
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
