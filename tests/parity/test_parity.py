"""Spans, offsets and scores equal those of transformers.pipeline("ner"), case by case."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nerve.config.model import TokenizerConfig
from nerve.pipeline.aggregation import LabelScheme
from nerve.pipeline.decode import Decoder
from nerve.pipeline.tokenizer import TextTokenizer, load_tokenizer, read_json_object
from nerve.types import CutOptions, FloatArray, SpanOptions
from nerve.words import Side, Strategy

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"
MANIFEST = json.loads((GOLDEN / "manifest.json").read_text())
MODELS = ["bert", "distilbert", "roberta", "xlm-roberta", "deberta-v2", "minilm-ner"]


def folder_of(model: str) -> Path:
    if model == "minilm-ner":
        return HERE.parents[1] / "model_repository" / model / "1"
    return HERE.parent / "models" / model


def cases(model: str) -> Iterator[dict[str, Any]]:
    with gzip.open(GOLDEN / f"{model}.jsonl.gz", "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def tokenizer_for(model: str, max_length: int, stride: int | None, side: str) -> TextTokenizer:
    folder = folder_of(model)
    sides = {
        name: read_json_object(folder / f"{name}.json")
        for name in ("tokenizer_config", "special_tokens_map", "config")
    }
    return load_tokenizer(
        folder / "tokenizer.json",
        model=model,
        config=TokenizerConfig(max_length=max_length, stride=stride, truncation_side=Side(side)),
        max_row_tokens=8192,
        tokenizer_config=sides["tokenizer_config"],
        special_tokens=sides["special_tokens_map"],
        model_config=sides["config"],
    )


def same_exponentials() -> bool:
    """Whether this CPU's float32 exp has the bits of the one that made the cases."""
    probe = np.exp(np.linspace(-20, 0, 257, dtype=np.float32))
    return bool(hashlib.sha256(probe.tobytes()).hexdigest() == MANIFEST["exp_probe"])


def logits_of(case: dict[str, Any], width: int) -> list[FloatArray]:
    return [
        np.frombuffer(base64.b64decode(chunk["logits"]), dtype="<f4").reshape(-1, width)
        for chunk in case["chunks"]
    ]


@pytest.mark.parametrize("model", MODELS)
def test_equals_transformers(model: str) -> None:
    """Tokens, and every strategy with and without ignored labels: spans exactly, scores by bits."""
    labels = read_json_object(folder_of(model) / "config.json")["id2label"]
    assert isinstance(labels, dict)
    own = [labels[str(number)] for number in range(len(labels))]
    exact = same_exponentials()
    tokenizers: dict[tuple[int, int | None, str], TextTokenizer] = {}
    compared = 0
    for number, case in enumerate(cases(model)):
        key = (case["max_length"], case["stride"], case["truncation_side"])
        if key not in tokenizers:
            tokenizers[key] = tokenizer_for(model, *key)
        tokenizer = tokenizers[key]
        text = case["text"]
        encoded = tokenizer.encode(text, CutOptions())
        names = case["labels"] or own
        logits = logits_of(case, len(names))
        place = f"{model} case {number} {text!r}"
        assert len(encoded.windows) == len(case["chunks"]), place
        for window, chunk in zip(encoded.windows, case["chunks"], strict=True):
            assert window.ids.tolist() == chunk["ids"], place
            assert window.offsets.tolist() == chunk["offsets"], place
            assert (~window.kept).astype(int).tolist() == chunk["special"], place
        decoder = Decoder(LabelScheme(names), tokenizer.facts, overlap=case["stride"] or 0)
        for strategy, by_ignore in case["expected"].items():
            for ignored, expected in by_ignore.items():
                options = SpanOptions(
                    Strategy(strategy), frozenset({"O"} if ignored == "O" else set())
                )
                spans = decoder.spans([text], [encoded], logits, options)[0]
                compared += 1
                where = f"{place} {strategy} ignoring {ignored!r}"
                if not exact and case["source"] != "model":
                    continue  # made to lie on the edge: another exp may choose another label
                assert [(s.label, s.start, s.end) for s in spans] == [
                    (item[0], item[2], item[3]) for item in expected
                ], where
                assert [s.text for s in spans] == [text[i[2] : i[3]] for i in expected], where
                scores = np.array([s.score for s in spans], dtype=np.float32)
                wanted = np.array([item[1] for item in expected], dtype=np.float32)
                if exact:
                    assert scores.tobytes() == wanted.tobytes(), where
                else:
                    np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-6, err_msg=where)
    assert compared > 1000


@pytest.mark.parametrize("model", MODELS)
def test_whole_response_equals_one_by_one(model: str) -> None:
    """Decoding many texts in one go gives the bits of decoding each alone."""
    chosen = [
        case
        for case in cases(model)
        if case["labels"] is None and case["stride"] is None and case["truncation_side"] == "right"
    ]
    chosen = [case for case in chosen if case["max_length"] == chosen[0]["max_length"]]
    tokenizer = tokenizer_for(model, chosen[0]["max_length"], None, "right")
    width = len(read_json_object(folder_of(model) / "config.json")["id2label"])  # type: ignore[arg-type]
    names = [f"{'BI'[n % 2]}-{n // 2}" if n else "O" for n in range(width)]
    decoder = Decoder(LabelScheme(names), tokenizer.facts, overlap=0)
    texts = [case["text"] for case in chosen]
    encoded = [tokenizer.encode(text, CutOptions()) for text in texts]
    logits = [scores for case in chosen for scores in logits_of(case, width)]
    for strategy in Strategy:
        options = SpanOptions(strategy, frozenset())
        together = decoder.spans(texts, encoded, logits, options)
        for text, rows, scores, spans in zip(texts, encoded, logits, together, strict=True):
            alone = decoder.spans([text], [rows], [scores], options)[0]
            assert [span[:6] for span in alone] == [span[:6] for span in spans], (strategy, text)


def test_cases_are_many_enough() -> None:
    assert MANIFEST["cases"] >= 500
