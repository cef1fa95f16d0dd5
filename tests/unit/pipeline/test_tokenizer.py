"""Text to rows for five tokenizer families: limits, cuts, windows, special tokens."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from nerve.config.model import TokenizerConfig
from nerve.errors import InvalidField, ModelLoadFailed, TextTooLong, TokenizationFailed
from nerve.pipeline.tokenizer import (
    DEFAULT_MAX_LENGTH,
    MAX_CHARACTERS_PER_TOKEN,
    TextTokenizer,
    load_tokenizer,
    read_json_object,
)
from nerve.pipeline.windows import EncodedText, Window, owned
from nerve.types import CutOptions
from nerve.words import Side

MODELS = Path(__file__).parents[2] / "models"
FAMILIES = ["bert", "distilbert", "roberta", "xlm-roberta", "deberta-v2"]
WORDPIECE = {"bert", "distilbert"}
TEXT = "Angela Merkel visited the Zürich office of Siemens in May, with Ada Lovelace 😀 and John."
REFUSE = CutOptions(truncate=False)

JsonObject = Mapping[str, object]


def load(
    family: str,
    config: TokenizerConfig | None = None,
    *,
    max_row_tokens: int = 8192,
    file: Path | None = None,
    tokenizer_config: JsonObject | None = None,
    special_tokens: JsonObject | None = None,
    model_config: JsonObject | None = None,
) -> TextTokenizer:
    """The tokenizer of a model in tests/models, with other settings where given."""
    folder = MODELS / family

    def side_file(given: JsonObject | None, name: str) -> JsonObject:
        return read_json_object(folder / f"{name}.json") if given is None else given

    return load_tokenizer(
        file or folder / "tokenizer.json",
        model=family,
        config=config or TokenizerConfig(),
        max_row_tokens=max_row_tokens,
        tokenizer_config=side_file(tokenizer_config, "tokenizer_config"),
        special_tokens=side_file(special_tokens, "special_tokens_map"),
        model_config=side_file(model_config, "config"),
    )


def bare(family: str) -> Tokenizer:
    """The library's tokenizer, which cuts nothing."""
    tokenizer = Tokenizer.from_file(str(MODELS / family / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def kept(window: Window) -> list[tuple[int, int, int]]:
    """(id, start, end) of the tokens that the tokenizer did not add."""
    rows = np.column_stack([window.ids, window.offsets])[window.kept]
    return [(number, start, end) for number, start, end in rows.tolist()]


def full(family: str, text: str = TEXT) -> list[tuple[int, int, int]]:
    """The same of an uncut text, by the library itself."""
    encoding = bare(family).encode(text)
    return [
        (number, start, end)
        for number, (start, end), special in zip(
            encoding.ids, encoding.offsets, encoding.special_tokens_mask, strict=True
        )
        if not special
    ]


def only(encoded: EncodedText) -> Window:
    (window,) = encoded.windows
    return window


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_short_text_is_one_whole_row(family: str) -> None:
    """Ids, offsets, pieces and special tokens are the library's own."""
    encoding = bare(family).encode(TEXT)
    encoded = load(family).encode(TEXT, CutOptions())
    window = only(encoded)
    assert window.ids.tolist() == encoding.ids
    assert window.type_ids.tolist() == encoding.type_ids
    assert [tuple(pair) for pair in window.offsets.tolist()] == encoding.offsets
    assert window.pieces == encoding.tokens
    assert window.kept.tolist() == [False, *[True] * (len(encoding.ids) - 2), False]
    assert (encoded.tokens, encoded.truncated) == (len(encoding.ids), False)


@pytest.mark.parametrize("cut_side", list(Side))
@pytest.mark.parametrize("stride", [None, 3])
def test_many_texts_as_one_by_one(family: str, cut_side: Side, stride: int | None) -> None:
    """Short, empty, cut and far too long ones in one call."""
    tokenizer = load(family, TokenizerConfig(max_length=12, stride=stride))
    far_too_long = "Ada met John. " * MAX_CHARACTERS_PER_TOKEN
    texts = [TEXT, "", far_too_long, "Ada", f"x{far_too_long}", "東京 😀"]
    cut = CutOptions(side=cut_side)
    together = tokenizer.encode_many(texts, cut)
    for text, encoded in zip(texts, together, strict=True):
        alone = tokenizer.encode(text, cut)
        assert (encoded.tokens, encoded.truncated) == (alone.tokens, alone.truncated)
        assert [kept(window) for window in encoded.windows] == [
            kept(window) for window in alone.windows
        ]
    if stride is None:
        with pytest.raises(TextTooLong) as caught:
            tokenizer.encode_many(texts, REFUSE)
        assert (caught.value.given, caught.value.unit) == (len(far_too_long), "characters")


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u00ad", "[SEP]<s>[MASK]", "\x00", "😀"])
def test_odd_texts_encode(family: str, text: str) -> None:
    """Texts of nothing, of removed characters and of typed special tokens."""
    window = only(load(family).encode(text, CutOptions()))
    assert kept(window) == full(family, text)
    assert window.offsets.shape == (len(window.ids), 2)


def test_long_texts_are_cut_on_the_right(family: str) -> None:
    """The first tokens stay, between the special ones; the uncut length is told."""
    uncut = full(family)
    encoded = load(family, TokenizerConfig(max_length=10)).encode(TEXT, CutOptions())
    window = only(encoded)
    assert len(window.ids) == 10
    assert kept(window) == uncut[:8]
    assert window.kept.tolist() == [False, *[True] * 8, False]
    assert (encoded.tokens, encoded.truncated) == (len(uncut) + 2, True)


@pytest.mark.parametrize("how", ["request", "config.yaml", "tokenizer_config.json"])
def test_long_texts_are_cut_on_the_left(family: str, how: str) -> None:
    """The last tokens stay, whoever asks for it."""
    config = TokenizerConfig(
        max_length=10, truncation_side=Side.LEFT if how == "config.yaml" else None
    )
    own = {"truncation_side": "left"} if how == "tokenizer_config.json" else {}
    tokenizer = load(family, config, tokenizer_config=own)
    cut = CutOptions(side=Side.LEFT if how == "request" else None)
    encoded = tokenizer.encode(TEXT, cut)
    uncut = full(family)
    assert kept(only(encoded)) == uncut[-8:]
    assert (encoded.tokens, encoded.truncated) == (len(uncut) + 2, True)


def test_the_request_s_side_wins(family: str) -> None:
    """A model that cuts on the left cuts on the right for one request, and then left again."""
    tokenizer = load(family, TokenizerConfig(max_length=10, truncation_side=Side.LEFT))
    uncut = full(family)
    assert kept(only(tokenizer.encode(TEXT, CutOptions(side=Side.RIGHT)))) == uncut[:8]
    assert kept(only(tokenizer.encode(TEXT, CutOptions()))) == uncut[-8:]


@pytest.mark.parametrize("side", [None, *Side])
def test_a_text_over_the_limit_can_be_refused(family: str, side: Side | None) -> None:
    """The error tells the text's length and the limit, special tokens counted."""
    tokenizer = load(family, TokenizerConfig(max_length=10))
    with pytest.raises(TextTooLong) as caught:
        tokenizer.encode(TEXT, CutOptions(truncate=False, side=side))
    error = caught.value
    assert (error.given, error.limit, error.unit) == (len(full(family)) + 2, 10, "tokens")


def test_a_text_of_exactly_the_limit_is_not_cut(family: str) -> None:
    """The limit itself is allowed."""
    length = len(full(family)) + 2
    tokenizer = load(family, TokenizerConfig(max_length=length))
    encoded = tokenizer.encode(TEXT, REFUSE)
    assert (len(only(encoded).ids), encoded.truncated) == (length, False)
    shorter = load(family, TokenizerConfig(max_length=length - 1))
    with pytest.raises(TextTooLong):
        shorter.encode(TEXT, REFUSE)


@pytest.mark.parametrize("side", list(Side))
def test_characters_beyond_the_guard_are_not_looked_at(side: Side) -> None:
    """250 characters a token are read, from the end that stays; offsets are the whole text's."""
    tokenizer = load("bert", TokenizerConfig(max_length=8, truncation_side=side))
    guard = 8 * MAX_CHARACTERS_PER_TOKEN
    assert guard == 2000
    filler = " " * (guard - len("Paris"))
    text = f"Paris{filler}Rome" if side is Side.RIGHT else f"Rome{filler}Paris"
    encoded = tokenizer.encode(text, CutOptions())
    spans = {text[start:end] for _, start, end in kept(only(encoded))}
    assert "".join(sorted(spans, key=text.index)) == "Paris"
    assert encoded.truncated
    with pytest.raises(TextTooLong) as caught:
        tokenizer.encode(text, REFUSE)
    assert (caught.value.given, caught.value.limit) == (len(text), guard)
    assert caught.value.unit == "characters"


def test_a_text_at_the_guard_is_looked_at_whole() -> None:
    """250 characters a token are allowed."""
    tokenizer = load("bert", TokenizerConfig(max_length=8))
    text = " " * (8 * MAX_CHARACTERS_PER_TOKEN - 1) + "a"
    encoded = tokenizer.encode(text, REFUSE)
    assert [text[start:end] for _, start, end in kept(only(encoded))] == ["a"]
    assert not encoded.truncated


@pytest.mark.parametrize("side", list(Side))
@pytest.mark.parametrize(("max_length", "stride"), [(10, 0), (10, 3), (10, 7), (3, 0), (128, 5)])
def test_windows_cover_every_token_once(
    family: str, side: Side, max_length: int, stride: int
) -> None:
    """Owned tokens of all windows, in text order, are those of the uncut text."""
    tokenizer = load(
        family, TokenizerConfig(max_length=max_length, stride=stride, truncation_side=side)
    )
    uncut = full(family)
    encoded = tokenizer.encode(TEXT, CutOptions())
    assert encoded.tokens == len(uncut) + 2
    assert not encoded.truncated
    assert encoded.backward is (side is Side.LEFT)
    assert all(len(window.ids) <= max_length for window in encoded.windows)
    forward = encoded.windows[:: -1 if encoded.backward else 1]
    counted = [
        row
        for window, mask in zip(forward, owned(forward, stride), strict=True)
        for row in np.column_stack([window.ids, window.offsets])[mask].tolist()
    ]
    assert [tuple(row) for row in counted] == uncut
    for one, other in pairwise(forward):
        shared = kept(one)[len(kept(one)) - stride :]
        assert shared == kept(other)[:stride]


def test_windows_are_neither_cut_nor_refused() -> None:
    """With a stride, what the request says about cutting has no effect."""
    config = TokenizerConfig(max_length=10, stride=2, truncation_side=Side.RIGHT)
    tokenizer = load("bert", config)
    plain = tokenizer.encode(TEXT, CutOptions())
    for cut in (REFUSE, CutOptions(side=Side.LEFT)):
        other = tokenizer.encode(TEXT, cut)
        assert [kept(window) for window in other.windows] == [kept(w) for w in plain.windows]
    long = "Paris " * 600  # over the guard of a row: windows read on
    assert kept(tokenizer.encode(long, CutOptions()).windows[-1])[-1][2] == len(long) - 1


def test_without_special_tokens(family: str) -> None:
    """No token is added, and the whole limit is for the text."""
    config = TokenizerConfig(max_length=10, add_special_tokens=False)
    uncut = full(family)
    encoded = load(family, config).encode(TEXT, CutOptions())
    window = only(encoded)
    assert window.kept.all()
    assert kept(window) == uncut[:10]
    assert (encoded.tokens, encoded.truncated) == (len(uncut), True)
    assert load(family, config).encode("", CutOptions()).windows[0].ids.shape == (0,)


@pytest.mark.parametrize("stride", [0, 7])
def test_windows_without_special_tokens(family: str, stride: int) -> None:
    """Windows are as long as the limit, all of it text."""
    config = TokenizerConfig(max_length=10, stride=stride, add_special_tokens=False)
    encoded = load(family, config).encode(TEXT, CutOptions())
    assert encoded.tokens == len(full(family))
    assert {len(window.ids) for window in encoded.windows[:-1]} == {10}


def test_stride_that_the_library_refuses_is_a_load_failure() -> None:
    """The library leaves room for special tokens even where none are added; say so, or cope."""
    config = TokenizerConfig(max_length=10, stride=9, add_special_tokens=False)
    try:
        tokenizer = load("bert", config)
    except ModelLoadFailed as error:
        assert "stride" in str(error)  # noqa: PT017  either answer will do
    else:
        assert tokenizer.encode(TEXT, CutOptions()).tokens == len(full("bert"))


def test_stored_truncation_and_padding_are_dropped(family: str, tmp_path: Path) -> None:
    """A tokenizer.json saved after use carries settings that nobody meant."""
    used = bare(family)
    used.enable_truncation(5, stride=2, strategy="only_first", direction="left")
    used.enable_padding(length=64)
    file = tmp_path / "tokenizer.json"
    used.save(str(file))
    tokenizer = load(family, file=file)
    for cut in (CutOptions(), CutOptions(side=Side.LEFT)):
        assert kept(only(tokenizer.encode(TEXT, cut))) == full(family)
        assert len(only(tokenizer.encode("", cut)).ids) == 2


@pytest.mark.parametrize(("stride", "accepted"), [(7, True), (8, False), (9, False), (99, False)])
def test_stride_must_leave_room(family: str, stride: int, accepted: bool) -> None:
    """Windows of ten tokens, two of them special, move on only with a stride below eight."""
    config = TokenizerConfig(max_length=10, stride=stride)
    if accepted:
        assert load(family, config).stride == stride
        return
    with pytest.raises(ModelLoadFailed, match=rf"stride is {stride}, but must be below 8"):
        load(family, config)


@pytest.mark.parametrize(
    ("tokenizer_config", "model_config", "max_row_tokens", "expected"),
    [
        pytest.param({"model_max_length": 64}, {}, 8192, 64, id="tokenizer"),
        pytest.param({"max_length": 64}, {}, 8192, 64, id="older name"),
        pytest.param({"model_max_length": 64.0}, {}, 8192, 64, id="float"),
        pytest.param({}, {"max_position_embeddings": 256}, 8192, 256, id="positions"),
        pytest.param(
            {"model_max_length": 300}, {"max_position_embeddings": 256}, 8192, 256, id="smaller"
        ),
        pytest.param(
            {"model_max_length": 64}, {"max_position_embeddings": 256}, 8192, 64, id="other smaller"
        ),
        pytest.param(
            {"model_max_length": 1000000000000000019884624838656},
            {"max_position_embeddings": 256},
            8192,
            256,
            id="sentinel",
        ),
        pytest.param({"model_max_length": 1e30}, {}, 8192, DEFAULT_MAX_LENGTH, id="sentinel only"),
        pytest.param({}, {}, 8192, DEFAULT_MAX_LENGTH, id="nothing"),
        pytest.param({}, {}, 100, 100, id="engine's limit"),
        pytest.param({"model_max_length": 0}, {}, 8192, DEFAULT_MAX_LENGTH, id="zero"),
        pytest.param({"model_max_length": -1}, {}, 8192, DEFAULT_MAX_LENGTH, id="negative"),
        pytest.param({"model_max_length": None}, {}, 8192, DEFAULT_MAX_LENGTH, id="null"),
        pytest.param({"model_max_length": "64"}, {}, 8192, DEFAULT_MAX_LENGTH, id="string"),
        pytest.param({"model_max_length": float("nan")}, {}, 8192, DEFAULT_MAX_LENGTH, id="NaN"),
        pytest.param({"model_max_length": float("inf")}, {}, 8192, DEFAULT_MAX_LENGTH, id="inf"),
        pytest.param({}, {"max_position_embeddings": 0}, 8192, DEFAULT_MAX_LENGTH, id="none"),
        pytest.param(
            {},
            {"model_type": "roberta", "max_position_embeddings": 130, "pad_token_id": 1},
            8192,
            128,
            id="roberta",
        ),
        pytest.param(
            {},
            {"model_type": "xlm-roberta", "max_position_embeddings": 514},
            8192,
            512,
            id="pad id not said",
        ),
        pytest.param(
            {},
            {"model_type": "camembert", "max_position_embeddings": 514, "pad_token_id": 5},
            8192,
            508,
            id="another pad id",
        ),
        pytest.param(
            {},
            {"model_type": "bert", "max_position_embeddings": 130, "pad_token_id": 1},
            8192,
            130,
            id="bert starts at 0",
        ),
    ],
)
def test_the_limit_is_the_least_of_all(
    tokenizer_config: JsonObject, model_config: JsonObject, max_row_tokens: int, expected: int
) -> None:
    """Tokenizer, positions and engine each have one; HF's 1e30 and nonsense count as none."""
    tokenizer = load(
        "bert",
        tokenizer_config=tokenizer_config,
        model_config=model_config,
        max_row_tokens=max_row_tokens,
    )
    assert tokenizer.max_tokens == expected


def test_every_test_model_takes_128_tokens(family: str) -> None:
    """RoBERTa's 130 positions begin after the pad id."""
    assert load(family).max_tokens == 128


def test_max_length_may_lower_the_limit_but_not_raise_it() -> None:
    """The error names the limit."""
    assert load("bert", TokenizerConfig(max_length=128)).max_tokens == 128
    with pytest.raises(ModelLoadFailed, match=r"max_length is 129, .* at most 128 tokens"):
        load("bert", TokenizerConfig(max_length=129))
    with pytest.raises(ModelLoadFailed, match=r"max_length is 65, .* at most 64 tokens"):
        load("bert", TokenizerConfig(max_length=65), max_row_tokens=64)


def test_a_limit_without_room_for_text_is_refused() -> None:
    """Two special tokens and nothing else."""
    with pytest.raises(ModelLoadFailed, match="no room for text"):
        load("bert", tokenizer_config={"model_max_length": 2})
    without = TokenizerConfig(add_special_tokens=False)
    assert load("bert", without, tokenizer_config={"model_max_length": 2}).max_tokens == 2


@pytest.mark.parametrize(
    ("tokenizer_config", "special_tokens", "expected"),
    [
        pytest.param({"unk_token": "[UNK]"}, {}, 1, id="string"),
        pytest.param({"unk_token": {"content": "[UNK]", "lstrip": False}}, {}, 1, id="object"),
        pytest.param({}, {"unk_token": "[UNK]"}, 1, id="special_tokens_map"),
        pytest.param({"unk_token": None}, {"unk_token": {"content": "[UNK]"}}, 1, id="null first"),
        pytest.param({"unk_token": "[MASK]"}, {"unk_token": "[UNK]"}, 4, id="tokenizer_config"),
        pytest.param({}, {}, -1, id="none, whatever the model part says"),
        pytest.param({"unk_token": "no such piece"}, {}, -1, id="not in the vocabulary"),
        pytest.param({"unk_token": 7}, {"unk_token": ["[UNK]"]}, -1, id="nonsense"),
    ],
)
def test_unknown_token(
    tokenizer_config: JsonObject, special_tokens: JsonObject, expected: int
) -> None:
    """Its id comes from the two side files, in any form that they are written in."""
    tokenizer = load("bert", tokenizer_config=tokenizer_config, special_tokens=special_tokens)
    assert tokenizer.facts.unknown_id == expected


def test_piece_lengths_only_with_a_continuing_prefix(family: str) -> None:
    """WordPiece has one: code points of every piece, prefix included. The others have none."""
    lengths = load(family).facts.piece_lengths
    if family not in WORDPIECE:
        assert lengths is None
        return
    assert lengths is not None
    vocabulary = bare(family).get_vocab()
    assert len(lengths) == len(vocabulary)
    assert all(lengths[number] == len(piece) for piece, number in vocabulary.items())


def test_added_tokens_have_a_length_too(tmp_path: Path) -> None:
    """Ids beyond the model's own vocabulary can be looked up."""
    grown = bare("bert")
    grown.add_tokens(["coronavirus", "süd"])
    file = tmp_path / "tokenizer.json"
    grown.save(str(file))
    tokenizer = load("bert", file=file)
    window = only(tokenizer.encode("coronavirus süd", CutOptions()))
    assert tokenizer.facts.piece_lengths is not None
    assert tokenizer.facts.piece_lengths[window.ids[window.kept]].tolist() == [11, 3]


def test_threads_with_both_sides_do_not_disturb_each_other(family: str) -> None:
    """One tokenizer, eight threads, three kinds of cut: results are those of one thread."""
    texts = [f"{number} {TEXT}" for number in range(12)]
    cuts = [CutOptions(side=Side.LEFT), CutOptions(side=Side.RIGHT), CutOptions()]
    jobs = [(text, cut) for text in texts for cut in cuts]
    config = TokenizerConfig(max_length=10)
    alone = [kept(only(load(family, config).encode(text, cut))) for text, cut in jobs[:3]]
    calm = load(family, config)
    expected = [kept(only(calm.encode(text, cut))) for text, cut in jobs]
    assert expected[:3] == alone
    shared = load(family, config)
    together = threading.Barrier(8)

    def work(offset: int) -> bool:
        together.wait()
        order = [*range(offset, len(jobs)), *range(offset)]
        return all(kept(only(shared.encode(*jobs[job]))) == expected[job] for job in order)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(8)))


