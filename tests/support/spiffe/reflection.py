#!/usr/bin/env python3
"""gRPC's server reflection by gRPC's own Python library and descriptors: what a client that knows nothing of this server
finds by it.

reflection.py STUBS SOCKET PROTO…: STUBS has reflection_pb2.py and reflection_v1alpha_pb2.py; each PROTO is a FileDescriptorSet
of what protoc itself says of one file. One line for each thing that held; the first that does not ends it.
"""
import queue
import sys
import time

sys.path.insert(0, sys.argv[1])
import grpc  # noqa: E402
from google.protobuf import descriptor_pb2, descriptor_pool  # noqa: E402
import reflection_pb2  # noqa: E402
import reflection_v1alpha_pb2  # noqa: E402

channel = grpc.insecure_channel("unix://" + sys.argv[2])
SERVICES = ["SpiffeWorkloadAPI", "attestd.v1.Signer", "envoy.service.secret.v3.SecretDiscoveryService",
            "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"]


def need(condition, what):
    if not condition:
        sys.exit("FAILED: %s" % (what,))


class Stream:
    def __init__(self, of, version):
        self.of, self.queue = of, queue.Queue()
        method = "/grpc.reflection.%s.ServerReflection/ServerReflectionInfo" % version
        self.call = channel.stream_stream(method, lambda x: x if isinstance(x, bytes) else x.SerializeToString(),
                                          of.ServerReflectionResponse.FromString)(iter(self.queue.get, None), timeout=60)

    def send(self, **what):
        self.queue.put(self.of.ServerReflectionRequest(host="a host", **what))

    def ask(self, **what):
        self.send(**what)
        return next(self.call)

    def end(self):
        self.queue.put(None)
        return list(self.call)

    def code(self):
        """Of a stream that is to end with an error."""
        try:
            need(next(self.call) is None, "an answer")
        except grpc.RpcError as error:
            return error.code().name + " " + error.details()
        except StopIteration:
            return "OK"


def whole(of, version):
    stream = Stream(of, version)
    got = stream.ask(list_services="*")
    need(sorted(one.name for one in got.list_services_response.service) == SERVICES, got)
    need(got.valid_host == "a host" and got.original_request.list_services == "*", got)
    pool = descriptor_pool.DescriptorPool()
    for name in SERVICES:
        got = stream.ask(file_containing_symbol=name)
        files = got.file_descriptor_response.file_descriptor_proto
        need(len(files) == 1 and got.original_request.file_containing_symbol == name, got)
        pool.AddSerializedFile(files[0])
        service = pool.FindServiceByName(name)
        for method in service.methods:
            again = stream.ask(file_containing_symbol=method.full_name)
            need(again.file_descriptor_response == got.file_descriptor_response, again)
            again = stream.ask(file_containing_symbol=method.input_type.full_name)
            need(again.file_descriptor_response == got.file_descriptor_response, again)
        again = stream.ask(file_by_filename=service.file.name)
        need(again.file_descriptor_response == got.file_descriptor_response, again)
    need(stream.end() == [], "answers without requests")
    print("%s: %d services, their methods and types, by symbol and by file" % (version, len(SERVICES)))
    return pool


def refused():
    of = reflection_pb2
    stream = Stream(of, "v1")
    for what, code in (({"file_containing_symbol": "attestd.v1.Nobody"}, 5), ({"file_containing_symbol": ""}, 5),
                       ({"file_containing_symbol": "attestd.v1"}, 5), ({"file_by_filename": "nobody.proto"}, 5),
                       ({"all_extension_numbers_of_type": "Nobody"}, 5), ({}, 3),
                       ({"file_containing_extension": {"containing_type": "X509SVID", "extension_number": 7}}, 5)):
        got = stream.ask(**what)
        need(got.error_response.error_code == code and got.error_response.error_message, (what, got))
        need(got.original_request == of.ServerReflectionRequest(host="a host", **what), got)
    got = stream.ask(all_extension_numbers_of_type="X509SVID")
    need(got.all_extension_numbers_response.base_type_name == "X509SVID", got)
    need(not got.all_extension_numbers_response.extension_number, got)
    need(stream.end() == [], "the stream goes on after an error")
    print("unknown symbols, files, types: NOT_FOUND each in its turn; nothing asked: INVALID_ARGUMENT")
    stream = Stream(of, "v1")
    stream.queue.put(b"\x0a\xff")
    need(stream.code() == "INVALID_ARGUMENT the request is no ServerReflectionRequest", "not protobuf")
    stream = Stream(of, "v1")
    stream.send(file_containing_symbol="a" * 600)
    need(stream.code() == "INVALID_ARGUMENT the request is longer than 512 bytes", "too long")
    print("no request, or too long a one: the stream ends")


def in_order():
    stream = Stream(reflection_pb2, "v1")
    for n in range(200):
        stream.send(file_containing_symbol="n%d" % n)
        need(next(stream.call).original_request.file_containing_symbol == "n%d" % n, n)
    for n in range(4):
        stream.send(file_containing_symbol="n%d" % n)
    need([one.original_request.file_containing_symbol for one in stream.end()] == ["n%d" % n for n in range(4)], "order")
    print("200 requests one by one, four at once and no more to come: an answer for each, in order")


def known(pool, paths):
    for path in paths:
        with open(path, "rb") as file:
            said = descriptor_pb2.FileDescriptorSet.FromString(file.read())
        for one in said.file:
            served = descriptor_pb2.FileDescriptorProto()
            pool.FindFileByName(one.name).CopyToProto(served)
            need(served.SerializeToString() == one.SerializeToString(), one.name)
    print("%d files as protoc describes them" % len(paths))


def idle(seconds):
    stream = Stream(reflection_pb2, "v1")
    began = time.monotonic()
    stream.ask(list_services="")
    need(stream.code() == "DEADLINE_EXCEEDED nothing was asked for a while", "idle")
    need(time.monotonic() - began < seconds * 20, "idle for long")
    print("a stream on which nothing is asked is ended")


pool = whole(reflection_pb2, "v1")
whole(reflection_v1alpha_pb2, "v1alpha")
refused()
in_order()
known(pool, sys.argv[3:])
idle(2)
