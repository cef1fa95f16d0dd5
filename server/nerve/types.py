"""Frozen values that cross layers, and the two seams: `Engine` (numbers) and `ServedModel` (text)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from nerve.words import OffsetUnit, Side, Strategy

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


class Limits(NamedTuple):
    """What a run of a model's transform may take, at most."""

    max_instructions: int
    """Of Lua's virtual machine."""
    timeout_us: int
    """Wall time."""
    max_memory_bytes: int
    """Of what the script holds, tensors included."""


@dataclass(frozen=True, slots=True)
class Row:
    """One unpadded sequence for the engine: `ids` (tokens,) int64, `type_ids` alike or None for 0s."""

    ids: IntArray
    type_ids: IntArray | None = None


@dataclass(slots=True, eq=False)
class TracedRun:
    """A run with rows of requests that are traced; their results share it.

    `began` is in monotonic seconds; `traces` are `nerve.exchange.Exchange.trace` of those requests,
    each once, by their first row; `span` is for whoever traces.
    """

    began: float
    took_s: float
    rows: int
    tokens: int
    padded_tokens: int
    device: str
    traces: tuple[object, ...]
    span: object = None


@dataclass(frozen=True, slots=True)
class RowResult:
    """What the engine gives back for a row: `logits` (tokens, labels) float32, and durations.

    `inference_s` is that of the run, with what padding its batch took, `padding_s`. `run` is None
    where nobody traces.
    """

    logits: FloatArray
    queue_s: float
    inference_s: float
    padding_s: float = 0.0
    run: TracedRun | None = None


CROWD_TOKENS: Final = 256.0