@pytest.mark.parametrize(
    ("stated", "warned"), [(False, True), (True, False), (None, False), ("no", False)]
)
def test_files_that_disagree_on_case_are_told(
    caplog: pytest.LogCaptureFixture, stated: object, warned: bool
) -> None:
    """bert's tokenizer.json lower-cases, and goes on doing so whatever the other file says."""
    tokenizer = load("bert", tokenizer_config={"do_lower_case": stated, "model_max_length": 64})
    assert [each.levelname for each in caplog.records] == ["WARNING"] * warned
    assert "do_lower_case" in caplog.text or not warned
    assert only(tokenizer.encode("PARIS", CutOptions())).pieces[1] == "par"


def test_a_text_that_the_library_refuses_fails_alone() -> None:
    """Half a surrogate pair is no text; the tokenizer goes on working."""
    tokenizer = load("bert")
    with pytest.raises(TokenizationFailed, match="'bert' could not tokenize"):
        tokenizer.encode("\ud800", CutOptions())
    assert kept(only(tokenizer.encode(TEXT, CutOptions()))) == full("bert")


UNUSUAL = (
    "Jose\u0301 lives in Ko\u0308ln\r\nand Angela Merkel in Berlin.",
    "李明 works for 腾讯 in 深圳, China.",
    "🚀 Elon Musk 👩‍👩‍👧 met Zoë in São Paulo 🇧🇷.",
    "[SEP]<s>[MASK] Foo\u00adbar GmbH of Mu\u200bnich",
)


