"""A daemon whose repository changes while it serves: models that tell who they are, and a client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from support import Daemon, running_server

SOURCE: Final = Path(__file__).parent / "models" / "bert"
VOCABULARY: Final = 1500
COLUMNS: Final = 24
"""Labels of each model, and how many models can be told apart."""
DATA: Final = "model.onnx.data"
TEXT: Final = "London"
PATIENCE_S: Final = 60.0
FAST: Final = ("--settle-seconds", "0.3", "--repository-poll-seconds", "1")


# --- models that tell who they are ---


def table_graph(
    path: Path, table: np.ndarray[Any, Any], *, external: bool = False, output: str = "logits"
) -> Path:
    """Write a graph whose scores are `table[input_ids]`.

    Args:
        path: where to.
        table: (ids, labels) float32.
        external: keep the table in the file `DATA` beside it.
        output: name of the scores.
    """
    nodes = [helper.make_node("Gather", ["table", "input_ids"], [output])]
    return save_graph(path, nodes, [numpy_helper.from_array(table, "table")], external, output)


def save_graph(
    path: Path,
    nodes: list[onnx.NodeProto],
    initializers: list[onnx.TensorProto],
    external: bool = False,
    output: str = "logits",
    width: int = COLUMNS,
) -> Path:
    """Write a graph from input_ids and attention_mask to scores of `width` labels."""
    rows = ["batch", "tokens"]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, rows)
        for name in ("input_ids", "attention_mask")
    ]
    scores = helper.make_tensor_value_info(output, TensorProto.FLOAT, [*rows, width])
    graph = helper.make_graph(nodes, "who", inputs, [scores], initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.acme", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    # External data is written over what is there, and never beyond its old name.
    onnx.save_model(
        model, str(path), save_as_external_data=external, location=DATA, size_threshold=0
    )
    return path


def scores(who: int) -> np.ndarray[Any, Any]:
    """A table that gives every token the label `who`."""
    table = np.zeros((VOCABULARY, COLUMNS), dtype=np.float32)
    table[:, who] = 9
    return table


def write(folder: Path, who: int, *, config: str = "", external: bool = False) -> Path:
    """Write the files of model `who` into a folder, side files last, each in place.

    Its graph chooses the column and its config.json names the columns, so that `mark(who)` is
    answered by nothing but the two together.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table_graph(folder / "model.onnx", scores(who), external=external)
    about = json.loads((SOURCE / "config.json").read_text())
    about["id2label"] = {"0": "O"} | {str(at): f"B-{_mark(who, at)}" for at in range(1, COLUMNS)}
    del about["label2id"]
    (folder / "config.json").write_text(json.dumps(about))
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).write_bytes((SOURCE / name).read_bytes())
    if config:
        (folder / "config.yaml").write_text(config)
    return folder


def _mark(labels: int, column: int) -> str:
    return f"{labels}of{column}"


def mark(who: int) -> str:
    """The label that model `who`, whole, gives to every word."""
    return _mark(who, who)


# --- the daemon and its client ---


@dataclass(frozen=True, slots=True)
class Answer:
    """Of a tagging request: the label of its first word, or the sentence of the error."""

    status: int
    said: str
    version: str


