"""tritonclient and this server's own generated code in one process, in either order of import.

`python -m clients.triton.one_process ours|theirs`: what is imported first.
"""

from __future__ import annotations

import sys
from types import ModuleType


def theirs() -> ModuleType:
    """tritonclient's messages."""
    from tritonclient.grpc import service_pb2  # noqa: PLC0415

    return service_pb2  # type: ignore[no-any-return]


def ours() -> ModuleType:
    """This server's."""
    from nerve._proto.inference import inference_pb2  # noqa: PLC0415

    return inference_pb2


def main(first: str) -> None:
    """Import both, and send a message from one to the other and back."""
    if first == "ours":
        mine, other = ours(), theirs()
    else:
        other, mine = theirs(), ours()
    request = other.ModelInferRequest(model_name="ner", id="1", raw_input_contents=[b"\x00"])
    request.parameters["threshold"].double_param = 0.5
    request.inputs.add(name="TEXT", datatype="BYTES", shape=[1, 1])
    there = mine.ModelInferRequest.FromString(request.SerializeToString())
    assert there.parameters["threshold"].double_param == 0.5
    assert list(there.inputs[0].shape) == [1, 1]
    assert other.ModelInferRequest.FromString(there.SerializeToString()) == request
    assert there.DESCRIPTOR is not request.DESCRIPTOR


if __name__ == "__main__":
    main(sys.argv[1])
