"""Text -> token rows, and ids -> text, by Hugging Face `tokenizers`, whose only home this is."""

from __future__ import annotations

import itertools
import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from tokenizers import Encoding, Tokenizer

from nerve.config.model import TokenizerConfig
from nerve.errors import InvalidField, ModelLoadFailed, TextTooLong, TokenizationFailed
from nerve.pipeline.aggregation import TokenizerFacts
from nerve.pipeline.windows import EncodedText, Window, joined, total_length
from nerve.types import CutOptions, IntArray
from nerve.words import Side

log = logging.getLogger(__name__)

# The library's own threads, which it would use for several texts at once, spin while they wait for
# work and so take cores from sessions; texts take far less to tokenize than to run.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

DEFAULT_MAX_LENGTH = 512
"""What `tokenizers` truncates at when nobody says; used where no file tells a maximum."""
MAX_CHARACTERS_PER_TOKEN = 250
"""A text of more characters for each token of the limit is not even looked at beyond it (TEI)."""

_POSITIONS_AFTER_PADDING = frozenset(
    {"roberta", "xlm-roberta", "camembert", "roberta-prelayernorm", "xlm-roberta-xl", "longformer"}
    | {"data2vec-text", "xmod", "mpnet", "ibert", "bertweet", "luke", "mluke", "esm"}
)
"""Model types whose first position id is the pad id plus one."""


