"""Transforms on every door: their scores, the labels they choose, and what becomes of their errors."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from api.openinference_wire import text_input
from grpc_calls import LISTENING, calling, port_of, refusal
from nerve._proto.encoderfile import token_classification_pb2 as encoderfile_pb
from nerve._proto.nerve.v1 import nerve_pb2 as pb

if TYPE_CHECKING:
    from api.conftest import Client, Repository, Serve, Server

from api.conftest import RULE_LABELS, RULE_LOGITS, in_thread, settings

TEXT = "german university music"
TEXTS = [TEXT, "people", "israel company german people german"]
STRATEGIES = ("none", "simple", "first", "average", "max")
MODELS = {
    "soft": "function Postprocess(arr) return arr:softmax(3) end",
    "cooler": "function Postprocess(arr) return arr / 2 end",
    "chooser": "function Postprocess(arr) return arr:argmax(3) end",
    "same": "function Postprocess(arr) return arr end",
}
MOODY = """
local moods = {
    [4] = function() error("no pairs today") end,
    [5] = function() while true do end end,
    [6] = function(arr) return arr:sum_axis(1) end,
    [7] = function(arr) return (arr - arr) / (arr - arr) end,
}
function Postprocess(arr)
    local tokens = arr:shape()[2]
    print("tokens:", tokens)
    local mood = moods[tokens]
    if mood then return mood(arr) end
    return arr
end
"""
"""What it does is told by the number of tokens: those of the words, and two."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_models: Any) -> Iterator[Server]:
    """The rule model, as it is and with each transform."""
    from api.conftest import Repository  # noqa: PLC0415  for typing only above

    repository = Repository(tmp_path_factory.mktemp("transforms"), tiny_models)
    repository.add_rule("plain")
    for name, script in MODELS.items():
        repository.add_rule(name)
        repository.configure(name, {"transform": script})
    repository.add_rule("moody")
    limits = {"max_instructions": 1_000_000}
    repository.configure("moody", {"transform": MOODY, "transform_limits": limits})
    with in_thread(settings(repository.path, **LISTENING)) as server:
        yield server


async def tokens(http: Client, model: str, *texts: str) -> list[list[dict[str, Any]]]:
    answer = await http.predict(list(texts), model=model)
    assert answer.status == 200, answer.text
    return [each["tokens"] for each in answer.json()["results"]]


async def entities(http: Client, model: str, *texts: str, **fields: Any) -> list[Any]:
    answer = await http.predict_tokens([[text] for text in texts], model=model, **fields)
    assert answer.status == 200, answer.text
    found: list[Any] = answer.json()
    return found


def softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(each) for each in row)
    return [math.exp(each) / total for each in row]


async def test_predict_tells_what_the_script_returns(http: Client) -> None:
    plain = await tokens(http, "plain", *TEXTS)
    assert plain[0][0]["scores"] == list(RULE_LOGITS["german"])
    for name, expected in (
        ("soft", softmax),
        ("cooler", lambda row: [each / 2 for each in row]),
        ("same", lambda row: row),
    ):
        for own, made in zip(plain, await tokens(http, name, *TEXTS), strict=True):
            for before, after in zip(own, made, strict=True):
                assert after["scores"] == pytest.approx(expected(before["scores"]), abs=1e-6)
                assert after["score"] == max(after["scores"])
                assert after["label"] == before["label"]
                assert after["token_info"] == before["token_info"]


async def test_rows_of_a_request_do_not_change_each_other(http: Client) -> None:
    """Shorter rows are padded for the script."""
    together = await tokens(http, "soft", *TEXTS)
    assert together == [(await tokens(http, "soft", text))[0] for text in TEXTS]


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_probabilities_are_not_made_of_probabilities(http: Client, strategy: str) -> None:
    """The trial showed that softmax returns some: what is found is the same as without it."""
    plain = await entities(http, "plain", *TEXTS, aggregation_strategy=strategy)
    soft = await entities(http, "soft", *TEXTS, aggregation_strategy=strategy)
    for own, made in zip(plain, soft, strict=True):
        assert len(own) == len(made)
        for before, after in zip(own, made, strict=True):
            assert after["results"] == pytest.approx(before["results"], abs=1e-6)
            assert after["token"] == before["token"]


