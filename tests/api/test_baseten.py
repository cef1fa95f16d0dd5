"""Baseten's predict_tokens, row by row (its contract, sections 2 to 7, 12 and 13).

Its own client is in tests/clients.
"""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from api.conftest import Client, Oracle, Repository, Serve, Server

PATHS = (
    "/predict_tokens",
    "/v1/models/minilm-ner/predict_tokens",
    "/v1/models/minilm-ner/versions/1/predict_tokens",
)
LABELS = ("O", "B-MISC", "I-MISC", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
STRATEGIES = ("none", "simple", "first", "average", "max")
APPLE = "Apple is looking at buying U.K. startup for $1 billion"
ADA = "Ada Lovelace met Babbage in London"
UNUSUAL = [
    "🚀 Elon Musk 👩‍👩‍👧 met Zoë in São Paulo 🇧🇷.",
    "Jose\u0301 lives in Ko\u0308ln\r\nand Angela Merkel in Berlin.",
    "李明 works for 腾讯 in 深圳, China.",
    "Foo\u00adbar GmbH of Mu\u200bnich",
]


def softmax(logits: list[float]) -> Any:
    row = np.array(logits, dtype=np.float32)
    powers = np.exp(row - row.max())
    return powers / powers.sum()


def found(items: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(item["token"], next(iter(item["results"]))) for item in items]


def refused(answer: Any, status: int, kind: str) -> str:
    """Check an error's status and shape; its sentence comes back."""
    assert answer.status == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert list(body) == ["error", "error_type"]
    assert body["error_type"] == kind
    assert isinstance(body["error"], str)
    assert body["error"]
    return str(body["error"])


@pytest.mark.parametrize("path", PATHS)
async def test_contract_example(http: Client, path: str) -> None:
    """Whole entities of the documented request, on each route (1)."""
    body = {
        "inputs": [[ADA]],
        "truncate": True,
        "raw_scores": False,
        "aggregation_strategy": "max",
    }
    answer = await http.post(path, body)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    page = answer.json()
    assert len(page) == 1
    assert found(page[0]) == [("Ada Lovelace", "PER"), ("Babbage", "PER"), ("London", "LOC")]
    assert [(e["token_id"], e["start"], e["end"]) for e in page[0]] == [
        (0, 0, 12),
        (0, 17, 24),
        (0, 28, 34),
    ]


async def test_items_on_the_wire(http: Client) -> None:
    """Exactly five keys, in the documented order, compact (1)."""
    answer = await http.predict_tokens([APPLE], aggregation_strategy="max")
    score = answer.json()[0][0]["results"]["ORG"]
    assert 0 < score <= 1
    assert answer.text.startswith(
        '[[{"token":"Apple","token_id":0,"start":0,"end":5,"results":{"ORG":' + f"{score}" + "}},{"
    )
    for strategy in STRATEGIES:
        page = (await http.predict_tokens([APPLE], aggregation_strategy=strategy)).json()
        assert page[0]
        for item in page[0]:
            assert list(item) == ["token", "token_id", "start", "end", "results"]
            assert len(item["results"]) == 1


# --- section 2: the request


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_shapes_of_the_same_texts(http: Client, strategy: str) -> None:
    """Nesting only groups: the bodies are the same to the byte (2, 13.1)."""
    shapes: list[object] = [[APPLE, ADA], [[APPLE], [ADA]], [[APPLE, ADA]], [APPLE, [ADA]]]
    answers = [await http.predict_tokens(each, aggregation_strategy=strategy) for each in shapes]
    assert {answer.status for answer in answers} == {200}
    assert {answer.body for answer in answers} == {answers[0].body}
    assert len(answers[0].json()) == 2


@pytest.mark.parametrize(
    ("inputs", "texts"),
    [
        (ADA, 1),
        ([ADA], 1),
        ([[ADA]], 1),
        ([ADA, APPLE], 2),
        ([[ADA], [APPLE, ADA]], 3),
        ([ADA, [APPLE]], 2),
        ([[ADA], []], 1),
        ([[], [ADA], APPLE], 2),
    ],
)
async def test_one_entry_a_text(http: Client, inputs: object, texts: int) -> None:
    """Two levels whatever was sent, and never a sentence pair (2)."""
    page = (await http.predict_tokens(inputs)).json()
    assert len(page) == texts
    assert all(isinstance(entry, list) for entry in page)


@pytest.mark.parametrize("inputs", [[], [[]], [[], []], "", [""], [[""]], ["a", ""], [["a"], [""]]])
@pytest.mark.parametrize("path", PATHS)
async def test_empty(http: Client, path: str, inputs: object) -> None:
    """No text, or an empty one among others: the whole request is refused (2, 6)."""
    answer = await http.post(path, {"inputs": inputs})
    assert refused(answer, 400, "Empty") == "`inputs` cannot be empty"


@pytest.mark.parametrize("text", [" ", "\n\t ", "\u3000", "\u200b"])
@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_blank_text(http: Client, text: str, strategy: str) -> None:
    """A text without tokens has no entities; it is not empty (2)."""
    for inputs, body in (([text], "[[]]"), (text, "[[]]")):
        answer = await http.predict_tokens(inputs, aggregation_strategy=strategy, ignore_labels=[])
        assert (answer.status, answer.text) == (200, body)


async def test_text_without_entities(http: Client) -> None:
    """It is an empty list at its place (1)."""
    page = (
        await http.predict_tokens(["the people", ADA, "the"], aggregation_strategy="max")
    ).json()
    assert [len(each) for each in page] == [0, 3, 0]


@pytest.mark.parametrize(
    "inputs", [3, 1.5, None, True, {}, {"0": "a"}, [1], [None], ["a", 3], [[["a"]]], [[1]], [{}]]
)
async def test_inputs_of_wrong_type(http: Client, inputs: object) -> None:
    """422, naming the field (2)."""
    answer = await http.predict_tokens(inputs)
    assert refused(answer, 422, "Validation").startswith("inputs")


async def test_inputs_missing(http: Client) -> None:
    """422, naming the field (2)."""
    assert refused(await http.post("/predict_tokens", {}), 422, "Validation").startswith("inputs")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("truncate", "yes"),
        ("truncate", 1),
        ("truncate", []),
        ("truncation_direction", "LEFT"),
        ("truncation_direction", "RIGHT"),
        ("truncation_direction", ""),
        ("truncation_direction", 1),
        ("raw_scores", "true"),
        ("raw_scores", 0),
        ("raw_scores", None),
        ("aggregation_strategy", "Max"),
        ("aggregation_strategy", "MAX"),
        ("aggregation_strategy", "mean"),
        ("aggregation_strategy", ""),
        ("aggregation_strategy", 1),
        ("ignore_labels", "O"),
        ("ignore_labels", [1]),
        ("ignore_labels", {}),
        ("offset_unit", "char"),
        ("offset_unit", "Byte"),
    ],
)
async def test_field_of_wrong_value(http: Client, field: str, value: object) -> None:
    """422, naming the field; other cases of a right word are wrong (2, 13.7)."""
    answer = await http.post("/predict_tokens", {"inputs": ["a"], field: value})
    assert refused(answer, 422, "Validation").startswith(field)


