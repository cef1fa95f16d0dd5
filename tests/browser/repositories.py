"""Model folders to look at: one that finds a few things in long texts, quickly, one that is broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from onnx import helper, numpy_helper

from living import SOURCE, VOCABULARY, save_graph

LABELS: Final = tuple(json.loads((SOURCE / "config.json").read_text())["id2label"].values())
PIECES: Final = {"an": "B-PER", "bar": "B-PER", "be": "B-LOC", "par": "B-LOC", "東": "B-LOC",
                 "s": "B-ORG", "😀": "B-MISC"}  # fmt: skip
"""What `wide` finds: words that begin with these pieces."""
WINDOWS: Final = """\
tokenizer: {stride: 16}
version_policy: {all: {}}
"""


def write_models(folder: Path, tiny_models: Path) -> Path:
    """`wide`: windows over texts of any length, and two versions that do not agree; `spare`: whole;
    `broken`: whose graph is cut off."""
    for version, pieces in ((1, dict.fromkeys(PIECES, "B-MISC")), (2, PIECES)):
        table(folder / "wide" / str(version), pieces)
    (folder / "wide" / "config.yaml").write_text(WINDOWS)
    shutil.copytree(tiny_models / "bert", folder / "spare")
    shutil.copytree(tiny_models / "bert", folder / "broken")
    graph = folder / "broken" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:3000])
    return folder


def table(folder: Path, pieces: Mapping[str, str]) -> None:
    """A model whose scores depend on nothing but the piece: those of `pieces` have a label."""
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(SOURCE / name, folder)
    vocabulary = json.loads((SOURCE / "tokenizer.json").read_text())["model"]["vocab"]
    scores: np.ndarray[Any, Any] = np.zeros((VOCABULARY, len(LABELS)), dtype=np.float32)
    scores[:, 0] = 5
    for strength, (piece, label) in enumerate(pieces.items()):
        scores[vocabulary[piece]] = 0
        scores[vocabulary[piece], LABELS.index(label)] = 6 + 0.5 * strength
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["logits"])]
    weights = [numpy_helper.from_array(scores, "table")]
    save_graph(folder / "model.onnx", nodes, weights, width=len(LABELS))