async def test_probabilities_are_made_of_other_scores(http: Client) -> None:
    ((german, *_),) = await entities(http, "cooler", TEXT, aggregation_strategy="first")
    ((person, *_),) = await tokens(http, "plain", TEXT)
    halves = softmax([each / 2 for each in person["scores"]])
    assert german["results"] == pytest.approx({"PER": max(halves)}, abs=1e-6)


async def test_raw_scores_are_the_script_s(http: Client) -> None:
    for name, score in (("soft", max(softmax(list(RULE_LOGITS["german"])))), ("cooler", 2.75)):
        ((german, *_),) = await entities(
            http, name, TEXT, aggregation_strategy="max", raw_scores=True
        )
        assert german["results"] == pytest.approx({"PER": score}, abs=1e-6)


async def test_a_script_that_chooses_labels(http: Client) -> None:
    """A label for each token: its own logit stands alone, or the probability that the model gives it."""
    plain = await tokens(http, "plain", *TEXTS)
    chosen = await tokens(http, "chooser", *TEXTS)
    for own, made in zip(plain, chosen, strict=True):
        for before, after in zip(own, made, strict=True):
            assert after["label"] == before["label"]
            assert after["scores"] == [before["score"]] == [after["score"]]
    for strategy in STRATEGIES[1:]:
        fields = {"aggregation_strategy": strategy}
        (alone,) = await entities(http, "plain", TEXT, **fields)
        (picked,) = await entities(http, "chooser", TEXT, **fields)
        assert [each["token"] for each in picked] == [each["token"] for each in alone]
        for before, after in zip(alone, picked, strict=True):
            assert after["results"] == pytest.approx(before["results"], abs=1e-6)
    refused = await http.predict_tokens(TEXT, model="chooser", raw_scores=True)
    assert refused.status == 422
    assert "chooses the labels" in refused.text


async def test_the_open_inference_protocol(http: Client) -> None:
    body = {"inputs": [text_input(TEXT)], "outputs": [{"name": "LABELS"}, {"name": "ENTITIES"}]}
    for name in ("plain", "soft", "chooser"):
        answer = await http.post(f"/v2/models/{name}/infer", body)
        outputs = {each["name"]: each["data"] for each in answer.json()["outputs"]}
        labels = [each["label"] for each in (await tokens(http, name, TEXT))[0]]
        assert json.loads(outputs["LABELS"][0]) == labels
        assert [each["label"] for each in json.loads(outputs["ENTITIES"][0])] == [
            "PER",
            "WORK-OF-ART",
        ]


async def test_the_model_s_own_tensors_stay_its_own(http: Client) -> None:
    """`<name>.raw` is the graph: token ids in, logits out."""
    ids = [[2, 7, 3]]
    tensor = {"name": "input_ids", "shape": [1, 3], "datatype": "INT64", "data": ids[0]}
    mask = {**tensor, "name": "attention_mask", "data": [1, 1, 1]}
    body = {"inputs": [tensor, mask]}
    own, made = [
        (await http.post(f"/v2/models/{name}.raw/infer", body)).json()["outputs"][0]["data"]
        for name in ("plain", "soft")
    ]
    assert own == made
    assert len(own) == 3 * len(RULE_LABELS)


@pytest.fixture
async def http(server: Server) -> AsyncIterator[Client]:
    async with server.client() as client:
        yield client


async def test_grpc(http: Client) -> None:
    async with calling(port_of(http.server.announced)) as caller:
        for name in MODELS:
            request = pb.PredictRequest(model=name, texts=[TEXT])
            tagged = await caller.call("Predict", request, pb.PredictResponse)
            (expected,) = await tokens(http, name, TEXT)
            found = [(each.label, [each.score, *each.scores]) for each in tagged.results[0].tokens]
            assert found == [
                (each["label"], np.array([each["score"], *each["scores"]], np.float32).tolist())
                for each in expected
            ]
        caller.service = "encoderfile.token_classification.TokenClassificationInference"
        old = encoderfile_pb.TokenClassificationRequest(inputs=[TEXT])
        answer = await caller.call(
            "Predict",
            old,
            encoderfile_pb.TokenClassificationResponse,
            sent=[("model-name", "chooser")],
        )
        assert [each.label for each in answer.results[0].tokens] == [x["label"] for x in expected]


CASES = {
    2: ("transform_failed", "no pairs today"),
    3: ("transform_limit", "max_instructions (1000000)"),
    4: ("transform_result", "Error postprocessing token classifications"),
    5: ("transform_result", "got nan for row 1, token 1, label 1"),
}


