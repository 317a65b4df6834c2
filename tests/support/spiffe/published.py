#!/usr/bin/env python3
"""Whether every message and method of one protocol is in another one, with the same names, numbers and types.

published.py OURS THEIRS: sets of descriptors, as protoc --descriptor_set_out makes them; says what differs, exits 1.
"""
import sys

from google.protobuf.descriptor_pb2 import FileDescriptorSet


def parts(path):
    """Of the files' last one, which was asked for: fields and methods with what they are on the wire."""
    with open(path, "rb") as file:
        made = FileDescriptorSet.FromString(file.read()).file[-1]
    found = {}

    def message(one, prefix):
        for field in one.field:
            found[f"{prefix}.{field.name}"] = (field.number, field.type, field.label, field.type_name)
        for nested in one.nested_type:
            message(nested, f"{prefix}.{nested.name}")
    for one in made.message_type:
        found[one.name] = "message"
        message(one, one.name)
    for service in made.service:
        for method in service.method:
            found[f"{service.name}/{method.name}"] = (method.input_type, method.output_type, method.client_streaming,
                                                      method.server_streaming)
    return found


ours, theirs = parts(sys.argv[1]), parts(sys.argv[2])
wrong = {name: (what, theirs.get(name)) for name, what in ours.items() if theirs.get(name) != what}
for name, (what, other) in wrong.items():
    print(f"{name}: {what}, published: {other}")
if wrong or not ours:
    sys.exit(1)
print(f"{len(ours)} messages, fields and methods are as published; not in ours: {', '.join(sorted(set(theirs) - set(ours))) or 'nothing'}")