async def test_defaults(http: Client) -> None:
    """What is left out is none, true, Right, false, O (2)."""
    text = f"german {'people ' * 200} university"
    bare = await http.predict_tokens([text], model="rule")
    said = await http.predict_tokens(
        [text],
        model="rule",
        truncate=True,
        truncation_direction="Right",
        raw_scores=False,
        aggregation_strategy="none",
        ignore_labels=["O"],
    )
    null = await http.predict_tokens([text], model="rule", truncate=None)
    assert bare.status == 200
    assert bare.body == said.body == null.body
    assert found(bare.json()[0]) == [("german", "B-PER")]


async def test_unknown_fields_are_ignored(http: Client) -> None:
    """As in the fork (2)."""
    plain = await http.predict_tokens([ADA])
    extra = {"model": "x", "normalize": True, "parameters": {"inputs": 1}, "": None}
    answer = await http.post("/predict_tokens", {"inputs": [ADA]} | extra)
    assert (answer.status, answer.body) == (200, plain.body)


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "application/x-www-form-urlencoded",
        "text/plain",
        "application/json; charset=utf-8",
        "garbage",
        "multipart/form-data; boundary=x",
    ],
)
async def test_any_content_type(http: Client, content_type: str | None) -> None:
    """Baseten's own curl lines leave it out, so curl sends the form type (6)."""
    plain = await http.predict_tokens(["Paris"])
    body = b'{"inputs":["Paris"]}'
    answer = await http.send("POST", "/predict_tokens", data=body, content_type=content_type)
    assert (answer.status, answer.body) == (200, plain.body)


# --- section 3: the values


async def test_tokens_of_mode_none(http: Client, oracle: Oracle) -> None:
    """Slice of the text, vocabulary id, full label, its softmax (3.1 to 3.4, 4)."""
    for text in (APPLE, *UNUSUAL):
        expected = [
            (text[start:end], number, start, end, LABELS[int(np.argmax(logits))], logits)
            for _, number, start, end, logits in oracle.tokens(text)
        ]
        items = (await http.predict_tokens([text], ignore_labels=[])).json()[0]
        assert [
            (item["token"], item["token_id"], item["start"], item["end"], *item["results"])
            for item in items
        ] == [each[:5] for each in expected]
        np.testing.assert_allclose(
            [next(iter(item["results"].values())) for item in items],
            [softmax(each[5].tolist()).max() for each in expected],
            rtol=0,
            atol=1e-5,
        )
        kept = (await http.predict_tokens([text])).json()[0]
        assert kept == [item for item in items if "O" not in item["results"]]
        assert kept


