"""Send token ids, get logits, with Triton's gRPC client: pip install 'tritonclient[grpc]' tokenizers.

python tritonclient_grpc.py TOKENIZER_JSON TEXT; NERVE_GRPC says where the server is, MODEL which
model. This is the raw view, for those who tokenize themselves; the text view of
tritonclient_http.py works over gRPC as well.
"""

from __future__ import annotations

import os
import sys

import numpy as np
from tokenizers import Tokenizer
from tritonclient.grpc import InferenceServerClient, InferInput


def main(tokenizer: str, text: str) -> None:
    """Print a line a token: its piece, and the number of the best label."""
    address = os.environ.get("NERVE_GRPC", "localhost:50051")
    model = os.environ.get("MODEL", "minilm-ner")
    encoded = Tokenizer.from_file(tokenizer).encode(text)
    ids = np.array([encoded.ids], dtype=np.int64)
    tensor = InferInput("input_ids", list(ids.shape), "INT64")
    tensor.set_data_from_numpy(ids)
    with InferenceServerClient(address) as client:
        logits = client.infer(f"{model}.raw", [tensor]).as_numpy("logits")
    for piece, best in zip(encoded.tokens, logits[0].argmax(axis=1), strict=True):
        print(piece, best)


if __name__ == "__main__":
    main(*sys.argv[1:])
