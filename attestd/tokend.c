/* attestd-tokend: the PKCS#11 token of each agent on a host. */
#include "attestd/tokend/tokend.h"

int main(int argc, char **argv)
{
    return tokend_main(argc, argv);
}
