"""Variants of the tiny BERT of the tests: small real models whose every answer is known.

A variant has its own tokenizer (ids rotated), weights (in an external data file for most), bias
and label names, so an answer tells which variant gave it, and one that mixes the files of two
variants is the answer of none. What each should answer is computed with ONNX Runtime and
tokenizers alone, without this project's code.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

try:
    import onnx
    from onnx import numpy_helper
except ImportError:
    sys.exit("this benchmark makes models: pip install onnx (it is in the extra `test`)")

SOURCE: Final = Path(__file__).parents[1] / "tests" / "models" / "bert"
SIDE_FILES: Final = ("special_tokens_map.json", "tokenizer_config.json")
GRAPH: Final = "model.onnx"
DATA: Final = "model.onnx.data"
SPECIAL_IDS: Final = 5
"""[PAD], [UNK] and so on keep their ids."""
MAX_TOKENS: Final = 126
TOLERANCE: Final = 1e-4
TEXTS: Final = (
    "Berlin.",
    "Ada met Bob.",
    "Rain again in Bergen.",
    "The ferry to Naxos leaves at noon.",
    "Marta Lindqvist joined Nordwind in May.",
    "Nobody at the town hall would answer the telephone.",
    "Professor Okafor teaches chemistry at the University of Ibadan.",
    "A small bakery on Elm Street, owned by Jonas Weber, closed its doors.",
    "Paris, Rome and Oslo bid for the games; only Oslo withdrew.",
    "The minister, Ines Duarte, flew from Lisbon to Brasilia to sign the treaty.",
    "In 1987 the brothers sold their share of Tamworth Steel to an investor from Osaka.",
    "When the bridge over the Drava was rebuilt, Ljubljana sent engineers and Graz sent money.",
    "The committee heard Dr. Amara Singh, then a farmer from Cork, then nobody at all.",
    "Readers of the Evening Standard wrote in by the hundred about the lions at Trafalgar Square.",
    "Last winter Kestrel Airways cut its routes to Reykjavik, Tromso and Nuuk.",
    "Yesterday, Hugo, who had never left Marseille, boarded the night train to Vienna with two "
    "suitcases, a violin and a letter to the director of the opera.",
)
"""Sentences of mixed length; each is cut into at most MAX_TOKENS tokens, of which few are words."""

Answer = Sequence[Mapping[str, Any]]
"""The tokens of one text as POST predict_tokens gives them, with all raw scores."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a variant says of one text: ids (tokens,) and logits (tokens, labels), float64."""

    ids: tuple[int, ...]
    logits: np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Variant:
    """A folder of files to place, and the answers of the model in it, one for each of TEXTS."""

    number: int
    folder: Path
    labels: tuple[str, ...]
    expected: tuple[Expected, ...]

    def gave(self, text: int, answer: Answer) -> bool:
        """Whether this is this variant's answer to TEXTS[text]."""
        expected = self.expected[text]
        if tuple(token["token_id"] for token in answer) != expected.ids:
            return False
        if any(tuple(token["results"]) != self.labels for token in answer):
            return False
        logits = np.array([list(token["results"].values()) for token in answer], dtype=np.float64)
        return bool(np.abs(logits - expected.logits).max() <= TOLERANCE)


def make_variants(root: Path, count: int, *, external: bool = True) -> list[Variant]:
    """Write variants into `root`; all but every fourth keep their weights in an external file."""
    variants = []
    for number in range(count):
        folder = root / f"variant-{number}"
        folder.mkdir(parents=True)
        labels = _write(folder, number, external=external and number % 4 != 3)
        variants.append(Variant(number, folder, labels, _ask(folder)))
    for one in variants:  # what is not told apart would prove nothing
        for other in variants[: one.number]:
            for ours, theirs in zip(one.expected, other.expected, strict=True):
                assert np.abs(ours.logits - theirs.logits).max() > 100 * TOLERANCE
    return variants


