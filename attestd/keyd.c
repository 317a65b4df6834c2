/* attestd-keyd: the only process on a host that opens the TPM. */
#include "attestd/keyd/keyd.h"

int main(int argc, char **argv)
{
    return keyd_main(argc, argv);
}