@pytest.mark.parametrize("special", [None, True, False])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("side", list(Side))
@pytest.mark.parametrize("stride", [None, 0, 3])
def test_a_whole_text_is_as_the_library_has_it(
    family: str, side: Side, stride: int | None, own: bool, special: bool | None
) -> None:
    """However long, wherever the model would cut it, and with special tokens as asked for."""
    config = TokenizerConfig(
        max_length=12, truncation_side=side, stride=stride, add_special_tokens=own
    )
    tokenizer, library = load(family, config), bare(family)
    for text in (*UNUSUAL, " ", "Ada", " ".join(UNUSUAL) * 5):
        whole = tokenizer.whole(text, special=special)
        wanted = library.encode(text, add_special_tokens=own if special is None else special)
        assert whole.ids.tolist() == wanted.ids
        assert whole.type_ids.tolist() == wanted.type_ids
        assert [tuple(pair) for pair in whole.offsets.tolist()] == wanted.offsets
        assert whole.kept.tolist() == [not each for each in wanted.special_tokens_mask]
        assert whole.pieces == wanted.tokens


def test_a_whole_text_has_the_limit_of_characters(family: str) -> None:
    """The one that texts for the model have; where there are windows, there is none."""
    limit = MAX_CHARACTERS_PER_TOKEN * 12
    text = ("Ada " * limit)[: limit - 1] + "x"
    tokenizer = load(family, TokenizerConfig(max_length=12))
    assert tokenizer.whole(text, special=None).offsets.max() == limit
    with pytest.raises(TextTooLong) as caught:
        tokenizer.whole(f"{text}x", special=None)
    assert (caught.value.given, caught.value.limit) == (limit + 1, limit)
    assert caught.value.unit == "characters"
    strided = load(family, TokenizerConfig(max_length=12, stride=2))
    assert strided.whole(f"{text}x", special=None).offsets.max() == limit + 1