@pytest.mark.parametrize("words", CASES)
async def test_an_error_is_that_request_s_alone(http: Client, words: int) -> None:
    """In each dialect's words; requests at the same time and after it are answered."""
    reason, part = CASES[words]
    text = " ".join(["people"] * words)
    bad, good = await asyncio.gather(
        http.predict([text], model="moody"), http.predict(["people"], model="moody")
    )
    assert (bad.status, good.status) == (500, 200)
    assert part in bad.text
    assert bad.headers["content-type"] == "text/plain; charset=utf-8"
    assert bad.headers["x-nerve-reason"] == reason
    other = await http.predict_tokens(text, model="moody")
    assert (other.status, other.json()["error_type"]) == (500, "Backend")
    assert "transform of model 'moody'" in other.json()["error"]
    v2 = await http.post("/v2/models/moody/infer", {"inputs": [text_input(text)]})
    assert v2.status == 500
    assert v2.json()["error"].endswith(other.json()["error"])
    async with calling(port_of(http.server.announced)) as caller:
        error = await refusal(
            caller.start("Predict", pb.PredictRequest(model="moody", texts=[text]))
        )
    assert error.code().name == "INTERNAL"
    assert error.details() == other.json()["error"]
    assert (await http.predict(["people"], model="moody")).status == 200


async def test_what_a_script_prints_is_logged(
    http: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "nerve.transform")
    assert (await http.predict(["people"], model="moody")).status == 200

    async def there() -> bool:
        return "tokens:" in caplog.text

    await http.until(there)
    assert "moody" in caplog.text


async def test_a_change_of_the_script_s_file_reloads_the_model(
    serve: Serve, repository: Repository
) -> None:
    folder = repository.add_rule("rule")
    script = folder / "transform.lua"
    script.write_text(MODELS["cooler"])
    repository.configure("rule", {"transform": {"path": "transform.lua"}})
    http = await serve(repository.path, model_control_mode="watch")
    assert (await tokens(http, "rule", "german"))[0][0]["score"] == 2.75

    async def now(score: float) -> None:
        async def there() -> bool:
            return bool((await tokens(http, "rule", "german"))[0][0]["score"] == score)

        await http.until(there)

    script.write_text("function Postprocess(arr) return arr * 2 end")
    await now(11.0)
    script.write_text("function Postprocess(arr) return nonsense( end")

    async def told() -> bool:
        state = (await http.get("/v1/models/rule")).json()
        return "Transform validation failed" in state["reason"]

    await http.until(told)
    await now(11.0)  # what served goes on
    script.unlink()
    await now(11.0)
    script.write_text(MODELS["same"])
    await now(5.5)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"transform": "function Postprocess("}, "Transform validation failed"),
        ({"transform": "x = 1"}, "Could not find `Postprocess` function"),
        ({"transform": "function Postprocess(a) return a:sum_axis(3):sum_axis(2) end"}, "[32]"),
        ({"transform": "function Postprocess(a) while true do end end",
          "transform_limits": {"max_instructions": 1000}}, "max_instructions"),
        ({"transform": "io.write('x')"}, "nil value (global 'io')"),
        ({"transform": {"path": "gone.lua"}}, "gone.lua is not in the folder"),
    ],
)  # fmt: skip
async def test_a_transform_that_fails_its_trial_is_not_served(
    serve: Serve, repository: Repository, config: dict[str, Any], reason: str
) -> None:
    repository.add_rule("rule")
    repository.configure("rule", config)
    http = await serve(repository.path)
    model = (await http.get("/v1/models/rule")).json()
    assert model["state"] == "UNAVAILABLE"
    assert reason in str(model)


async def test_without_a_trial_what_a_script_returns_counts_as_logits(
    serve: Serve, repository: Repository
) -> None:
    """Unless the config says that it returns probabilities."""
    scores = {}
    for output in (None, "probabilities", "logits"):
        name = f"rule-{output}"
        repository.add_rule(name)
        config = {"transform": MODELS["soft"], "transform_output": output}
        repository.configure(name, config | {"validate_transform": output == "logits"})
    http = await serve(repository.path)
    for output in (None, "probabilities", "logits"):
        ((german,),) = await entities(
            http, f"rule-{output}", "german", aggregation_strategy="first"
        )
        scores[output] = german["results"]["PER"]
    probability = max(softmax(list(RULE_LOGITS["german"])))
    assert scores["probabilities"] == pytest.approx(probability, abs=1e-6)
    assert scores["logits"] == scores[None] < 0.5