async def test_raw_scores_of_mode_none(http: Client) -> None:
    """Logits of all labels in label order; their softmax is the number without raw (4, 13.3)."""
    for ignored in (["O"], []):
        plain = await http.predict_tokens([APPLE, *UNUSUAL], ignore_labels=ignored)
        raw = await http.predict_tokens([APPLE, *UNUSUAL], ignore_labels=ignored, raw_scores=True)
        for one, other in zip(plain.json(), raw.json(), strict=True):
            assert len(one) == len(other) > 0
            for item, logits in zip(one, other, strict=True):
                assert list(logits["results"]) == list(LABELS)
                ((label, score),) = item["results"].items()
                row = softmax(list(logits["results"].values()))
                assert LABELS[int(row.argmax())] == label
                np.testing.assert_allclose(np.float32(score), row.max(), rtol=3e-7, atol=0)
                assert {**item, "results": 0} == {**logits, "results": 0}


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_numbers_are_shortest_float32(http: Client, strategy: str, raw: bool) -> None:
    """No float64 tails (3.2, 13.8)."""
    answer = await http.predict_tokens(
        [APPLE, ADA, *UNUSUAL], aggregation_strategy=strategy, raw_scores=raw, ignore_labels=[]
    )
    written = answer.decimals()
    numbers = sum(len(item["results"]) for entry in answer.json() for item in entry)
    assert len(written) == numbers > 0
    for number in written:
        assert Decimal(number) == Decimal(str(np.float32(number))), number


@pytest.mark.parametrize("family", ["minilm-ner", "roberta", "xlm-roberta", "deberta-v2"])
@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_token_is_the_slice(http: Client, strategy: str, family: str) -> None:
    """`token == text[start:end]` in code points, whatever the text; order and bounds (3.3, 13.4)."""
    answer = await http.predict_tokens(
        UNUSUAL, model=family, aggregation_strategy=strategy, ignore_labels=[]
    )
    for text, items in zip(UNUSUAL, answer.json(), strict=True):
        assert items
        for item in items:
            assert 0 <= item["start"] <= item["end"] <= len(text)
            assert item["token"] == text[item["start"] : item["end"]]
            assert strategy == "none" or item["token_id"] == 0
        assert [item["start"] for item in items] == sorted(item["start"] for item in items)


@pytest.mark.parametrize("strategy", ["none", "max"])
async def test_offset_unit(http: Client, strategy: str) -> None:
    """Bytes and UTF-16 units on demand; `token` stays (3.3)."""
    text = UNUSUAL[0]
    plain = await http.predict_tokens([text], aggregation_strategy=strategy)
    for unit, encoding, size in (
        ("codepoint", "utf-32-le", 4),
        ("byte", "utf-8", 1),
        ("utf16", "utf-16-le", 2),
    ):
        answer = await http.predict_tokens([text], aggregation_strategy=strategy, offset_unit=unit)
        assert answer.status == 200, answer.text
        encoded = text.encode(encoding)
        assert found(answer.json()[0]) == found(plain.json()[0])
        for item in answer.json()[0]:
            piece = encoded[item["start"] * size : item["end"] * size]
            assert piece.decode(encoding) == item["token"]


async def test_offset_unit_of_the_model(http: Client) -> None:
    """A model's config decides where the request does not; so does its strategy (2, 3.3)."""
    answer = await http.predict_tokens(["🚀 people"], model="configured", ignore_labels=[])
    last = answer.json()[0][-1]
    assert (last["token"][-6:], last["end"]) == ("people", 9)
    assert last["token_id"] == 0
    own = await http.predict_tokens(
        ["🚀 people"], model="configured", ignore_labels=[], aggregation_strategy="none"
    )
    assert own.json()[0][-1]["token_id"] != 0


async def test_offset_unit_of_the_server(serve: Serve, repository: Repository) -> None:
    """The operator's choice for clients that come from BEI."""
    repository.add("bert")
    http = await serve(repository.path, offset_unit="byte")
    answer = await http.predict_tokens(["🚀 people"], ignore_labels=[])
    assert answer.json()[0][-1]["start"] == 5


async def test_group_labels_end_at_the_first_hyphen(http: Client) -> None:
    """B-WORK-OF-ART is WORK-OF-ART in a group, and itself in mode none (3.4)."""
    text = "university company"
    grouped = await http.predict_tokens([text], model="rule", aggregation_strategy="simple")
    assert found(grouped.json()[0]) == [("university company", "WORK-OF-ART")]
    plain = await http.predict_tokens([text], model="rule")
    assert found(plain.json()[0]) == [
        ("university", "B-WORK-OF-ART"),
        ("company", "I-WORK-OF-ART"),
    ]


# --- section 4: the modes


