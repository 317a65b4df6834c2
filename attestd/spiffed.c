/* attestd-spiffed: the SPIFFE Workload API and the Signer service of a host. */
#include "attestd/spiffe/spiffed.h"

int main(int argc, char **argv)
{
    return spiffed_main(argc, argv);
}
