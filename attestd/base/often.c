#include "attestd/base/often.h"

/* FNV-1a */
static uint64_t hash_of(const char *text)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (; *text; text++) {
        hash = (hash ^ (uint8_t)*text) * 0x100000001b3u;
    }
    return hash;
}

bool att_often(struct att_often *often, const char *text, int64_t now_ms)
{
    uint64_t hash = hash_of(text);
    pthread_mutex_lock(&often->lock);
    /* The place of this text, else the one that was used longest ago. */
    size_t at = 0;
    for (size_t i = 0; i < ATT_OFTEN_PLACES; i++) {
        if (often->places[i].at_ms && often->places[i].hash == hash) {
            at = i;
            break;
        }
        at = often->places[i].at_ms < often->places[at].at_ms ? i : at;
    }
    bool known = often->places[at].at_ms && often->places[at].hash == hash;
    bool say = !known || now_ms - often->places[at].at_ms >= ATT_OFTEN_MS;
    if (say) {
        often->places[at].hash = hash;
        often->places[at].at_ms = now_ms ? now_ms : 1;
    }
    pthread_mutex_unlock(&often->lock);
    return say;
}
