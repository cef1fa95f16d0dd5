"""What one caller would wait for without a server: tokenise, `session.run` and decode in a loop."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from oracle import Session, feed, open_session

from nerve.config.model import TokenizerConfig
from nerve.pipeline.aggregation import LabelScheme
from nerve.pipeline.decode import Decoder
from nerve.pipeline.tokenizer import TextTokenizer, load_tokenizer, read_json_object
from nerve.types import CutOptions, SpanOptions
from nerve.words import Strategy

MAX_ROW_TOKENS: Final = 8192
AS_PREDICT_TOKENS: Final = SpanOptions(Strategy.NONE)
"""What the server decodes for a request that the benchmarks send."""


@dataclass(frozen=True, slots=True)
class Lone:
    """Time of a text in a loop that does nothing else."""

    session: str
    mean_ms: float
    p50_ms: float


class Loop:
    """The server's own tokenizer and decoder around sessions of different threads."""

    def __init__(self, folder: Path) -> None:
        """Load an export folder: a session in one thread, and one as ONNX Runtime would make it."""
        self.tokenizer = tokenizer_of(folder)
        labels = read_json_object(folder / "config.json")["id2label"]
        assert isinstance(labels, dict)
        scheme = LabelScheme(tuple(str(label) for label in labels.values()))
        self._decoder = Decoder(scheme, self.tokenizer.facts, overlap=0)
        graph = folder / "model.onnx"
        self._sessions: dict[str, Session] = {
            "1 thread": open_session(graph, threads=1, spinning=False),
            "ONNX Runtime's default": onnxruntime.InferenceSession(
                str(graph), providers=["CPUExecutionProvider"]
            ),
        }

    def measure(self, texts: Sequence[str], *, seconds: float) -> list[Lone]:
        """Each session in turn for `seconds`, over the texts in their order."""
        return [
            self._timed(name, session, texts, seconds) for name, session in self._sessions.items()
        ]

    def _timed(self, name: str, session: Session, texts: Sequence[str], seconds: float) -> Lone:
        times: list[float] = []
        until = time.perf_counter() + seconds
        self._once(session, texts[0])
        while time.perf_counter() < until:
            text = texts[len(times) % len(texts)]
            began = time.perf_counter()
            self._once(session, text)
            times.append(time.perf_counter() - began)
        return Lone(name, statistics.fmean(times) * 1e3, statistics.median(times) * 1e3)

    def _once(self, session: Session, text: str) -> None:
        encoded = self.tokenizer.encode(text, CutOptions())
        rows = [window.ids.tolist() for window in encoded.windows]
        logits = np.asarray(session.run(["logits"], feed(session, rows))[0], dtype=np.float32)
        self._decoder.spans([text], [encoded], list(logits), AS_PREDICT_TOKENS)


def tokenizer_of(folder: Path) -> TextTokenizer:
    """The server's tokenizer of an export folder."""
    return load_tokenizer(
        folder / "tokenizer.json",
        model=folder.name,
        config=TokenizerConfig(),
        max_row_tokens=MAX_ROW_TOKENS,
        tokenizer_config=read_json_object(folder / "tokenizer_config.json"),
        special_tokens={},
        model_config=read_json_object(folder / "config.json"),
    )


def token_rows(tokenizer: TextTokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text, special ones counted."""
    return [
        window.ids.tolist()
        for text in texts
        for window in tokenizer.encode(text, CutOptions()).windows
    ]
