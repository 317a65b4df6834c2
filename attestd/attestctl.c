/* attestctl: the command line of attestd and attest-issuerd. */
#include "attestd/ctl/ctl.h"

int main(int argc, char **argv)
{
    return ctl_main(argc, argv);
}