class Living:
    """A running daemon, and what its clients see of it."""

    def __init__(self, daemon: Daemon, http: aiohttp.ClientSession) -> None:
        self.daemon, self.http = daemon, http

    async def ask(self, model: str, version: str = "") -> Answer:
        """Tag one text."""
        place = f"/v1/models/{model}" + (f"/versions/{version}" if version else "")
        body = {"inputs": TEXT, "aggregation_strategy": "simple"}
        async with self.http.post(f"{place}/predict_tokens", json=body) as answer:
            told = await answer.json()
            number = answer.headers.get("x-nerve-model-version", "")
            if answer.status != 200:
                return Answer(answer.status, told["error"], number)
            labels = {label for entity in told[0] for label in entity["results"]}
            (label,) = labels if labels else {"O"}
            return Answer(200, label, number)

    async def get(self, path: str) -> Any:
        """What a GET answers, as JSON."""
        async with self.http.get(path) as answer:
            return await answer.json()

    async def post(self, path: str, body: object = None) -> tuple[int, Any]:
        """Status and JSON of a POST, as curl would send it."""
        data = b"" if body is None else json.dumps(body).encode()
        async with self.http.post(path, data=data) as answer:
            content = await answer.read()
            return answer.status, json.loads(content) if content else None

    async def about(self, model: str) -> Mapping[str, Any]:
        """GET /v1/models/{model}."""
        told: Mapping[str, Any] = await self.get(f"/v1/models/{model}")
        return told

    async def reason(self, model: str) -> str:
        """Of the model as a whole."""
        return str((await self.about(model)).get("reason", ""))

    async def index(self) -> dict[tuple[str, str], tuple[str, str]]:
        """State and reason by name and version."""
        status, rows = await self.post("/v2/repository/index")
        assert status == 200, rows
        return {
            (row["name"], row.get("version", "")): (row.get("state", ""), row.get("reason", ""))
            for row in rows
        }

    async def metrics(self) -> dict[str, float]:
        """Every sample, by name and labels as they are written."""
        async with self.http.get("/metrics") as answer:
            lines = (await answer.text()).splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    async def metric(self, name: str, **labels: str) -> float:
        """One sample; 0 if there is none."""
        told = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
        return (await self.metrics()).get(f"{name}{{{told}}}", 0.0)

    async def loads(self, model: str) -> dict[str, int]:
        """How often a load of it ended so."""
        every = await self.metrics()
        return {
            outcome: int(every.get(_loads(model, outcome), 0))
            for outcome in ("loaded", "failed", "discarded")
        }

    async def until(
        self, condition: Callable[[], Awaitable[Any]], *, patience_s: float = PATIENCE_S
    ) -> Any:
        """Ask until the answer is true; returns it."""
        last: Any = None
        try:
            async with asyncio.timeout(patience_s):
                while not (last := await condition()):
                    await asyncio.sleep(0.03)
        except TimeoutError:
            rows = await self.index()
            raise AssertionError(f"waited {patience_s:g} s in vain; the index: {rows}") from None
        return last

    async def until_serves(self, model: str, who: int, version: str = "") -> None:
        """Wait until model `who` answers under a name."""

        async def serves() -> bool:
            return (await self.ask(model, version)).said == mark(who)

        await self.until(serves)

    async def until_told(self, model: str, *words: str, patience_s: float = PATIENCE_S) -> str:
        """Wait until the reason of a model holds all these words."""

        async def told() -> str:
            reason = await self.reason(model)
            return reason if reason and all(word in reason for word in words) else ""

        try:
            return str(await self.until(told, patience_s=patience_s))
        except AssertionError:
            last = await self.about(model)
            raise AssertionError(f"{model} never told {words}, but {last}") from None

    async def until_fine(self, model: str) -> None:
        """Wait until a model is READY and nothing is wrong with it."""

        async def fine() -> bool:
            about = await self.about(model)
            return about.get("state") == "READY" and not about["reason"]

        await self.until(fine)

    @asynccontextmanager
    async def callers(
        self, model: str, known: Collection[int], *, count: int = 3
    ) -> AsyncIterator[Counter[int]]:
        """Callers that ask all the time; none may fail, nor be told anything but `known` models.

        Yields how often each of them has answered so far.
        """
        seen: Counter[int] = Counter()
        marks = {mark(who): who for who in known}
        wrong: list[Answer | str] = []
        stopping = False

        async def call() -> None:
            while not stopping:
                try:
                    answer = await self.ask(model)
                except (aiohttp.ClientError, OSError) as error:
                    wrong.append(repr(error))
                    continue
                if answer.status == 200 and answer.said in marks:
                    seen[marks[answer.said]] += 1
                else:
                    wrong.append(answer)
                await asyncio.sleep(0.03)  # the machine is to do other things as well

        tasks = [asyncio.create_task(call()) for _ in range(count)]
        try:
            yield seen
        finally:
            stopping = True
            await asyncio.gather(*tasks)
        assert wrong == [], (len(wrong), wrong[:3], seen)

    # Processes

    def processes(self, name: str = "") -> list[int]:
        """Live processes below the daemon, of that name if one is given."""
        return descendants(self.daemon.process.pid, name)