async def test_special_tokens_by_mask(http: Client) -> None:
    """Those that the tokenizer adds are dropped; literal ones and unknown words stay (4)."""
    items = (await http.predict_tokens(["Hi [SEP] 🦄 [CLS]"], ignore_labels=[])).json()[0]
    assert [(item["token"], item["token_id"]) for item in items] == [
        ("Hi", 7632),
        ("[SEP]", 102),
        ("🦄", 100),
        ("[CLS]", 101),
    ]


async def test_ignore_labels_of_mode_none(http: Client) -> None:
    """Matched against the full label (4)."""

    async def tokens(*ignored: str) -> list[str]:
        answer = await http.predict_tokens(
            ["the german israel people"], model="rule", ignore_labels=list(ignored)
        )
        return [item["token"] for item in answer.json()[0]]

    assert await tokens() == ["the", "german", "israel", "people"]
    assert await tokens("O") == ["german", "israel"]
    assert await tokens("PER") == ["the", "german", "israel", "people"]
    assert await tokens("B-PER") == ["the", "israel", "people"]
    assert await tokens("O", "B-PER", "I-PER") == []


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
async def test_ignore_labels_of_groups(http: Client, strategy: str) -> None:
    """Matched against the group's label; `O` groups appear when nothing is ignored (4)."""

    async def groups(*ignored: str) -> list[tuple[str, str]]:
        answer = await http.predict_tokens(
            ["the people german israel world"],
            model="rule",
            aggregation_strategy=strategy,
            ignore_labels=list(ignored),
        )
        return found(answer.json()[0])

    everything = [("the people", "O"), ("german israel", "PER"), ("world", "O")]
    assert await groups() == everything
    assert await groups("B-PER", "I-PER") == everything
    assert await groups("O") == [("german israel", "PER")]
    assert await groups("PER") == [("the people", "O"), ("world", "O")]


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
async def test_scores_of_groups(http: Client, strategy: str) -> None:
    """The mean of the items' probabilities, or of their logits (4)."""
    inputs = ["german israel"]
    plain = await http.predict_tokens(inputs, model="rule", aggregation_strategy=strategy)
    rows = [softmax([0.5, 5.5, 0.25, 0.0, -1.0]), softmax([0.5, 0.0, 3.25, 0.0, -1.0])]
    score = plain.json()[0][0]["results"]["PER"]
    np.testing.assert_allclose(score, np.mean([row.max() for row in rows]), rtol=3e-7)
    raw = await http.predict_tokens(
        inputs, model="rule", aggregation_strategy=strategy, raw_scores=True
    )
    assert raw.text == (
        '[[{"token":"german israel","token_id":0,"start":0,"end":13,"results":{"PER":4.375}}]]'
    )


async def test_ties_take_the_lowest_label(http: Client) -> None:
    """Five equal scores are label 0, which is `O` (4)."""
    answer = await http.predict_tokens(["music"], model="rule", ignore_labels=[])
    assert answer.json()[0][0]["results"] == {"O": pytest.approx(0.2)}
    assert (await http.predict_tokens(["music"], model="rule")).text == "[[]]"


# --- section 5: limits and truncation


@pytest.mark.parametrize("path", PATHS)
async def test_limit_of_texts(http: Client, path: str) -> None:
    """128 texts are taken, 129 are not, however they are nested (5, 13.5)."""
    full = await http.post(path, {"inputs": ["Paris"] * 128})
    assert full.status == 200
    assert len(full.json()) == 128
    over: list[object] = [["Paris"] * 129, [["Paris"]] * 129, [["Paris"] * 64, ["Paris"] * 65]]
    for inputs in over:
        answer = await http.post(path, {"inputs": inputs})
        text = "batch size 129 > maximum allowed batch size 128"
        assert refused(answer, 413, "Validation") == text


async def test_limit_of_tokens(http: Client) -> None:
    """512 tokens are taken uncut, 513 are refused when they may not be cut (5, 13.5)."""
    exact, over = "Paris " * 510, "Paris " * 511
    answer = await http.predict_tokens([exact], truncate=False)
    assert answer.status == 200
    assert "x-nerve-truncated-inputs" not in answer.headers
    sentence = refused(await http.predict_tokens([over], truncate=False), 413, "Validation")
    assert sentence == (
        "Input validation error: `inputs` must have less than 512 tokens. Given: 513"
    )
    for truncate in ({"truncate": True}, {"truncate": None}, {}):
        cut = await http.predict_tokens([over], **truncate)
        assert cut.status == 200
        assert cut.headers["x-nerve-truncated-inputs"] == "1"


async def test_how_many_tokens_are_given(http: Client, oracle: Oracle) -> None:
    """The count is that of the whole text, special tokens included (5)."""
    text = "Ludwig van Beethoven composed in Vienna. " * 90
    sentence = refused(await http.predict_tokens([text], truncate=False), 413, "Validation")
    assert sentence.endswith(f"Given: {oracle.count(text)}")


