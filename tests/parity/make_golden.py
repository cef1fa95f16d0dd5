"""Write golden/: what transformers.pipeline("ner") answers to given logits; see README.md.

Needs torch, transformers, tokenizers, onnxruntime and numpy, and nothing of this project. Every
expected value is the pipeline's own: no aggregation must be written here.
"""

import argparse
import base64
import gzip
import hashlib
import json
import platform
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
import tokenizers
import torch
import transformers
from golden_texts import LABEL_SETS, LABEL_TEXTS, LONG, SHORT, random_text
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.modeling_outputs import TokenClassifierOutput
from transformers.pipelines.token_classification import TokenClassificationPipeline

ROOT: Final = Path(__file__).resolve().parents[2]
MODELS: Final = {
    "bert": "tests/models/bert",
    "distilbert": "tests/models/distilbert",
    "roberta": "tests/models/roberta",
    "xlm-roberta": "tests/models/xlm-roberta",
    "deberta-v2": "tests/models/deberta-v2",
    "minilm-ner": "model_repository/minilm-ner/1",
}
SOURCES: Final = ("model", "random", "ties")
STRATEGIES: Final = ("none", "simple", "first", "average", "max")
IGNORES: Final[dict[str, list[str]]] = {"O": ["O"], "": []}
RANDOM_TEXTS: Final = 40

# (max_length, stride, text, truncation side): chunks that share tokens, or none, or everything
# but one token; texts that fit in one chunk, are empty, or need a dozen chunks.
STRIDED: Final = (
    (8, 3, LONG[2], "right"),
    (8, 0, LONG[2], "right"),
    (8, 5, LONG[2], "right"),
    (16, 0, LONG[0], "right"),
    (16, 3, LONG[0], "right"),
    (16, 8, LONG[1], "right"),
    (16, 4, LONG[0], "left"),
    (32, 0, LONG[1], "right"),
    (32, 8, LONG[0], "right"),
    (32, 16, LONG[1], "left"),
    (64, 8, LONG[2], "right"),
    (128, 0, LONG[2], "right"),
    (128, 3, LONG[0] + "  " + LONG[1] + LONG[0], "right"),
    (16, 3, "", "right"),
    (16, 3, " \n ", "right"),
    (8, 0, LONG[3], "right"),
    (8, 2, LONG[3], "right"),
)
TRUNCATED: Final = (
    (16, LONG[0], "right"),
    (16, LONG[0], "left"),
    (16, LONG[1], "right"),
    (16, LONG[1], "left"),
    (5, LONG[2], "right"),
    (5, LONG[2], "left"),
)

Logits = np.ndarray[tuple[int, int], np.dtype[np.float32]]
Rows = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Case:
    """One text, where its logits come from, and how the tokenizer cuts it."""

    text: str
    source: str
    max_length: int
    labels: tuple[str, ...] | None = None
    stride: int | None = None
    truncation_side: str = "right"


class GivenLogits(PreTrainedModel):
    """A model without weights that asks a function for its logits."""

    config_class = PreTrainedConfig

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.anchor = torch.nn.Parameter(torch.zeros(1))  # the pipeline wants to know a device
        self.logits_of: Callable[[Rows], Logits] | None = None

    def forward(self, **rows: torch.Tensor) -> TokenClassifierOutput:
        """Logits of one chunk, as a batch of one."""
        assert self.logits_of is not None
        return TokenClassifierOutput(logits=torch.from_numpy(self.logits_of(rows))[None])


class RecordingPipeline(TokenClassificationPipeline):
    """The real pipeline; keeps what it decodes."""

    seen: list[dict[str, Any]]

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        outputs = super()._forward(model_inputs)
        self.seen.append(outputs)
        return outputs


