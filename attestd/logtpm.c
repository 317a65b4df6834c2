/* attest-issuerd-tpm: the issuer's TPM, which signs checkpoints of the audit log, too. */
#include "attestd/logtpm/logtpm.h"

int main(int argc, char **argv)
{
    return logtpm_main(argc, argv);
}
