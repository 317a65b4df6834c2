/* Enrolment tickets and the host's own record. */
#include "attestd/host/record.h"
#include "attestd/host/ticket.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct host_ticket ticket = {0};
    if (host_ticket_parse(ATT_SLICE(data, size), &ticket, NULL) == ATT_OK) {
        host_ticket_done(&ticket);
    }
    struct host_record rec = {0};
    (void)!host_record_parse(ATT_SLICE(data, size), &rec, NULL);
    return 0;
}