class Oracle:
    """One model folder: its tokenizer.json as it is, its labels, its ONNX file."""

    def __init__(self, name: str) -> None:
        folder = ROOT / MODELS[name]
        settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
        config = json.loads((folder / "config.json").read_text("utf-8"))
        keys = ("unk_token", "pad_token", "cls_token", "sep_token", "mask_token")
        file = str(folder / "tokenizer.json")
        self.name = name
        self.max_length: int = settings["model_max_length"]
        self.labels = [config["id2label"][str(i)] for i in range(len(config["id2label"]))]
        self.raw = tokenizers.Tokenizer.from_file(file)
        self.raw.no_truncation()
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=file,
            model_max_length=self.max_length,
            **{key: settings[key] for key in keys if key in settings},
        )
        self.model = GivenLogits(PreTrainedConfig())
        self.pipeline = RecordingPipeline(model=self.model, tokenizer=self.tokenizer, device="cpu")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a fixed order of summation
        self.session = onnxruntime.InferenceSession(
            folder / "model.onnx", options, providers=["CPUExecutionProvider"]
        )
        self.inputs = [node.name for node in self.session.get_inputs()]

    def onnx_logits(self, rows: Rows) -> Logits:
        """(tokens, labels) of one chunk."""
        zeros = torch.zeros_like(rows["input_ids"])  # token types: this tokenizer makes none
        feed = {name: rows.get(name, zeros).numpy() for name in self.inputs}
        return self.session.run(["logits"], feed)[0][0]

    def run(self, case: Case) -> dict[str, Any]:
        """Ask the pipeline for every strategy; return the line of the golden file."""
        labels = list(case.labels or self.labels)
        self.model.config.id2label = dict(enumerate(labels))
        self.tokenizer.model_max_length = case.max_length
        self.tokenizer.truncation_side = case.truncation_side
        cache: dict[bytes, Logits] = {}

        def logits_of(rows: Rows) -> Logits:
            key = rows["input_ids"].numpy().tobytes()
            if key not in cache:
                if case.source == "model":
                    cache[key] = self.onnx_logits(rows)
                else:
                    seed = hashlib.sha256(f"{self.name} {case!a} ".encode() + key).digest()
                    cache[key] = made_up(seed, rows["input_ids"].shape[1], len(labels), case.source)
            return cache[key]

        self.model.logits_of = logits_of
        expected: dict[str, dict[str, list[list[Any]]]] = {}
        chunks: list[dict[str, Any]] | None = None
        for strategy in STRATEGIES[0 if case.stride is None else 1 :]:
            expected[strategy] = {}
            for key, ignore in IGNORES.items():
                self.pipeline.seen = []
                answer = self.pipeline(
                    case.text,
                    aggregation_strategy=strategy,
                    ignore_labels=ignore,
                    **({} if case.stride is None else {"stride": case.stride}),
                )
                expected[strategy][key] = [row(item) for item in answer]
                recorded = [chunk(outputs) for outputs in self.pipeline.seen]
                assert chunks in (None, recorded)  # the same input for all ten answers
                chunks = recorded
        assert chunks is not None
        self.check(case, chunks)
        return {
            "text": case.text,
            "source": case.source,
            "labels": None if case.labels is None else labels,
            "max_length": case.max_length,
            "stride": case.stride,
            "truncation_side": case.truncation_side,
            "chunks": chunks,
            "expected": expected,
        }

    def token_count(self, text: str) -> int:
        """Tokens of the whole text, special ones included."""
        return len(self.raw.encode(text).ids)

    def check(self, case: Case, chunks: Sequence[dict[str, Any]]) -> None:
        """Make sure that transformers left tokenizer.json as it is."""
        if len(chunks) > 1 or self.token_count(case.text) > case.max_length:
            return
        raw = self.raw.encode(case.text)
        assert chunks[0]["ids"] == raw.ids, case
        assert chunks[0]["offsets"] == [list(pair) for pair in raw.offsets], case
        assert chunks[0]["special"] == raw.special_tokens_mask, case


def made_up(seed: bytes, tokens: int, labels: int, source: str) -> Logits:
    """Random logits in which neighbours often agree; of source "ties", multiples of 0.5."""
    rng = np.random.default_rng(np.frombuffer(seed, dtype="<u4"))
    values = rng.normal(0.0, 1.2, (tokens, labels))
    best = 0
    for i in range(tokens):
        move = rng.random()
        if move > 0.4:  # else: stay on the same label
            best = (best + 1) % labels if move < 0.6 else int(rng.integers(labels))
        values[i, best] += 2.0
        if source == "ties" and i and rng.random() < 0.3:
            values[i] = rng.permutation(values[i - 1])  # equal best scores in one word
        if source == "random" and rng.random() < 0.1:
            values[i] -= values[i].max()
            values[i, rng.integers(labels)] = -1e-8  # another logit, the same probability
    if source == "ties":
        values = np.clip(np.round(values * 2) / 2, -1.5, 2.5) + 0.0  # no negative zero
    return values.astype(np.float32)


