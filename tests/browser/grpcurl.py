"""Those flags of grpcurl that the page writes, for machines without it: asks by the server's reflection.

A program of its own, as what it stands in for: bash finds it as `grpcurl`.
"""

from __future__ import annotations

import argparse
import sys

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

BOUND_S = 60.0


def main() -> None:
    """One unary call; prints its answer as JSON."""
    parser = argparse.ArgumentParser(prog="grpcurl", allow_abbrev=False)
    parser.add_argument("-plaintext", action="store_true", required=True)
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-max-msg-sz", type=int)
    parser.add_argument("-d", dest="data", required=True)
    parser.add_argument("address")
    parser.add_argument("method")
    asked = parser.parse_args()
    given = sys.stdin.read() if asked.data == "@" else asked.data
    headers = [each.partition(":") for each in asked.headers]
    with grpc.insecure_channel(asked.address) as channel:
        metadata = tuple((name.strip().lower(), value.strip()) for name, _, value in headers)
        print(call(channel, asked.method, given, metadata))


def call(
    channel: grpc.Channel, method: str, given: str, metadata: tuple[tuple[str, str], ...]
) -> str:
    """The answer's JSON. Reflection, which may want a key, is asked with the same metadata."""
    service, _, name = method.rpartition("/")
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    found = pool.FindServiceByName(service).methods_by_name[name]
    request = json_format.Parse(given, GetMessageClass(found.input_type)(), descriptor_pool=pool)
    stub = channel.unary_unary(
        f"/{service}/{name}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=GetMessageClass(found.output_type).FromString,
    )
    answer = stub(request, metadata=metadata, timeout=BOUND_S)
    return json_format.MessageToJson(answer, descriptor_pool=pool, ensure_ascii=False)


if __name__ == "__main__":
    main()
