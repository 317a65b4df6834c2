/* attestd-whod: who is calling? */
#include "attestd/whod/whod.h"

int main(int argc, char **argv)
{
    return whod_main(argc, argv);
}
