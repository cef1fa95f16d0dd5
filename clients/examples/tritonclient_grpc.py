"""Send token ids, get logits, with Triton's gRPC client: pip install 'tritonclient[grpc]' tokenizers.

python tritonclient_grpc.py [TOKENIZER_JSON [TEXT]]; NERVE_GRPC says where the server is, MODEL
which model. Left out, the tokenizer is the one of that model in this repository. This is the raw
view, for those who tokenize themselves; the text view of tritonclient_http.py works over gRPC, too.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tritonclient.grpc import InferenceServerClient, InferInput

MODEL = os.environ.get("MODEL", "minilm-ner")
OURS = Path(__file__).parents[2] / "model_repository" / MODEL / "1" / "tokenizer.json"


def main(tokenizer: str = str(OURS), text: str = "Ada Lovelace lived in London.") -> None:
    """Print a line a token: its piece, and the number of the best label."""
    address = os.environ.get("NERVE_GRPC", "localhost:50051")
    encoded = Tokenizer.from_file(tokenizer).encode(text)
    ids = np.array([encoded.ids], dtype=np.int64)
    tensor = InferInput("input_ids", list(ids.shape), "INT64")
    tensor.set_data_from_numpy(ids)
    with InferenceServerClient(address) as client:
        logits = client.infer(f"{MODEL}.raw", [tensor]).as_numpy("logits")
    for piece, best in zip(encoded.tokens, logits[0].argmax(axis=1), strict=True):
        print(piece, best)


if __name__ == "__main__":
    main(*sys.argv[1:])
