/* attestd-hsmd: one PKCS#11 module, and keyd's requests to it. */
#include "attestd/hsmd/hsmd.h"

int main(int argc, char **argv)
{
    return hsmd_main(argc, argv);
}
