"""What a right answer is: entities by another door of the daemon, logits by the runtime itself."""

from __future__ import annotations

import json
import urllib.request
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

MODEL: Final = "minilm-ner"
TEXTS: Final = (
    "Ada Lovelace met Charles Babbage in London.",
    "Zoë flog mit 李明 von Zürich nach København 🛫.",
    "Nothing to see here.",
    "Hi",
    "Marie Curie worked at the University of Paris; Siemens AG is in Munich, Germany.",
)
Entities = list[dict[str, Any]]


class Truth:
    """Right answers for the bundled model of a daemon."""

    def __init__(self, url: str, model: Path) -> None:
        self.url = url
        self._session = onnxruntime.InferenceSession(str(model / "model.onnx"))
        self._tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        self._tokenizer.no_padding()

    @cache  # noqa: B019  lives as long as the process
    def entities(self, text: str, strategy: str = "simple", **fields: Any) -> Entities:
        """Of a text, as POST /predict_tokens has them, in the shape of V2's ENTITIES."""
        body = {"inputs": [text], "aggregation_strategy": strategy} | fields
        request = urllib.request.Request(
            f"{self.url}/v1/models/{MODEL}/predict_tokens",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            (found,) = json.load(answer)
        return [
            {"text": e["token"], "label": label, "start": e["start"], "end": e["end"], "score": s}
            for e in found
            for label, s in e["results"].items()
        ]

    def ids(self, text: str) -> np.ndarray[Any, Any]:
        """(1, tokens) int64, special tokens counted."""
        return np.array([self._tokenizer.encode(text).ids], dtype=np.int64)

    @cache  # noqa: B019
    def logits(self, text: str) -> np.ndarray[Any, Any]:
        """(1, tokens, labels) float32, from a run of its own."""
        ids = self.ids(text)
        known = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        known["token_type_ids"] = np.zeros_like(ids)
        asked = {each.name: known[each.name] for each in self._session.get_inputs()}
        (scores,) = self._session.run(None, asked)
        return np.asarray(scores, dtype=np.float32)


def read(result: Any, output: str = "ENTITIES") -> list[Any]:
    """The JSON document of each text, flat. From binary they are bytes, from JSON str."""
    return [json.loads(document) for document in result.as_numpy(output).ravel()]


def same(found: Entities, expected: Entities) -> None:
    """The same entities, to the last bit of their float32 scores."""
    assert [{**e, "score": 0} for e in found] == [{**e, "score": 0} for e in expected]
    mine, theirs = ([np.float32(e["score"]) for e in each] for each in (found, expected))
    assert mine == theirs, (mine, theirs)
