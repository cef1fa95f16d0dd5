"""Graphs in memory, run with ONNX Runtime alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

Rows = Sequence[Sequence[int]]


def run(graph: bytes, rows: Rows) -> list[npt.NDArray[np.float32]]:
    """Rows of ids in one padded batch on the CPU: (tokens, labels) float32 of each."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session: Any = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    mask = np.zeros_like(ids)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = row
        mask[at, : len(row)] = 1
    given = {"input_ids": ids, "attention_mask": mask}
    feed = {each.name: given.get(each.name, np.zeros_like(ids)) for each in session.get_inputs()}
    (logits,) = session.run(["logits"], feed)
    assert logits.dtype == np.float32
    return [scores[: len(row)] for scores, row in zip(logits, rows, strict=True)]
