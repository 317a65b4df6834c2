/* Descriptors of protobuf files (google.protobuf.FileDescriptorSet, descriptor.proto): which file
 * has a name, or declares a symbol. Bytes in, slices of them out; no I/O. */
#ifndef ATTESTD_SPIFFE_REFLECT_H
#define ATTESTD_SPIFFE_REFLECT_H

#include "attestd/base/slice.h"

/* One FileDescriptorProto of set, which it borrows. Empty: none, also where set is cut off before
 * it. */
struct att_slice reflect_file_named(struct att_slice set, struct att_slice name);
/* symbol: PACKAGE.SERVICE, PACKAGE.SERVICE.METHOD, PACKAGE.MESSAGE or PACKAGE.ENUM, types of types
 * too, without a dot before it. */
struct att_slice reflect_file_declaring(struct att_slice set, struct att_slice symbol);

#endif
