"""A model as it is, in `optimization.precision: int8`, and by onnxruntime's quantize_dynamic.

    python benchmarks/precision.py [--model FOLDER] [--texts FILE ...] [--tagged FILE ...]

Sessions with one thread, on the same batches in turns: how fast each is against the model as it
is, which token labels change when texts share a batch with others of other lengths, which differ
from the model as it is, and F1 on tagged sentences, if there are any.

FILE of --texts has a text a line, by default those of benchmarks/texts/. FILE of --tagged has a
`token<TAB>tag` a line (BIO), and a blank line after each sentence; a tag `?` is not scored, nor is
MISC where the tag is `O|MISC` or a file has no MISC at all. Both may be gzipped. About 3 minutes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic
from rich.console import Console
from rich.table import Table
from sample import load_texts
from tokenizers import Tokenizer

from nerve.config.running import Precision
from nerve.engine.precision.convert import convert

BUNDLED: Final = Path(__file__).parents[1] / "model_repository" / "minilm-ner" / "1"
BATCH: Final = 16
Logits = npt.NDArray[np.float32]
Rows = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Model:
    """One way to run the model."""

    name: str
    session: Any

    def run(self, rows: Rows) -> list[Logits]:
        """(tokens, labels) of each row, all in one padded batch."""
        ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
        mask = np.zeros_like(ids)
        for at, row in enumerate(rows):
            ids[at, : len(row)] = row
            mask[at, : len(row)] = 1
        given = {"input_ids": ids, "attention_mask": mask}
        feed = {each.name: given.get(each.name, np.zeros_like(ids)) for each in self._inputs()}
        (logits,) = self.session.run(["logits"], feed)
        return [scores[: len(row)] for scores, row in zip(logits, rows, strict=True)]

    def _inputs(self) -> Sequence[Any]:
        inputs: Sequence[Any] = self.session.get_inputs()
        return inputs


def opened(name: str, graph: Path) -> Model:
    """A session as the server has them."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    return Model(name, onnxruntime.InferenceSession(str(graph), options, providers=providers))


def models(source: Path, folder: Path) -> list[Model]:
    """The model as it is first. Its weights must lie in model.onnx."""
    int8 = folder / "int8.onnx"
    content = convert(source.read_bytes(), {}, Precision.INT8)
    assert content is not None
    int8.write_bytes(content)
    # It finds no weights behind operators, so those are folded first.
    folded, dynamic = folder / "folded.onnx", folder / "dynamic.onnx"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    quantize_dynamic(folded, dynamic, weight_type=QuantType.QInt8, per_channel=True)
    return [
        opened("as it is", source),
        opened("precision: int8", int8),
        opened("quantize_dynamic", dynamic),
    ]


def batches(rows: Rows, size: int, *, by_length: bool) -> Iterator[Rows]:
    """In batches of `size`: rows of like length together, or as they come."""
    order = sorted(rows, key=len) if by_length else rows
    for first in range(0, len(order), size):
        yield order[first : first + size]


def speeds(candidates: Sequence[Model], rows: Rows, rounds: int) -> dict[str, float]:
    """How many times as fast as the first each is, median of `rounds` in turns."""
    ratios: dict[str, list[float]] = {model.name: [] for model in candidates}
    work = list(batches(rows, BATCH, by_length=True))
    for _ in range(rounds):
        took = {}
        for model in candidates:
            began = time.perf_counter()
            for batch in work:
                model.run(batch)
            took[model.name] = time.perf_counter() - began
        for name, seconds in took.items():
            ratios[name].append(took[candidates[0].name] / seconds)
    return {name: statistics.median(each) for name, each in ratios.items()}


@dataclass(frozen=True, slots=True)
class Company:
    """How answers alone differ from those in batches with others: texts, labels, probability."""

    texts: int
    labels: int
    probability: float


def company(model: Model, rows: Rows, alone: Sequence[Logits]) -> Company:
    """Compare to the bit."""
    texts = labels = 0
    furthest = 0.0
    together = [
        logits for batch in batches(rows, BATCH, by_length=False) for logits in model.run(batch)
    ]
    for one, other in zip(alone, together, strict=True):
        texts += one.tobytes() != other.tobytes()
        labels += changed(one, other)
        furthest = max(furthest, float(np.abs(softmax(one) - softmax(other)).max()))
    return Company(texts, labels, furthest)


def changed(one: Logits, other: Logits) -> int:
    """Tokens with another label."""
    return int((one.argmax(-1) != other.argmax(-1)).sum())