@pytest.mark.parametrize("skip", [True, False])
def test_ids_become_the_text_that_the_library_makes(family: str, skip: bool) -> None:
    """With and without special tokens, several rows at once."""
    library = bare(family)
    rows = [library.encode(text).ids for text in (*UNUSUAL, TEXT, TEXT * 9)]
    texts = load(family, TokenizerConfig(max_length=12)).texts_of(rows, skip_special_tokens=skip)
    assert texts == [library.decode(row, skip_special_tokens=skip) for row in rows]


@pytest.mark.parametrize("beyond", [1, 1 << 31, 1 << 40, 1 << 70])
def test_ids_out_of_the_vocabulary_are_refused(family: str, beyond: int) -> None:
    """The library would leave them out, or overflow."""
    tokenizer = load(family)
    highest = tokenizer.highest_id
    assert tokenizer.texts_of([[highest]], skip_special_tokens=False) == [
        bare(family).decode([highest], skip_special_tokens=False)
    ]
    for number in (highest + beyond, -beyond):
        with pytest.raises(InvalidField) as caught:
            tokenizer.texts_of([[5], [6, number]], skip_special_tokens=True)
        fault = f"{number} is not in the vocabulary, whose ids are 0 to {highest}"
        assert (caught.value.field, caught.value.fault) == ("ids", fault)