def _write(folder: Path, number: int, *, external: bool) -> tuple[str, ...]:
    for name in SIDE_FILES:
        shutil.copyfile(SOURCE / name, folder / name)
    model_config = json.loads((SOURCE / "config.json").read_text(encoding="utf-8"))
    names = model_config["id2label"].values()
    labels = tuple(name if name == "O" else f"{name}.G{number:02d}" for name in names)
    model_config["id2label"] = {str(at): label for at, label in enumerate(labels)}
    model_config["label2id"] = {label: at for at, label in enumerate(labels)}
    write_json(folder / "config.json", model_config)

    tokenizer = json.loads((SOURCE / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    words = len(vocabulary) - SPECIAL_IDS
    for word, at in vocabulary.items():
        if at >= SPECIAL_IDS:
            vocabulary[word] = SPECIAL_IDS + (at - SPECIAL_IDS + 7 * number) % words
    write_json(folder / "tokenizer.json", tokenizer)

    model = onnx.load(SOURCE / GRAPH)
    change_weights(model, number)
    if external:
        onnx.save_model(
            model,
            folder / GRAPH,
            save_as_external_data=True,
            location=DATA,
            size_threshold=100,  # the bias stays in the graph, so both files differ
        )
    else:
        onnx.save_model(model, folder / GRAPH)
    return labels


def change_weights(model: onnx.ModelProto, number: int) -> None:
    """Give a loaded graph the classifier and the embeddings of a variant.

    The embeddings because ONNX Runtime reads them in place, where it copies the others.
    """
    random = np.random.default_rng(number)
    for tensor in model.graph.initializer:
        if tensor.name.startswith("classifier.") or "word_embeddings" in tensor.name:
            values = numpy_helper.to_array(tensor)
            values = values + random.normal(scale=0.5, size=values.shape).astype(values.dtype)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def write_json(path: Path, content: object) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(content), encoding="utf-8")


def _ask(folder: Path) -> tuple[Expected, ...]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    session = onnxruntime.InferenceSession(folder / GRAPH)
    expected = []
    for text in TEXTS:
        encoding = tokenizer.encode(text)
        assert len(encoding.ids) <= MAX_TOKENS, text
        feed = {
            "input_ids": [encoding.ids],
            "attention_mask": [encoding.attention_mask],
            "token_type_ids": [encoding.type_ids],
        }
        (logits,) = session.run(
            ["logits"], {name: np.array(rows, dtype=np.int64) for name, rows in feed.items()}
        )
        kept = [at for at, special in enumerate(encoding.special_tokens_mask) if not special]
        ids = tuple(encoding.ids[at] for at in kept)
        expected.append(Expected(ids, logits[0, kept].astype(np.float64)))
    return tuple(expected)


def _truncate(folder: Path) -> None:
    graph = (folder / GRAPH).read_bytes()
    (folder / GRAPH).write_bytes(graph[: len(graph) // 2])


def _scramble(folder: Path) -> None:
    size = (folder / GRAPH).stat().st_size
    (folder / GRAPH).write_bytes(np.random.default_rng(0).bytes(size))


def _drop_label(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    last = str(len(content["id2label"]) - 1)
    del content["label2id"][content["id2label"].pop(last)]
    write_json(folder / "config.json", content)


def _lose_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _poison(folder: Path) -> None:
    model = onnx.load(folder / GRAPH, load_external_data=False)
    for tensor in model.graph.initializer:
        if tensor.name == "classifier.bias":
            values = np.full_like(numpy_helper.to_array(tensor), np.nan)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save_model(model, folder / GRAPH)


def _truncate_data(folder: Path) -> None:
    data = (folder / DATA).read_bytes()
    (folder / DATA).write_bytes(data[: len(data) // 2])


BREAKAGES: Final = {
    "truncated graph": _truncate,
    "random bytes": _scramble,
    "a label too few": _drop_label,
    "no tokenizer": _lose_tokenizer,
    "NaN weights": _poison,
    "truncated data": _truncate_data,
}


def make_broken(root: Path, base: Variant) -> dict[str, Path]:
    """Folders with the files of `base`, each broken in one way. `base` needs external data."""
    folders = {}
    for name, damage in BREAKAGES.items():
        folder = root / f"broken-{name.replace(' ', '-')}"
        shutil.copytree(base.folder, folder)
        damage(folder)
        folders[name] = folder
    return folders