def chunk(outputs: dict[str, Any]) -> dict[str, Any]:
    """What one chunk was decoded from; padding to the longest chunk is left out."""
    used = outputs["attention_mask"][0].numpy() == 1
    special = outputs["special_tokens_mask"][0].numpy()
    assert special[~used].all()
    assert used[: used.sum()].all()
    logits = outputs["logits"][0].numpy()[used]
    assert logits.dtype == np.float32
    return {
        "ids": outputs["input_ids"][0].numpy()[used].tolist(),
        "offsets": outputs["offset_mapping"][0].numpy()[used].tolist(),
        "special": special[used].tolist(),
        "logits": base64.b64encode(logits.astype("<f4").tobytes()).decode("ascii"),
    }


def row(item: dict[str, Any]) -> list[Any]:
    """[label, score, start, end], and the index where the pipeline gives one."""
    score = item["score"]
    number = float(str(score))  # the shortest decimal
    assert isinstance(score, np.float32)
    assert np.float32(number) == score
    label = item["entity"] if "entity" in item else item["entity_group"]
    place = [item["start"], item["end"]]
    return [label, number, *place, *([item["index"]] if "index" in item else [])]


def cases(oracle: Oracle, shift: int) -> Iterator[tuple[str, Case]]:
    """All cases of one model, each with its kind. `shift` deals the sources to the texts."""
    size = oracle.max_length
    texts = SHORT + tuple(random_text(f"{oracle.name} {i}", 4 + i % 9) for i in range(RANDOM_TEXTS))
    for i, text in enumerate(texts):
        yield "short", Case(text, SOURCES[(i + shift) % 3], size)
    for i, labels in enumerate(LABEL_SETS):
        text = LABEL_TEXTS[(i + shift) % len(LABEL_TEXTS)]
        yield "labels", Case(text, "random", size, labels)
        yield "labels", Case(text, "ties", size, labels)
    for i, (length, text, side) in enumerate(TRUNCATED):
        yield "truncated", Case(text, SOURCES[(i + shift) % 3], length, truncation_side=side)
    text = LONG[0]
    while oracle.token_count(text) <= size:
        text += " " + LONG[0]
    yield "truncated", Case(text, "ties", size, truncation_side=("right", "left")[shift % 2])
    for i, (length, stride, text, side) in enumerate(STRIDED):
        source = "ties" if length == 128 else SOURCES[(i + shift) % 3]
        yield "strided", Case(text, source, length, stride=stride, truncation_side=side)


def kinds(kind: str, case: Case, line: dict[str, Any]) -> list[str]:
    """The names under which the manifest counts a case."""
    names = [kind, f"source {case.source}"]
    if kind == "strided":
        names.append(f"strided, {'one chunk' if len(line['chunks']) == 1 else 'several chunks'}")
    if kind == "truncated":
        names.append(f"truncated {case.truncation_side}")
    return names


def write_gzip(path: Path, lines: Sequence[str]) -> None:
    """The same lines always give the same bytes."""
    with path.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write("".join(line + "\n" for line in lines).encode("ascii"))


def exp_probe() -> str:
    """A fingerprint of this machine's float32 exp."""
    values = np.exp(np.linspace(-20, 0, 257, dtype=np.float32))
    return hashlib.sha256(values.astype("<f4").tobytes()).hexdigest()


def main() -> None:
    """Write one file per model, then the manifest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "golden")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "Tokenizer does not support real words")
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)  # "not supported for ner"

    counts: dict[str, Counter[str]] = {}
    for shift, name in enumerate(MODELS):
        oracle, lines = Oracle(name), []
        counts[name] = Counter()
        for kind, case in cases(oracle, shift):
            if kind == "truncated":
                assert oracle.token_count(case.text) > case.max_length
            line = oracle.run(case)
            counts[name].update(["cases", *kinds(kind, case, line)])
            lines.append(json.dumps(line, separators=(",", ":")))
        write_gzip(out / f"{name}.jsonl.gz", lines)
    manifest = {
        "versions": {
            "python": platform.python_version(),
            **{m.__name__: m.__version__ for m in (transformers, tokenizers, np, torch)},
            "onnxruntime": onnxruntime.__version__,
        },
        "exp_probe": exp_probe(),
        "cases": sum(count["cases"] for count in counts.values()),
        "models": {
            name: {
                "tokenizer_sha256": hashlib.sha256(
                    (ROOT / MODELS[name] / "tokenizer.json").read_bytes()
                ).hexdigest(),
                "counts": dict(sorted(counts[name].items())),
            }
            for name in MODELS
        },
    }
    text = json.dumps(manifest, indent=2) + "\n"
    (out / "manifest.json").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