def softmax(logits: Logits) -> Logits:
    """Over the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    scores: Logits = powers / powers.sum(-1, keepdims=True)
    return scores


# --- F1 of tagged sentences ---

Tags = list[str]


def read_lines(path: Path) -> list[str]:
    """Of a text file that may be gzipped."""
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode().splitlines()


def read_tagged(path: Path) -> list[tuple[list[str], Tags]]:
    """Tokens and tags of each sentence."""
    sentences: list[tuple[list[str], Tags]] = [([], [])]
    for line in read_lines(path):
        if not line.strip():
            sentences.append(([], []))
            continue
        token, _, tag = line.partition("\t")
        sentences[-1][0].append(token)
        sentences[-1][1].append(tag)
    return [each for each in sentences if each[0]]


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Label, first token, end; an I- that continues nothing begins an entity."""
    found, start, label = set(), 0, ""
    for at, tag in enumerate([*tags, "O"]):
        kind, _, name = tag.partition("-")
        if label and (kind != "I" or name != label):
            found.add((label, start, at))
            label = ""
        if name and not label:
            start, label = at, name
    return found


def f1(model: Model, tokenizer: Tokenizer, labels: Sequence[str], files: Sequence[Path]) -> float:
    """Micro F1 over entities; a word has the label of its first piece."""
    right = expected = total = 0
    for file in files:
        sentences = read_tagged(file)
        has_misc = any(tag.endswith("-MISC") for _, tags in sentences for tag in tags)
        encoded = tokenizer.encode_batch([words for words, _ in sentences], is_pretokenized=True)
        order = sorted(range(len(encoded)), key=lambda at: len(encoded[at].ids))
        for chunk in (order[first : first + BATCH] for first in range(0, len(order), BATCH)):
            for at, logits in zip(chunk, model.run([encoded[at].ids for at in chunk]), strict=True):
                tags = sentences[at][1]
                said = words_tags(encoded[at].word_ids, logits.argmax(-1), labels, len(tags))
                said = [
                    "O"
                    if true == "?" or (own.endswith("-MISC") and (not has_misc or true == "O|MISC"))
                    else own
                    for own, true in zip(said, tags, strict=True)
                ]
                gold = entities(["O" if tag in {"?", "O|MISC"} else tag for tag in tags])
                found = entities(said)
                right += len(gold & found)
                expected += len(gold)
                total += len(found)
    return 2 * right / (expected + total)


def words_tags(
    word_ids: Sequence[int | None],
    best: npt.NDArray[np.int64],
    labels: Sequence[str],
    count: int,
) -> Tags:
    """A tag a word, O for those that were cut off."""
    tags: dict[int, str] = {}
    for word, label in zip(word_ids, best, strict=True):
        if word is not None:
            tags.setdefault(word, labels[int(label)])
    return [tags.get(word, "O") for word in range(count)]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", type=Path, default=BUNDLED, help="export folder")
    parser.add_argument("--texts", type=Path, nargs="*", default=[])
    parser.add_argument("--tagged", type=Path, nargs="*", default=[])
    parser.add_argument("--count", type=int, default=2000, help="texts at most")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()

    config = json.loads((given.model / "config.json").read_text(encoding="utf-8"))
    labels = [config["id2label"][str(at)] for at in range(len(config["id2label"]))]
    tokenizer = Tokenizer.from_file(str(given.model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(config["max_position_embeddings"])
    texts = [line for file in given.texts for line in read_lines(file) if line.strip()]
    texts = (texts or load_texts())[: given.count]
    rows = [each.ids for each in tokenizer.encode_batch(texts)]
    with tempfile.TemporaryDirectory() as folder:
        candidates = models(given.model / "model.onnx", Path(folder))
    fast = speeds(candidates, rows[:: max(1, len(rows) // 500)], given.rounds)
    alone = {model.name: [model.run([row])[0] for row in rows] for model in candidates}
    original = alone[candidates[0].name]
    total = sum(map(len, rows))
    table = Table(title=f"{len(texts)} texts, {total} token labels; batches of {BATCH}; one thread")
    for column in (
        "", "times as fast", "texts that change in company", "their labels",
        "probability by up to", "labels unlike the first", "F1",
    ):  # fmt: skip
        table.add_column(column)
    for model in candidates:
        differs = company(model, rows, alone[model.name])
        unlike = sum(map(changed, original, alone[model.name]))
        table.add_row(
            model.name,
            f"{fast[model.name]:.2f}",
            str(differs.texts),
            str(differs.labels),
            f"{differs.probability:.2g}",
            str(unlike),
            f"{f1(model, tokenizer, labels, given.tagged):.4f}" if given.tagged else "-",
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