class TextTokenizer:
    """A loaded tokenizer with this model's limits. Thread-safe."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        model: str,
        max_tokens: int,
        side: Side,
        stride: int | None,
        add_special_tokens: bool,
        facts: TokenizerFacts,
        highest_id: int,
    ) -> None:
        self.max_tokens, self.side, self.stride, self.facts = max_tokens, side, stride, facts
        self.highest_id = highest_id  # of its vocabulary with added tokens; -1 without any token
        self._model, self._special = model, add_special_tokens
        self._added = tokenizer.num_special_tokens_to_add(is_pair=False) * add_special_tokens
        # A library tokenizer holds one truncation setting and changing it is not thread-safe, so
        # there is one object a direction, the second made when it is first asked for.
        self._by_side = {side: tokenizer}
        self._lock = threading.Lock()
        tokenizer.enable_truncation(max_tokens, stride=stride or 0, direction=side.value)

    def at_hand(self, cut: CutOptions) -> bool:
        """Whether `encode` starts at once; else it first makes a tokenizer for that side."""
        return self.stride is not None or (cut.side or self.side) in self._by_side

    def encode(self, text: str, cut: CutOptions) -> EncodedText:
        """`encode_many` for one text."""
        return self.encode_many([text], cut)[0]

    def encode_many(self, texts: Sequence[str], cut: CutOptions) -> list[EncodedText]:
        """Turn each text into one row, or into windows where a stride is configured.

        Raises:
            TextTooLong: a text is over the limit, there are no windows, and it may not be cut.
            TokenizationFailed: the library raised.
        """
        # Windows run in the direction of the tokenizer's own side, as in transformers.
        side = self.side if self.stride is not None else cut.side or self.side
        looked_at, shifts = list(texts), [0] * len(texts)
        limit = MAX_CHARACTERS_PER_TOKEN * self.max_tokens
        if self.stride is None and max(map(len, texts)) > limit:
            if not cut.truncate:
                raise TextTooLong(
                    next(n for n in map(len, texts) if n > limit), limit, "characters"
                )
            if side is Side.LEFT:
                shifts = [max(0, len(text) - limit) for text in texts]
            looked_at = [text[shift:][:limit] for text, shift in zip(texts, shifts, strict=True)]
        return [
            self._finish(encoding, cut=cut, shift=shift, guarded=len(seen) < len(text))
            for encoding, text, seen, shift in zip(
                self._encode(looked_at, side, self._special), texts, looked_at, shifts, strict=True
            )
        ]

    def whole(self, text: str, *, special: bool | None) -> Window:
        """A text as one row, however long it is.

        Args:
            text: not empty.
            special: whether [CLS], [SEP] and their like are put around it; None: as for the model.
        Raises:
            TextTooLong: so long that it would not be looked at to the end, and there are no windows.
            TokenizationFailed: the library raised.
        """
        limit = MAX_CHARACTERS_PER_TOKEN * self.max_tokens
        if self.stride is None and len(text) > limit:
            raise TextTooLong(len(text), limit, "characters")
        # In parts, as the one tokenizer that is at hand cuts it: one that does not cut would be a
        # second vocabulary in memory, and a long list of tokens is made without a break.
        special = self._special if special is None else special
        (encoding,) = self._encode([text], self.side, special)
        parts = [_window(part, 0) for part in (encoding, *encoding.overflowing)]
        if self.side is Side.LEFT:
            parts.reverse()
        return joined(parts, self.stride or 0)

    def texts_of(self, rows: Sequence[list[int]], *, skip_special_tokens: bool) -> list[str]:
        """The texts that rows of ids stand for.

        Raises:
            InvalidField: an id is not in the vocabulary; the library would leave it out.
            TokenizationFailed: the library raised.
        """
        tokenizer = self._by_side[self.side]
        for number in set(itertools.chain.from_iterable(rows)):
            if not 0 <= number <= self.highest_id or tokenizer.id_to_token(number) is None:
                fault = f"{number} is not in the vocabulary, whose ids are 0 to {self.highest_id}"
                raise InvalidField("ids", fault)
        with self._failures():
            # decode_batch lets go of the GIL, decode does not.
            return tokenizer.decode_batch(list(rows), skip_special_tokens=skip_special_tokens)

    def _encode(self, texts: list[str], side: Side, special: bool) -> list[Encoding]:
        tokenizer = self._by_side.get(side) or self._twin(side)
        with self._failures():
            # encode_batch lets go of the GIL, encode does not.
            return tokenizer.encode_batch(texts, add_special_tokens=special)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """What the library raises becomes TokenizationFailed."""
        try:
            yield
        except Exception as error:
            raise TokenizationFailed(self._model, str(error)) from error
        except BaseException as error:
            # A Rust panic arrives as pyo3's PanicException, which is no Exception.
            if type(error).__name__ == "PanicException":
                raise TokenizationFailed(self._model, f"panic: {error}") from error
            raise

    def _twin(self, side: Side) -> Tokenizer:
        with self._lock:
            if side not in self._by_side:
                twin = Tokenizer.from_str(next(iter(self._by_side.values())).to_str())
                twin.enable_truncation(self.max_tokens, stride=0, direction=side.value)
                self._by_side[side] = twin
            return self._by_side[side]

    def _finish(
        self, encoded: Encoding, *, cut: CutOptions, shift: int, guarded: bool
    ) -> EncodedText:
        parts = [encoded, *encoded.overflowing]
        bodies = [len(part) - self._added for part in parts]
        tokens = total_length(bodies, self.stride or 0) + self._added
        if self.stride is not None:
            windows = tuple(_window(part, shift) for part in parts)
            backward = self.side is Side.LEFT
            return EncodedText(windows, tokens, truncated=False, backward=backward)
        if len(parts) > 1 and not cut.truncate:
            raise TextTooLong(tokens, self.max_tokens, "tokens")
        return EncodedText((_window(encoded, shift),), tokens, len(parts) > 1 or guarded)


def _window(encoding: Encoding, shift: int) -> Window:
    kept = np.array(encoding.special_tokens_mask, dtype=np.int64) == 0
    # half the time that np.array needs for a list of pairs
    pairs = itertools.chain.from_iterable(encoding.offsets)
    offsets = np.fromiter(pairs, dtype=np.int64, count=2 * len(encoding)).reshape(-1, 2)
    return Window(
        ids=np.array(encoding.ids, dtype=np.int64),
        type_ids=np.array(encoding.type_ids, dtype=np.int64),
        offsets=offsets + shift if shift else offsets,
        kept=kept,
        pieces=encoding.tokens,
    )


def load_tokenizer(
    file: Path,
    *,
    model: str,
    config: TokenizerConfig,
    max_row_tokens: int,
    tokenizer_config: Mapping[str, object],
    special_tokens: Mapping[str, object],
    model_config: Mapping[str, object],
) -> TextTokenizer:
    """Load `tokenizer.json`; what it says is the truth, the other files give limits and names.

    Args:
        file: tokenizer.json. Truncation and padding stored in it are dropped.
        model: name for errors.
        config: overrides.
        max_row_tokens: most tokens that the engine takes in a row.
        tokenizer_config, special_tokens, model_config: the JSON objects of tokenizer_config.json,
            special_tokens_map.json and config.json; empty where there is no such file.
    Raises:
        ModelLoadFailed: the file is broken, or the limits contradict each other.
    """
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:
        raise ModelLoadFailed(f"{file.name} cannot be read: {error}") from error
    _warn_of_case(tokenizer, tokenizer_config, model)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    allowed = min(max_row_tokens, _allowed_length(tokenizer_config, model_config))
    max_tokens = allowed
    if config.max_length is not None:
        if config.max_length > allowed:
            raise ModelLoadFailed(
                f"tokenizer.max_length is {config.max_length}, but this model takes at most "
                f"{allowed} tokens (the least of model_max_length, the model's positions, and "
                "max_num_tokens)"
            )
        max_tokens = config.max_length
    added = tokenizer.num_special_tokens_to_add(is_pair=False)
    if max_tokens - added * config.add_special_tokens < 1:
        raise ModelLoadFailed(
            f"no room for text: {added} special tokens in rows of at most {max_tokens}"
        )
    # The library counts special tokens when it checks the stride, whether they are added or not.
    if config.stride is not None and config.stride >= max_tokens - added:
        raise ModelLoadFailed(
            f"tokenizer.stride is {config.stride}, but must be below {max_tokens - added}, the "
            "tokens of a window without the special ones"
        )
    unknown = _token_text(tokenizer_config.get("unk_token")) or _token_text(
        special_tokens.get("unk_token")
    )
    unknown_id = tokenizer.token_to_id(unknown) if unknown else None
    prefix = getattr(tokenizer.model, "continuing_subword_prefix", None)
    return TextTokenizer(
        tokenizer,
        model=model,
        max_tokens=max_tokens,
        side=config.truncation_side or _side(tokenizer_config.get("truncation_side")),
        stride=config.stride,
        add_special_tokens=config.add_special_tokens,
        facts=TokenizerFacts(
            piece_lengths=_piece_lengths(tokenizer) if prefix else None,
            unknown_id=-1 if unknown_id is None else unknown_id,
        ),
        highest_id=_highest_id(tokenizer),
    )


MAX_SIDE_FILE_BYTES: Final = 16 * 2**20
"""Real ones have a few kilobytes; tokenizer.json is not read here."""


def read_json_object(file: Path | None) -> dict[str, object]:
    """A side file as a dict; empty if there is none.

    Raises:
        ModelLoadFailed: it is no JSON object.
    """
    if file is None:
        return {}
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_SIDE_FILE_BYTES + 1)
        if len(content) > MAX_SIDE_FILE_BYTES:
            raise ModelLoadFailed(f"{file.name} is over {MAX_SIDE_FILE_BYTES} bytes")
        value = json.loads(content)
    except OSError as error:  # its own text has the path
        raise ModelLoadFailed(f"{file.name} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelLoadFailed(f"{file.name} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ModelLoadFailed(f"{file.name} holds no JSON object")
    return value


def positions_after_padding(model_config: Mapping[str, object]) -> bool:
    """Whether config.json names a model whose first position id is the pad id plus one."""
    return model_config.get("model_type") in _POSITIONS_AFTER_PADDING


def _allowed_length(
    tokenizer_config: Mapping[str, object], model_config: Mapping[str, object]
) -> int:
    """The smaller of what tokenizer and positions allow (contracts: aggregation, 1)."""
    limits = []
    stated = tokenizer_config.get("model_max_length", tokenizer_config.get("max_length"))
    if isinstance(stated, int | float) and 0 < stated < 1 << 24:  # else HF's "no limit", 1e30
        limits.append(int(stated))
    positions = model_config.get("max_position_embeddings")
    if isinstance(positions, int) and positions > 0:
        pad = model_config.get("pad_token_id", 1)
        if positions_after_padding(model_config) and isinstance(pad, int):
            positions -= pad + 1
        limits.append(positions)
    return min(limits, default=DEFAULT_MAX_LENGTH)


def _warn_of_case(tokenizer: Tokenizer, tokenizer_config: Mapping[str, object], model: str) -> None:
    """transformers 5 rebuilds some tokenizers from tokenizer_config.json; here the file rules."""
    stated = tokenizer_config.get("do_lower_case")
    does = getattr(tokenizer.normalizer, "lowercase", None)
    if isinstance(stated, bool) and isinstance(does, bool) and stated != does:
        log.warning(
            "model %s: tokenizer_config.json says do_lower_case %s, but tokenizer.json %s; "
            "tokenizer.json is followed, transformers 5 may follow the other",
            model, stated, "lower-cases" if does else "keeps the case",
        )  # fmt: skip


def _token_text(value: object) -> str | None:
    """A special token as files write it: a string, or an object with `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _side(value: object) -> Side:
    return Side.LEFT if value == "left" else Side.RIGHT


def _highest_id(tokenizer: Tokenizer) -> int:
    """The highest id of its vocabulary, added tokens included; -1 if it is empty."""
    added = tokenizer.get_added_tokens_decoder()
    if type(tokenizer.model).__name__ == "Unigram":
        # Numbered without gaps. Its 250,000 pieces as a dict would hold the interpreter for long.
        own = tokenizer.get_vocab_size(with_added_tokens=False) - 1
    else:
        own = max(tokenizer.get_vocab(with_added_tokens=False).values(), default=-1)
    return max([own, *added])


def _piece_lengths(tokenizer: Tokenizer) -> IntArray:
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    lengths = np.zeros(max(vocabulary.values(), default=-1) + 1, dtype=np.int64)
    for piece, number in vocabulary.items():
        lengths[number] = len(piece)
    return lengths