def crowded(padded: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How crowded runs of so many tokens are, from 0 to 1."""
    return padded / (padded + CROWD_TOKENS)


@dataclass(frozen=True, slots=True)
class CostModel:
    """Seconds of a run as a function of its shape, from measurement; on the CPU those of a core.

    With n = rows x length, padding counted:
    `run_s` + n ⋅ (`token_s` + `attention_s` ⋅ length + `crowding_s` ⋅ n / (n + 256)), all at least
    0. The last two stand for attention, which looks at pairs of tokens, and for what no longer
    fits a cache: half of that is felt at 256 tokens (`CROWD_TOKENS`).
    """

    run_s: float
    token_s: float
    attention_s: float
    crowding_s: float

    def seconds(self, rows: ArrayLike, length: ArrayLike) -> npt.NDArray[np.float64]:
        """Predicted duration of runs; `rows` and `length` of any shapes that broadcast."""
        length = np.asarray(length, dtype=np.float64)
        padded = np.asarray(rows * length)
        seconds = self.crowding_s * crowded(padded)
        seconds += self.token_s + self.attention_s * length
        seconds *= padded
        return np.asarray(seconds + self.run_s)


class BatchTotals(NamedTuple):
    """All runs of one number of rows: how many, and the seconds that they took together.

    `output_s` is for telling their rows apart again.
    """

    rows: int
    runs: int = 0
    padding_s: float = 0.0
    running_s: float = 0.0
    output_s: float = 0.0


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """Totals since the warm-up; a row is one sequence, padding counts in `padded_tokens`.

    `sizes` has all of it by the number of rows, ascending.
    """

    batches: int = 0
    rows: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    queued_rows: int = 0
    cost: CostModel | None = None
    sizes: tuple[BatchTotals, ...] = ()

    @property
    def mean_batch_size(self) -> float:
        """Rows per batch, 0 before the first."""
        return self.rows / self.batches if self.batches else 0.0

    @property
    def padding_waste(self) -> float:
        """Padding's share of the padded tokens, 0 before the first batch."""
        return 1.0 - self.tokens / self.padded_tokens if self.padded_tokens else 0.0


class Engine(Protocol):
    """Runs rows of token ids; knows nothing of text, labels or protocols."""

    @property
    def device(self) -> str:
        """`cpu`, or `gpu` as soon as one instance runs on one."""

    def check_room(self) -> None:
        """Refuse early: raises QueueFull or ModelUnloaded where `infer` would do so right now."""

    async def infer(
        self, rows: Sequence[Row], *, deadline: float | None, priority: int | None = None
    ) -> list[RowResult]:
        """Run every row, in batches shared with other callers; results in the order of `rows`.

        Args:
            rows: at least one; each no longer than the engine's token limit.
            deadline: monotonic seconds (`time.monotonic`), or None.
            priority: 1 (first) to 10, or None for the model's default.
        Raises:
            QueueFull: too many rows are waiting already; nothing was queued.
            WaitTooLong: so much work is waiting that the deadline cannot be met; likewise.
            DeadlineExceeded: the deadline passed; rows that did not run yet never will.
            InferenceFailed: the runtime raised on one of the rows.
            ModelUnloaded: the engine was closed.
        """

    def statistics(self) -> EngineStatistics:
        """Totals so far."""

    async def aclose(self) -> None:
        """Stop the workers; rows still waiting fail with ModelUnloaded."""


def group_of(label: str) -> str:
    """The label of an entity whose first token has `label`, as in transformers: without prefix."""
    return label.split("-", 1)[-1]


class Span(NamedTuple):
    """A stretch of a text with a label: an entity, or a token in strategy `none`.

    `start`/`end` are half-open, in the unit that was asked for; `score` is a float32 probability
    (or logit, if raw scores were asked for); `token_id` is 0 for entities; `scores` (labels,)
    float32 is the whole row, only in strategy `none`.
    """

    text: str
    label: str
    score: np.float32
    start: int
    end: int
    token_id: int
    scores: FloatArray | None


@dataclass(frozen=True, slots=True)
class TokenTags:
    """The tokens of one text, in text order, without those that the tokenizer added.

    `logits` is (tokens, labels) float32, `best` the label id of each token and `score` its logit;
    the lists have one item a token, `start`/`end` half-open in the unit that was asked for. If the
    model's transform chose the labels, `logits` is (tokens, 1): those of the chosen ones.
    """

    pieces: list[str]
    ids: list[int]
    start: list[int]
    end: list[int]
    logits: FloatArray
    best: IntArray
    score: FloatArray

    def rows(self) -> Iterator[tuple[str, int, int, int, FloatArray, int, np.float32]]:
        """Piece, id, start, end, logits, label id and its score of each token."""
        fields = (self.pieces, self.ids, self.start, self.end, self.logits)
        return zip(*fields, self.best.tolist(), self.score, strict=True)


@dataclass(frozen=True, slots=True)
class TextTokens:
    """The tokens of one text that was only tokenized; each list has one item a token.

    `texts` are the stretches [`start`, `end`) of the text, in the unit that was asked for. Those
    that the tokenizer added are `special`: `texts` has their name, and they have no place (None).
    """

    ids: list[int]
    texts: list[str]
    special: list[bool]
    start: list[int | None]
    end: list[int | None]

    def __len__(self) -> int:
        return len(self.ids)


class RunTimes(NamedTuple):
    """Seconds of a whole call in the engine, one after the other: each run counts once, whole.

    `waiting_s` until the last of its runs is over, without those runs.
    """

    waiting_s: float = 0.0
    padding_s: float = 0.0
    running_s: float = 0.0


NO_RUNS: Final = RunTimes()


class TextCost(NamedTuple):
    """What one text of a call was: its tokens, special ones included, and whether it was cut."""

    tokens: int
    truncated: bool


class CacheUse(NamedTuple):
    """What a response cache did for a call.

    `hits` of its texts were answered without a run of their own; `seconds` went into looking
    answers up and keeping them.
    """

    hits: int
    seconds: float


class CallStatistics(NamedTuple):
    """What a call cost. Tokens include special ones; the durations are means over the texts, but
    for `runs`. `each` is of each text, in request order, empty where rows were brought; `cached` is None
    without a response cache. Tokens and truncated texts from a cache count like others."""

    tokens: int
    truncated_texts: int
    tokenization_s: float
    queue_s: float
    inference_s: float
    decoding_s: float = 0.0
    runs: RunTimes = NO_RUNS
    each: tuple[TextCost, ...] = ()
    cached: CacheUse | None = None


@dataclass(frozen=True, slots=True)
class SpanAnswer:
    """Spans of each text, in request order."""

    spans: list[list[Span]]
    statistics: CallStatistics


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """Token tags of each text, in request order."""

    texts: list[TokenTags]
    statistics: CallStatistics


@dataclass(frozen=True, slots=True)
class LogitsAnswer:
    """Finite logits (tokens, labels) float32 of each row, in request order."""

    logits: list[FloatArray]
    statistics: CallStatistics


@dataclass(frozen=True, slots=True)
class CutOptions:
    """What to do with a text longer than the model; without effect where windows are configured.

    `truncate` False refuses it; `side` None means the side that the model's config names.
    """

    truncate: bool = True
    side: Side | None = None


@dataclass(frozen=True, slots=True)
class SpanOptions:
    """How to turn scores into spans. None means the model's own default, then the given one."""

    strategy: Strategy
    ignore_labels: frozenset[str] = frozenset({"O"})
    raw_scores: bool = False
    offset_unit: OffsetUnit = OffsetUnit.CODEPOINT
    cut: CutOptions = field(default_factory=CutOptions)


@dataclass(frozen=True, slots=True)
class VersionFiles:
    """The files of one version in a repository.

    `problem` says why it cannot be loaded, and `onnx` may be None then; `side` holds the side
    files that exist, by name (tokenizer.json, config.json, …); `external` the data files that the
    graph names, by the location it names them with; `config` is the version's own config.yaml,
    laid over the model's; `golden` its texts with known entities; `digests` the SHA-256 of the graph
    and its data files, as hexadecimal digits.
    """

    number: int
    onnx: Path | None
    side: Mapping[str, Path]
    problem: str = ""
    external: Mapping[str, Path] = field(default_factory=dict)
    config: Path | None = None
    golden: Path | None = None
    digests: Mapping[Path, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a loaded version tells about itself; `max_tokens` counts special tokens.

    `default_timeout_s` is the longest that a request may take; None leaves it to the server.
    `type_ids` tells whether the graph takes token_type_ids, which are below `type_vocab_size`; ids of
    tokens are below `vocab_size`.
    `instances` says how many batches each device runs at the same time: a GPU's number, None the CPU.
    """

    name: str
    version: int
    labels: tuple[str, ...]
    max_tokens: int
    max_batch_size: int
    max_num_tokens: int
    max_queue_size: int
    stride: int | None
    device: str
    aggregation_strategy: Strategy | None
    offset_unit: OffsetUnit | None
    default_timeout_s: float | None = None
    type_ids: bool = False
    instances: tuple[tuple[int | None, int], ...] = ()
    vocab_size: int = 0
    type_vocab_size: int = 2


class ScoreTransform(Protocol):
    """The seam to a model's transform, which runs in a process of its own."""

    @property
    def probabilities(self) -> bool:
        """Whether what it returns for scores are probabilities, as its trial showed."""
        ...

    def check_room(self) -> None:
        """Raises QueueFull if as many requests wait as may."""
        ...

    async def apply(
        self, rows: Sequence[FloatArray], *, deadline: float | None
    ) -> list[FloatArray] | list[IntArray]:
        """Run it on the rows of one request.

        Args:
            rows: (tokens, labels) float32 of each.
            deadline: in monotonic seconds.
        Returns:
            The new scores of each row, of the same shape; or for each its tokens' labels (tokens,).
        Raises:
            TransformFailed, TransformResult, TransformLimit, TransformDown, QueueFull,
            DeadlineExceeded.
        """
        ...

    async def aclose(self) -> None:
        """End its process."""
        ...


class ServedModel(Protocol):
    """A loaded model version: texts in, spans or token tags out; or rows in, logits out."""

    @property
    def info(self) -> ModelInfo:
        """Facts that do not change while it is loaded."""

    async def spans(
        self,
        texts: Sequence[str],
        options: SpanOptions,
        *,
        deadline: float | None,
        priority: int | None = None,
    ) -> SpanAnswer:
        """Tag texts and join tokens into spans. Raises what `Engine.infer` raises, and:

        TextTooLong: a text is over the limit and may not be cut.
        TokenizationFailed, NonFiniteScores: the model broke on one of the texts.
        """

    async def tokens(
        self,
        texts: Sequence[str],
        *,
        unit: OffsetUnit,
        cut: CutOptions,
        deadline: float | None,
        priority: int | None = None,
    ) -> TokenAnswer:
        """Tag texts token by token. Raises as `spans` does."""

    async def spans_and_tokens(
        self,
        texts: Sequence[str],
        options: SpanOptions,
        *,
        deadline: float | None,
        priority: int | None = None,
    ) -> tuple[SpanAnswer, TokenAnswer]:
        """Both from the same runs; the tokens are in the same unit. Raises as `spans` does."""

    async def logits(
        self, rows: Sequence[Row], *, deadline: float | None, priority: int | None = None
    ) -> LogitsAnswer:
        """Run rows of token ids, special ones included, none longer than `info.max_tokens`.

        Raises as `spans` does, but TextTooLong and TokenizationFailed.
        """

    async def tokenize(
        self,
        texts: Sequence[str],
        *,
        add_special_tokens: bool | None,
        unit: OffsetUnit,
        max_tokens: int,
    ) -> list[TextTokens]:
        """Tokenize whole texts, none empty; nothing is run. Special tokens: None as for the model.

        Raises:
            InvalidField: they have more than `max_tokens` together.
            TextTooLong: a text is so long that `spans` would not look at all of it.
            TokenizationFailed: the tokenizer broke on one of the texts.
        """

    async def decode(self, rows: Sequence[list[int]], *, skip_special_tokens: bool) -> list[str]:
        """The texts that rows of token ids stand for.

        Raises:
            InvalidField: an id is not in the vocabulary.
            TokenizationFailed: the tokenizer broke on one of the rows.
        """

    def statistics(self) -> EngineStatistics:
        """The engine's totals."""

    async def aclose(self) -> None:
        """Free everything. The caller has waited for its users before."""
