"""Time to decode a response of 32 texts of 32 tokens, by aggregation strategy.

    python benchmarks/decode.py [--texts 32] [--tokens 32]

Random logits over real text; the best of many rounds, in microseconds a text.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from nerve.config.model import TokenizerConfig
from nerve.pipeline.aggregation import LabelScheme
from nerve.pipeline.decode import Decoder
from nerve.pipeline.tokenizer import load_tokenizer, read_json_object
from nerve.types import CutOptions, SpanOptions
from nerve.words import Strategy

FOLDER = Path(__file__).parents[1] / "model_repository" / "minilm-ner" / "1"
SENTENCE = "Ada Lovelace wrote to Charles Babbage in London about the Analytical Engine . "
LABELS = ("O", "B-MISC", "I-MISC", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
ROUNDS = 200


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--texts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=32)
    asked = parser.parse_args()
    tokenizer = load_tokenizer(
        FOLDER / "tokenizer.json",
        model="minilm-ner",
        config=TokenizerConfig(max_length=asked.tokens),
        max_row_tokens=8192,
        tokenizer_config=read_json_object(FOLDER / "tokenizer_config.json"),
        special_tokens={},
        model_config={},
    )
    texts = [SENTENCE * (asked.tokens // 8)] * asked.texts
    encoded = [tokenizer.encode(text, CutOptions()) for text in texts]
    random = np.random.default_rng(0)
    logits = [
        random.normal(size=(len(text.windows[0].ids), len(LABELS))).astype(np.float32)
        for text in encoded
    ]
    decoder = Decoder(LabelScheme(LABELS), tokenizer.facts, overlap=0)
    print(f"{asked.texts} texts of {asked.tokens} tokens, best of {ROUNDS} rounds")
    for strategy in Strategy:
        options = SpanOptions(strategy)
        best = float("inf")
        for _ in range(ROUNDS):
            began = time.perf_counter()
            spans = decoder.spans(texts, encoded, logits, options)
            best = min(best, time.perf_counter() - began)
        found = sum(map(len, spans))
        print(f"{strategy:8} {best / asked.texts * 1e6:7.1f} us a text   {found} spans")


if __name__ == "__main__":
    main()
