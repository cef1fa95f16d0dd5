"""Send many texts over one gRPC stream with Triton's asyncio client: pip install 'tritonclient[grpc]'.

python tritonclient_stream.py TEXT...; NERVE_GRPC says where the server is, MODEL which model.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient


async def main(texts: list[str]) -> None:
    """Print a line an entity; answers come in the order of the texts."""
    address = os.environ.get("NERVE_GRPC", "localhost:50051")
    model = os.environ.get("MODEL", "minilm-ner")

    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number, text in enumerate(texts):
            tensor = InferInput("TEXT", [1, 1], "BYTES")
            tensor.set_data_from_numpy(np.array([[text]], dtype=object))
            yield {"model_name": model, "inputs": [tensor], "request_id": str(number)}

    async with InferenceServerClient(address) as client:
        async for result, error in client.stream_infer(requests()):
            if error:  # of this text only
                print("failed:", error.message())
                continue
            for entity in json.loads(result.as_numpy("ENTITIES")[0, 0]):
                print(entity["label"], entity["text"], entity["score"])


if __name__ == "__main__":
    asyncio.run(
        main(sys.argv[1:] or ["Ada Lovelace lived in London.", "Marie Curie lived in Paris."])
    )
