/* M1, M2 and M4 in both directions; what parses can be encoded. */
#include "provision/enrol/messages.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ROUND(type, ...)                                                                           \
    do {                                                                                           \
        struct enrol_##type message = {0}, back = {0};                                             \
        struct att_buf text = {0};                                                                 \
        if (enrol_##type##_parse(input, &message, NULL) == ATT_OK) {                               \
            if (enrol_##type##_encode(&message, __VA_ARGS__ & text, NULL) != ATT_OK ||             \
                enrol_##type##_parse(att_buf_slice(&text), &back, NULL) != ATT_OK) {               \
                __builtin_trap();                                                                  \
            }                                                                                      \
            enrol_##type##_done(&back);                                                            \
            enrol_##type##_done(&message);                                                         \
        }                                                                                          \
        att_buf_done(&text);                                                                       \
    } while (0)

/* Encoding these needs the logs' bytes, which a message may leave out: parsing only. */
#define PARSE(type)                                                                                \
    do {                                                                                           \
        struct enrol_##type message = {0};                                                         \
        if (enrol_##type##_parse(input, &message, NULL) == ATT_OK) {                               \
            enrol_##type##_done(&message);                                                         \
        }                                                                                          \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct att_slice input = ATT_SLICE(data, size);
    ROUND(m1_request, );
    ROUND(m1_response, );
    ROUND(m2_response, );
    PARSE(m2_request);
    PARSE(m4_request);
    return 0;
}