async def test_limit_of_characters(http: Client) -> None:
    """250 characters a token: beyond that a text is refused, or cut, unseen (5)."""
    limit = 250 * 512
    text = "Paris" + "x" * (limit - 4)
    sentence = refused(await http.predict_tokens([text], truncate=False), 413, "Validation")
    assert sentence == (
        f"Input validation error: `inputs` must have less than {limit} characters. "
        f"Given: {limit + 1}"
    )
    cut = await http.predict_tokens([text])
    assert cut.status == 200
    assert cut.headers["x-nerve-truncated-inputs"] == "1"
    text = "x" * limit + " lives in Paris"
    left = await http.predict_tokens(
        [text], truncation_direction="Left", aggregation_strategy="max"
    )
    for item in left.json()[0]:
        assert item["token"] == text[item["start"] : item["end"]]
    assert left.json()[0][-1]["end"] == len(text)


async def test_one_long_text_fails_the_request(http: Client) -> None:
    """There are no errors of single texts (5)."""
    answer = await http.predict_tokens([ADA, "Paris " * 511], truncate=False)
    assert "Given: 513" in refused(answer, 413, "Validation")


@pytest.mark.parametrize(("direction", "kept"), [("Right", "german"), ("Left", "university")])
async def test_truncation_direction(http: Client, direction: str, kept: str) -> None:
    """The end that is cut off, in two spellings; offsets are those of the full text (5, 13.6)."""
    text = f"german 李é🚀 {'people ' * 200} university"
    for strategy in ("none", "max"):
        answers = [
            await http.predict_tokens(
                [text],
                model="rule",
                truncation_direction=word,
                aggregation_strategy=strategy,
                truncate=truncate,
            )
            for word in (direction, direction.lower())
            for truncate in (True, None)
        ]
        assert {answer.body for answer in answers} == {answers[0].body}
        assert answers[0].headers["x-nerve-truncated-inputs"] == "1"
        ((item,),) = answers[0].json()
        start = text.index(kept)
        assert (item["token"], item["start"], item["end"]) == (kept, start, start + len(kept))
    every = await http.predict_tokens(
        [text], model="rule", truncation_direction=direction, ignore_labels=[]
    )
    assert len(every.json()[0]) == 126
    for item in every.json()[0]:
        assert item["token"] == text[item["start"] : item["end"]]


async def test_truncation_of_the_bundled_model(http: Client) -> None:
    """510 tokens of its own are kept, at either end (5)."""
    text = f"{ADA}. {'It was a long day. ' * 150} {APPLE}"
    for direction, edge, place in (("Right", 0, 0), ("Left", -1, len(text))):
        answer = await http.predict_tokens([text], truncation_direction=direction, ignore_labels=[])
        items = answer.json()[0]
        assert len(items) == 510
        assert items[edge]["start" if edge == 0 else "end"] == place


async def test_windows_instead_of_a_cut(http: Client) -> None:
    """A model with a stride tags long texts whole, also when they may not be cut (5)."""
    text = "people " * 100
    for truncate in (True, False):
        answer = await http.predict_tokens(
            [text], model="strided", truncate=truncate, ignore_labels=[]
        )
        assert [item["start"] for item in answer.json()[0]] == list(range(0, 700, 7))
        assert "x-nerve-truncated-inputs" not in answer.headers


@pytest.mark.parametrize("path", PATHS)
async def test_body_limit(http: Client, path: str) -> None:
    """2,000,000 bytes are taken, one more is not (5, 6)."""
    body = b'{"inputs":["Paris"]}'
    assert (await http.send("POST", path, data=body.ljust(2_000_000))).status == 200
    over = await http.send("POST", path, data=body.ljust(2_000_001))
    assert refused(over, 413, "Validation").startswith("length limit exceeded")


