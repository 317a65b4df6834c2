#define P11_KIT_FUTURE_UNSTABLE_API 1

#include "pkcs11/token/serve.h"

#include "pkcs11/token/relay.h"

#include <p11-kit/remote.h>
#include <pthread.h>

#define STACK_LEN 262144 /* libcrypto verifies on it */

/* In the process image, not on the heap: only the pages that are used become this process's own. */
static char stack[STACK_LEN] __attribute__((aligned(16)));

/* p11-kit's server runs in a second thread, since that one gets a heap of its own: what it
 * allocates then lies together on a few fresh pages, and not in the gaps of the heap that was
 * inherited from the process that forked, each of which would cost a page. The first one does
 * nothing but wait for it. */
struct server {
    int stand_in;
    pthread_mutex_t confined; /* held until the sandbox is entered */
};

static void *server_thread(void *arg)
{
    struct server *server = arg;
    pthread_mutex_lock(&server->confined);
    pthread_mutex_unlock(&server->confined);
    p11_kit_be_quiet();
    (void)p11_kit_remote_serve_module(token_module_functions(), server->stand_in, server->stand_in);
    return NULL;
}

static bool start(struct server *server, pthread_t *ret_thread)
{
    pthread_attr_t attr;
    return pthread_attr_init(&attr) == 0 &&
           pthread_attr_setstack(&attr, stack, sizeof stack) == 0 &&
           pthread_create(ret_thread, &attr, server_thread, server) == 0;
}

const char *token_serve(const struct token_serve_opts *opts)
{
    static struct server server;
    pthread_t thread;
    token_module_reset(opts->store);
    server = (struct server){token_relay_begin(opts->client, opts->pid), PTHREAD_MUTEX_INITIALIZER};
    if (server.stand_in < 0) {
        return "no pipe";
    }
    pthread_mutex_lock(&server.confined);
    if (!start(&server, &thread)) {
        (void)token_relay_end();
        return "no thread";
    }
    if (opts->confine && !opts->confine(opts->user)) {
        token_relay_refuse("no sandbox");
    }
    pthread_mutex_unlock(&server.confined);
    pthread_join(thread, NULL);
    token_module_reset(opts->store);
    return token_relay_end();
}