def _loads(model: str, outcome: str) -> str:
    return f'nerve_model_loads_total{{model="{model}",outcome="{outcome}"}}'


@asynccontextmanager
async def living(
    *arguments: str | Path, env: Mapping[str, str] | None = None
) -> AsyncIterator[Living]:
    """The real daemon, with a client."""
    async with (
        running_server(*map(str, arguments), env=env) as daemon,
        aiohttp.ClientSession(daemon.url) as http,
    ):
        yield Living(daemon, http)


def _processes() -> Iterator[tuple[int, int, str, str]]:
    """pid, parent, name and state of every process."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            text = stat.read_text()
            name = text[text.index("(") + 1 : text.rindex(")")]
            state, parent, *_ = text[text.rindex(")") + 1 :].split()
            yield int(stat.parent.name), int(parent), name, state


def descendants(root: int, name: str = "") -> list[int]:
    """Processes below `root`, zombies left out, of that name if one is given."""
    every = list(_processes())
    below = {root}
    for _ in every:  # one level a round, no more rounds than levels
        more = {pid for pid, parent, _, _ in every if parent in below} - below
        if not more:
            break
        below |= more
    return [
        pid
        for pid, _, called, state in every
        if pid in below - {root} and state != "Z" and name in ("", called)
    ]


def alive(pid: int) -> bool:
    """Whether a process still runs; a zombie does not."""
    return any(each == pid and state != "Z" for each, _, _, state in _processes())


async def until(condition: Callable[[], object], *, patience_s: float = PATIENCE_S) -> Any:
    """Look until the condition is true; returns it."""
    end = time.monotonic() + patience_s
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {patience_s:g} s in vain"
        await asyncio.sleep(0.03)
    return found


# --- graphs that do harm ---


def endless_graph(path: Path) -> Path:
    """Write a graph that loads at once and never ends its first run."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_in"], ["go_out"]),
            helper.make_node("Identity", ["value_in"], ["value_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("count", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value_in", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value_out", TensorProto.FLOAT, None),
        ],
    )
    return save_graph(
        path,
        [
            helper.make_node("Cast", ["input_ids"], ["cast"], to=TensorProto.FLOAT),
            helper.make_node("Loop", ["trips", "go", "cast"], ["looped"], body=body),
            helper.make_node("Unsqueeze", ["looped", "axis"], ["up"]),
            helper.make_node("Expand", ["up", "shape"], ["logits"]),
        ],
        [
            numpy_helper.from_array(np.array(2**62), "trips"),
            numpy_helper.from_array(np.array(True), "go"),
            numpy_helper.from_array(np.array([2]), "axis"),
            numpy_helper.from_array(np.array([1, 1, COLUMNS]), "shape"),
        ],
    )


def greedy_graph(path: Path, elements: int) -> Path:
    """Write a graph that takes memory for so many numbers of four bytes in its first run."""
    return save_graph(
        path,
        [
            helper.make_node("Cast", ["input_ids"], ["cast"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMax", ["cast"], ["one"], keepdims=0),
            helper.make_node("Expand", ["one", "many"], ["big"]),
            helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
            helper.make_node("Add", ["cast", "sum"], ["added"]),
            helper.make_node("Unsqueeze", ["added", "axis"], ["up"]),
            helper.make_node("Expand", ["up", "shape"], ["logits"]),
        ],
        [
            numpy_helper.from_array(np.array([elements]), "many"),
            numpy_helper.from_array(np.array([2]), "axis"),
            numpy_helper.from_array(np.array([1, 1, COLUMNS]), "shape"),
        ],
    )