# --- section 6: errors


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", [b"", b"{", b'{"inputs":["a"]} x', b'{"inputs":["\\ud800"]}'])
async def test_not_json(http: Client, path: str, body: bytes) -> None:
    """400 in the route's own shape (6)."""
    refused(await http.send("POST", path, data=body), 400, "Validation")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
async def test_wrong_method(http: Client, path: str, method: str) -> None:
    """405 in the route's own shape (6)."""
    answer = await http.send(method, path)
    refused(answer, 405, "Validation")
    assert answer.headers["Allow"] == "POST"


async def test_unknown_path(http: Client) -> None:
    """404 in the route's own shape where the path ends like the route (6)."""
    refused(await http.send("POST", "/x/predict_tokens"), 404, "Validation")


async def test_unknown_model_and_version(http: Client) -> None:
    """404, naming what there is."""
    sentence = refused(await http.predict_tokens(["a"], model="nope"), 404, "Validation")
    assert "'nope'" in sentence
    assert "minilm-ner" in sentence
    path = "/v1/models/multi/versions/7/predict_tokens"
    sentence = refused(await http.post(path, {"inputs": ["a"]}), 404, "Validation")
    assert "'7'" in sentence
    assert "1, 2" in sentence


async def test_failed_tokenizer(http: Client) -> None:
    """422 Tokenizer (6)."""
    answer = await http.predict_tokens(["people", "world"], model="picky")
    assert refused(answer, 422, "Tokenizer").startswith("Tokenization error: ")
    assert (await http.predict_tokens(["people"], model="picky")).status == 200


async def test_failed_run(http: Client) -> None:
    """424 Backend (6)."""
    answer = await http.predict_tokens(["early people"], model="rule")
    assert refused(answer, 424, "Backend").startswith("Backend error: ")
    assert (await http.predict_tokens(["people"], model="rule")).status == 200


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("word", ["night", "black"])
async def test_scores_that_are_no_numbers(http: Client, word: str, strategy: str) -> None:
    """500, never a NaN or null in the body (3.2, 6)."""
    for raw in (False, True):
        answer = await http.predict_tokens(
            ["people", f"the {word}"],
            model="rule",
            aggregation_strategy=strategy,
            raw_scores=raw,
        )
        assert refused(answer, 500, "Backend") == "score is NaN"


async def test_overload(http: Client) -> None:
    """429 at once while the queue is full; Encoderfile's route says 503; both when to retry (6)."""
    async with http.waiting(http.predict_tokens(["people"], model="patient")) as first:
        await http.queued("patient", 1)
        answer = await http.predict_tokens(["people"], model="patient")
        assert refused(answer, 429, "Overloaded") == "Model is overloaded"
        assert int(answer.headers["Retry-After"]) >= 1
        other = await http.predict(["people"], model="patient")
        assert other.status == 503
        assert other.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert int(other.headers["Retry-After"]) >= 1
        assert not first.done()
    await http.queued("patient", 0)
    assert (await http.predict_tokens(["people"] * 2, model="patient")).status == 200


async def test_overload_of_a_busy_instance(serve: Serve, repository: Repository) -> None:
    """One row a run and one in the queue: of many callers some are refused, none is lost (6)."""
    repository.add(
        "bert",
        max_batch_size=1,
        dynamic_batching={"max_queue_size": 1},
        instance_group={"count": 1, "kind": "KIND_CPU"},
    )
    http = await serve(repository.path)
    before = await http.statistics("bert")
    many = [http.predict_tokens([["people"] * 8] * 16) for _ in range(24)]
    answers = await asyncio.gather(*many)
    assert {answer.status for answer in answers} == {200, 429}
    answered = [answer for answer in answers if answer.status == 200]
    assert {answer.body for answer in answered} == {answered[0].body}
    for answer in answers:
        if answer.status == 429:
            refused(answer, 429, "Overloaded")
            assert int(answer.headers["Retry-After"]) >= 1
    after = await http.statistics("bert")
    assert after["rows"] - before["rows"] == 128 * len(answered)
    assert after["batches"] - before["batches"] == 128 * len(answered)
    assert (await http.predict_tokens(["people"])).status == 200


async def test_unavailable_model(http: Client) -> None:
    """503 Unhealthy with the reason; trying again does not help (6)."""
    answer = await http.predict_tokens(["a"], model="broken")
    sentence = refused(answer, 503, "Unhealthy")
    assert "UNAVAILABLE" in sentence
    assert "model.onnx" in sentence
    assert "Retry-After" not in answer.headers


# --- section 7: headers and deadlines


async def test_compute_headers(http: Client, oracle: Oracle) -> None:
    """TEI's eight, decimal; characters are bytes, tokens include special ones (7)."""
    texts = [UNUSUAL[0], ADA]
    answer = await http.predict_tokens(texts)
    device = (await http.get("/v1/models/minilm-ner")).json()["versions"][0]["device"]
    headers = answer.headers
    assert headers["x-compute-type"] == device
    assert device in {"cpu", "gpu"}
    assert headers["x-compute-characters"] == str(sum(len(text.encode()) for text in texts))
    assert headers["x-compute-tokens"] == str(sum(oracle.count(text) for text in texts))
    times = ("compute", "total", "tokenization", "queue", "inference")
    for name in (f"x-{each}-time" for each in times):
        assert headers[name].isascii()
        assert headers[name].isdecimal()
    assert headers["x-compute-time"] == headers["x-total-time"]
    assert int(headers["x-inference-time"]) <= int(headers["x-total-time"]) + 1
    assert headers["x-nerve-model"] == "minilm-ner"
    assert headers["x-nerve-model-version"] == "1"


async def test_compute_tokens_of_a_cut_text(http: Client) -> None:
    """Only what was computed counts; the characters are those that were sent (7)."""
    text = "Paris " * 600
    headers = (await http.predict_tokens([text])).headers
    assert headers["x-compute-tokens"] == "512"
    assert headers["x-compute-characters"] == "3600"


async def test_no_compression(http: Client) -> None:
    """zstd is offered, so gzip must not come (10.5, 13.8)."""
    for accepted in ("zstd", "gzip, deflate, br, zstd", "identity"):
        answer = await http.predict_tokens([APPLE] * 64, headers={"accept-encoding": accepted})
        assert "Content-Encoding" not in answer.headers


async def test_request_id_is_echoed(http: Client) -> None:
    """As sent, also twice and also with an error (7, 10.2)."""
    sent = {"x-baseten-customer-request-id": "perfclient-0123456789-0-0"}
    for _ in range(2):
        answer = await http.predict_tokens(["Paris"], headers=sent)
        assert answer.headers["x-baseten-customer-request-id"] == "perfclient-0123456789-0-0"
    plain = await http.predict_tokens(["Paris"])
    assert "x-baseten-customer-request-id" not in plain.headers


async def test_request_id_is_echoed_with_errors(http: Client) -> None:
    """A refused request is the one that people look for in the log (7)."""
    sent = {"x-baseten-customer-request-id": "abc-1"}
    answer = await http.predict_tokens([], headers=sent)
    assert answer.status == 400
    assert answer.headers.get("x-baseten-customer-request-id") == "abc-1"


@pytest.mark.parametrize(
    "header", ["request-timeout-ms", "request-deadline-ms"], ids=["timeout", "deadline"]
)
async def test_deadline_of_the_caller(http: Client, header: str) -> None:
    """504 when it passes while the text waits, and the text never runs (7)."""
    before = await http.statistics("patient")
    value = 200 if header == "request-timeout-ms" else round(time.time() * 1e3) + 200
    answer = await http.predict_tokens(["people"], model="patient", headers={header: str(value)})
    assert "deadline" in refused(answer, 504, "Backend")
    assert await http.statistics("patient") == before


@pytest.mark.parametrize("value", ["1", "0.001"])
async def test_tiny_timeout(http: Client, value: str) -> None:
    """Nothing is so quick (7)."""
    answer = await http.predict_tokens(
        ["people"], model="patient", headers={"request-timeout-ms": value}
    )
    refused(answer, 504, "Backend")


async def test_smaller_limit_counts(http: Client) -> None:
    """Both headers: the client's clock may be wrong, its patience is not (7)."""
    far = str(round(time.time() * 1e3) + 3_600_000)
    answer = await http.predict_tokens(
        ["people"],
        model="patient",
        headers={"request-timeout-ms": "100", "request-deadline-ms": far},
    )
    refused(answer, 504, "Backend")


async def test_deadline_just_passed(http: Client) -> None:
    """A late request is not run (7)."""
    late = str(round(time.time() * 1e3) - 2000)
    answer = await http.predict_tokens(["people"], headers={"request-deadline-ms": late})
    refused(answer, 504, "Backend")


@pytest.mark.parametrize(
    "headers",
    [
        {"request-deadline-ms": "HOUR_OLD"},
        {"request-deadline-ms": "0"},
        {"request-deadline-ms": "99999999999999999999"},
        {"request-timeout-ms": "99999999999999999999"},
        {"request-timeout-ms": "0"},
        {"request-timeout-ms": "3600000", "request-deadline-ms": "HOUR_AHEAD"},
    ],
)
async def test_absurd_limits_are_ignored(http: Client, headers: dict[str, str]) -> None:
    """Clocks differ: an hour-old deadline is none (7)."""
    now = time.time() * 1e3
    known = {"HOUR_OLD": str(round(now - 3.6e6)), "HOUR_AHEAD": str(round(now + 3.6e6))}
    sent = {name: known.get(value, value) for name, value in headers.items()}
    assert (await http.predict_tokens(["people"], headers=sent)).status == 200


@pytest.mark.parametrize("header", ["request-timeout-ms", "request-deadline-ms"])
@pytest.mark.parametrize("value", ["soon", "1s", "", "nan", "inf", "0x10", "1,5"])
async def test_garbage_limits(http: Client, header: str, value: str) -> None:
    """422, naming the header (7)."""
    answer = await http.predict_tokens(["people"], headers={header: value})
    assert header in refused(answer, 422, "Validation")


async def test_deadline_of_the_server(serve: Serve, repository: Repository) -> None:
    """504 on both dialects when the server's own limit passes; a caller cannot raise it (6)."""
    repository.add_patient("patient")
    http = await serve(repository.path, request_timeout_s=0.1)
    refused(await http.predict_tokens(["people"]), 504, "Backend")
    patient = {"request-timeout-ms": "3600000"}
    refused(await http.predict_tokens(["people"], headers=patient), 504, "Backend")
    other = await http.predict(["people"])
    assert other.status == 504
    assert other.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert (await http.statistics("patient"))["queued_rows"] == 0


async def test_two_authorization_lines(server: Server) -> None:
    """The performance client may send two (10.2)."""
    body = b'{"inputs":["Paris"]}'
    async with server.wire() as wire:
        await wire.send(
            b"POST /predict_tokens HTTP/1.1\r\nhost: x\r\nauthorization: Bearer a\r\n"
            b"authorization: Api-Key b\r\naccept: application/json, application/msgpack\r\n"
            b"accept-encoding: zstd\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(body), body)
        )
        answer = await wire.answer()
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"


# --- URL prefixes of hosted deployments


@pytest.mark.parametrize(
    "prefix",
    [
        "/production/sync",
        "/development/sync",
        "/environments/production/sync",
        "/environments/my-env_2/sync",
        "/deployment/abc123/sync",
    ],
)
async def test_hosted_prefixes(http: Client, prefix: str) -> None:
    """Changing the host is all of a migration, on every route (7)."""
    body = {"inputs": ["Paris is in France."]}
    for route in ("/predict_tokens", "/predict"):
        for model in ("", "/v1/models/minilm-ner", "/v1/models/minilm-ner/versions/1"):
            plain = await http.post(f"{model}{route}", body)
            hosted = await http.post(f"{prefix}{model}{route}", body)
            assert (hosted.status, hosted.body) == (200, plain.body)
    for path in (
        *("/health", "/model", "/v1/models", "/livez", "/readyz", "/openapi.json", "/docs"),
        *("/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/v1/models/bert/model"),
    ):
        plain, hosted = await http.get(path), await http.get(prefix + path)
        assert (hosted.status, hosted.body) == (200, plain.body), path
    assert (await http.get(f"{prefix}/metrics")).status == 200
    assert (await http.get(f"{prefix}/v1/models/bert")).json()["name"] == "bert"
    refused(await http.post(f"{prefix}/predict_tokens", {}), 422, "Validation")


@pytest.mark.parametrize(
    "path",
    [
        "/production/predict_tokens",
        "/staging/sync/predict_tokens",
        "/environments/sync/predict_tokens",
        "/environments//sync/predict_tokens",
        "/production/sync/production/sync/predict_tokens",
    ],
)
async def test_other_prefixes(http: Client, path: str) -> None:
    """Only those that hosted deployments have."""
    refused(await http.post(path, {"inputs": ["a"]}), 404, "Validation")


async def test_truncation_side_of_the_model(serve: Serve, repository: Repository) -> None:
    """config.yaml decides for requests that do not say; one that says wins."""
    repository.add("ner", tokenizer={"max_length": 8, "truncation_side": "left"})
    http = await serve(repository.path)
    text = "one two three four five six seven eight nine ten london"

    async def ends(**fields: Any) -> tuple[int, int]:
        answer = await http.predict_tokens(text, ignore_labels=[], **fields)
        (tokens,) = answer.json()
        return tokens[0]["start"], tokens[-1]["end"]

    start, end = await ends()
    assert start > 0
    assert end == len(text)
    assert await ends(truncation_direction="Left") == (start, end)
    start, end = await ends(truncation_direction="Right")
    assert start == 0
    assert end < len(text)


@pytest.mark.parametrize(
    ("fields", "texts"),
    [
        ({"threshold": 0.985}, [[], ["university"]]),
        ({"labels": ["PER"]}, [["german"], ["israel"]]),
        ({"labels": ["B-PER"]}, [["german"], ["israel"]]),
        ({"labels": [], "threshold": None}, [["german"], ["israel", "university"]]),
    ],
)
async def test_only_what_is_wanted(
    repository: Repository, serve: Serve, fields: dict[str, Any], texts: list[list[str]]
) -> None:
    """By score, and by label, with or without its prefix: additions of this server."""
    repository.add_rule("rule")
    http = await serve(repository.path)
    answer = await http.predict_tokens(
        ["german music", "israel university"], default_aggregation_strategy="simple", **fields
    )
    assert [[each["token"] for each in text] for text in answer.json()] == texts


async def test_a_strategy_where_nobody_names_one(repository: Repository, serve: Serve) -> None:
    """The request's default comes after the model's own, and before the route's."""
    repository.add_rule("rule")
    repository.add("own", aggregation_strategy="none")
    http = await serve(repository.path)
    asked: dict[str, Any] = {"default_aggregation_strategy": "simple"}
    (joined,) = (await http.predict_tokens(["german"], model="rule", **asked)).json()
    assert [each["results"].keys() for each in joined] == [{"PER"}]
    (tokens,) = (
        await http.predict_tokens(["german"], model="own", **asked, ignore_labels=[])
    ).json()
    assert all(each["token_id"] for each in tokens)
    (plain,) = (await http.predict_tokens(["german"], model="rule")).json()
    assert [each["results"].keys() for each in plain] == [{"B-PER"}]


async def test_a_label_that_the_model_does_not_have(http: Client) -> None:
    """422 that names those that it has; the reason is in a header, too."""
    answer = await http.predict_tokens(["a"], model="minilm-ner", labels=["PERSON"])
    assert "'PERSON' is no label of 'minilm-ner'; it has LOC, MISC, ORG, PER" in refused(
        answer, 422, "Validation"
    )
    assert answer.headers["x-nerve-reason"] == "invalid_field"