def test_an_id_in_a_gap_of_the_vocabulary_is_refused(tmp_path: Path) -> None:
    """Numbers may be left out between the lowest and the highest."""
    stored = json.loads((MODELS / "bert" / "tokenizer.json").read_text())
    vocabulary = stored["model"]["vocab"]
    gap = vocabulary.pop("people")
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(stored))
    with pytest.raises(InvalidField, match=f"ids: {gap} is not in the vocabulary"):
        load("bert", file=file).texts_of([[gap - 1, gap]], skip_special_tokens=True)


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"\xff\xfe", b"[1]", b'{"model": {}}'])
def test_a_broken_tokenizer_file_is_a_load_failure(tmp_path: Path, content: bytes) -> None:
    """The reason names the file."""
    file = tmp_path / "tokenizer.json"
    file.write_bytes(content)
    with pytest.raises(ModelLoadFailed, match=r"tokenizer\.json cannot be read"):
        load("bert", file=file)


def test_json_object_of_no_file_is_empty() -> None:
    assert read_json_object(None) == {}


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda text: text.encode(), id="UTF-8"),
        pytest.param(lambda text: b"\xef\xbb\xbf" + text.encode(), id="byte order mark"),
        pytest.param(lambda text: text.encode("utf-16"), id="UTF-16"),
    ],
)
def test_json_object_in_any_encoding_of_json(tmp_path: Path, write: Callable[[str], bytes]) -> None:
    """Editors on Windows leave marks."""
    file = tmp_path / "config.json"
    file.write_bytes(write(json.dumps({"a": "é"}, ensure_ascii=False)))
    assert read_json_object(file) == {"a": "é"}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        pytest.param(b"", "cannot be read", id="empty"),
        pytest.param(b'{"a": 1', "cannot be read", id="cut off"),
        pytest.param(b"\xff\xff", "cannot be read", id="no text"),
        pytest.param(b"[" * 100_000, "cannot be read", id="deep"),
        pytest.param(b'{"a": ' + b"9" * 5000 + b"}", "cannot be read", id="huge number"),
        pytest.param(b"[1]", "holds no JSON object", id="list"),
        pytest.param(b"null", "holds no JSON object", id="null"),
    ],
)
def test_json_object_of_a_broken_file(tmp_path: Path, content: bytes, fault: str) -> None:
    """Whatever is wrong, it is a ModelLoadFailed that names the file."""
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(ModelLoadFailed, match=rf"config\.json {fault}"):
        read_json_object(file)


def test_json_object_that_is_gone(tmp_path: Path) -> None:
    """A file that vanished after the scan."""
    with pytest.raises(ModelLoadFailed, match=r"config\.json cannot be read"):
        read_json_object(tmp_path / "config.json")
