"""Loading, versions, names, leases and draining, with models that a fake opens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from nerve.config.model import ModelConfig
from nerve.errors import (
    ModelLoadFailed,
    ModelNotFound,
    ModelNotReady,
    NerveError,
    NoDefaultModel,
    RepositoryInvalid,
    VersionNotFound,
)
from nerve.metrics import RequestMetrics
from nerve.repository.lifecycle import State
from nerve.repository.manager import IndexRow, ModelManager
from nerve.types import (
    CutOptions,
    EngineStatistics,
    ModelInfo,
    OffsetUnit,
    ServedModel,
    SpanAnswer,
    SpanOptions,
    TokenAnswer,
    VersionFiles,
)

PATIENCE_S = 30.0
READY, UNAVAILABLE, LOADING = State.READY, State.UNAVAILABLE, State.LOADING


class FakeModel:
    """A loaded version that only knows who it is and whether it was closed."""

    def __init__(self, name: str, version: int) -> None:
        self._info = ModelInfo(
            name=name,
            version=version,
            labels=("O",),
            max_tokens=8,
            max_batch_size=1,
            max_num_tokens=8,
            max_queue_size=1,
            stride=None,
            device="cpu",
            aggregation_strategy=None,
            offset_unit=None,
        )
        self.closed = False
        self.close_failure: Exception | None = None

    @property
    def info(self) -> ModelInfo:
        return self._info

    async def spans(
        self, texts: Sequence[str], options: SpanOptions, *, deadline: float | None
    ) -> SpanAnswer:
        raise NotImplementedError

    async def tokens(
        self, texts: Sequence[str], *, unit: OffsetUnit, cut: CutOptions, deadline: float | None
    ) -> TokenAnswer:
        raise NotImplementedError

    def statistics(self) -> EngineStatistics:
        return EngineStatistics()

    async def aclose(self) -> None:
        assert not self.closed
        self.closed = True
        if self.close_failure is not None:
            raise self.close_failure


class FakeOpener:
    """`open_model`: fails or waits as a test says, and keeps what it made."""

    def __init__(self) -> None:
        self.opened: dict[tuple[str, int], FakeModel] = {}
        self.configs: dict[tuple[str, int], ModelConfig] = {}
        self.failures: dict[tuple[str, int], Exception] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.loading = self.most_loading = 0
        self._entered = asyncio.Event()

    async def entered(self) -> None:
        """Wait until the first load has begun."""
        await asyncio.wait_for(self._entered.wait(), PATIENCE_S)

    async def __call__(self, name: str, files: VersionFiles, config: ModelConfig) -> ServedModel:
        key = name, files.number
        self._entered.set()
        self.loading += 1
        self.most_loading = max(self.most_loading, self.loading)
        try:
            await self.gate.wait()
            if files.problem:
                raise ModelLoadFailed(files.problem)
            if key in self.failures:
                raise self.failures[key]
        finally:
            self.loading -= 1
        self.configs[key] = config
        self.opened[key] = FakeModel(*key)
        return self.opened[key]


class World:
    """A manager and everything around it that a test may ask about."""

    def __init__(self, *, default_model: str | None, load_threads: int) -> None:
        self.opener = FakeOpener()
        self.registry = CollectorRegistry()
        self.announced: list[tuple[str, int]] = []
        self.manager = ModelManager(
            open_model=self.opener,
            default_model=default_model,
            load_threads=load_threads,
            metrics=RequestMetrics(self.registry),
            announce=lambda name, version: self.announced.append((name, version)),
        )

    def ready_metric(self, name: str, version: int) -> float | None:
        labels = {"model": name, "version": str(version)}
        return self.registry.get_sample_value("nerve_model_version_ready", labels)

    def rows(self) -> dict[tuple[str, int], tuple[State, str]]:
        return {(row.name, row.version): (row.state, row.reason) for row in self.manager.index()}

    def leased(self, name: str | None = None, version: str | None = None) -> tuple[str, int]:
        """Name and version that would answer."""
        with self.manager.lease(name, version) as model:
            return model.info.name, model.info.version


def write(root: Path, models: Mapping[str, Sequence[int]], **configs: str) -> Path:
    """A repository: version numbers by model, and `config.yaml` texts by model."""
    for name, versions in models.items():
        (root / name).mkdir(parents=True)
        for number in versions:
            (root / name / str(number)).mkdir()
            (root / name / str(number) / "model.onnx").touch()
    for name, text in configs.items():
        (root / name / "config.yaml").write_text(text)
    return root


@asynccontextmanager
async def world(
    *repositories: Path,
    failures: Mapping[tuple[str, int], Exception] | None = None,
    default_model: str | None = None,
    load_threads: int = 4,
    load: bool = True,
) -> AsyncIterator[World]:
    """Everything found and loaded, and in the end closed."""
    made = World(default_model=default_model, load_threads=load_threads)
    made.opener.failures.update(failures or {})
    await made.manager.find(repositories)
    if load:
        await made.manager.load_all()
    try:
        yield made
    finally:
        await made.manager.aclose()
        assert all(model.closed for model in made.opener.opened.values())


async def everybody_had_a_turn() -> None:
    """Run every callback that is ready, and those that they make ready; no time is waited for."""
    for _ in range(10):
        await asyncio.sleep(0)


# --- loading ---


async def test_everything_that_is_found_is_loaded(tmp_path: Path) -> None:
    """Listed, announced, counted, and lent out."""
    root = write(tmp_path, {"a": [1], "b": [1, 3]}, b="version_policy: all\nmax_batch_size: 5\n")
    async with world(root) as made:
        assert made.manager.index() == [
            IndexRow("a", 1, READY, ""),
            IndexRow("b", 1, READY, ""),
            IndexRow("b", 3, READY, ""),
        ]
        assert sorted(made.announced) == [("a", 1), ("b", 1), ("b", 3)]
        assert [each.name for each in made.manager.models()] == ["a", "b"]
        assert made.ready_metric("b", 3) == 1
        assert made.opener.configs["a", 1] == ModelConfig()
        assert made.opener.configs["b", 3].max_batch_size == 5
        assert made.leased("b", "1") == ("b", 1)


async def test_a_model_that_fails_does_not_stop_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An expected error by its sentence, any other by its type too; both are logged."""
    root = write(tmp_path, {"a": [1], "b": [1], "c": [1]})
    failures: dict[tuple[str, int], Exception] = {
        ("a", 1): ModelLoadFailed("tokenizer.json is missing"),
        ("b", 1): ZeroDivisionError("division by zero"),
    }
    async with world(root, failures=failures) as made:
        assert made.rows() == {
            ("a", 1): (UNAVAILABLE, "tokenizer.json is missing"),
            ("b", 1): (UNAVAILABLE, "ZeroDivisionError: division by zero"),
            ("c", 1): (READY, ""),
        }
        assert made.announced == [("c", 1)]
        assert made.ready_metric("a", 1) in (None, 0)
        assert made.manager.ready
        with pytest.raises(ModelNotReady, match=r"tokenizer\.json is missing"):
            made.leased("a")
    errors = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert {str(each.args[0]) for each in errors if isinstance(each.args, tuple)} == {"a", "b"}


async def test_a_version_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    """The highest that is READY answers, not the highest there is."""
    root = write(tmp_path, {"a": [1, 2, 3]}, a="version_policy: all")
    failures = {("a", 3): ModelLoadFailed("broken")}
    async with world(root, failures=failures) as made:
        assert made.rows() == {
            ("a", 1): (READY, ""),
            ("a", 2): (READY, ""),
            ("a", 3): (UNAVAILABLE, "broken"),
        }
        assert made.leased("a") == ("a", 2)
        with pytest.raises(ModelNotReady, match="version 3 is UNAVAILABLE: broken"):
            made.leased("a", "3")


@pytest.mark.parametrize(
    "config",
    [
        "max_batch: 3",
        "name: other",
        "[",
        "\x00",
        "labels: !!bool x",
        "max_batch_size: !!timestamp x",
        "max_batch_size: !!int ''",
    ],
)
async def test_a_broken_config_does_not_stop_the_others(tmp_path: Path, config: str) -> None:
    """Whatever stands in one model's file."""
    root = write(tmp_path, {"a": [1], "b": [1]}, a=config)
    async with world(root) as made:
        state, reason = made.rows()["a", 0]
        assert state is UNAVAILABLE
        assert reason.startswith("config.yaml: ")
        assert made.rows()["b", 1] == (READY, "")
        assert made.manager.model("a").leading == (state, reason)
        for version in (None, "1"):
            with pytest.raises(ModelNotReady, match=r"config\.yaml"):
                made.leased("a", version)


async def test_a_folder_that_is_no_model_is_listed(tmp_path: Path) -> None:
    root = write(tmp_path, {"a": [], "b": [1]})
    async with world(root) as made:
        state, reason = made.rows()["a", 0]
        assert (state, "no model.onnx found" in reason) == (UNAVAILABLE, True)
        with pytest.raises(ModelNotReady, match=r"no model\.onnx found"):
            made.leased("a")


async def test_warnings_of_the_layout_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write(tmp_path, {"a": [1]})
    (root / "a" / "01").mkdir()
    async with world(root):
        assert "'01' is ignored" in caplog.text


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ("latest", [5]),
        ("{latest: {num_versions: 2}}", [3, 5]),
        ("{latest: {num_versions: 9}}", [1, 3, 5]),
        ("all", [1, 3, 5]),
        ("{specific: {versions: [3, 1]}}", [1, 3]),
    ],
)
async def test_version_policy(tmp_path: Path, policy: str, served: list[int]) -> None:
    """Only what the policy serves is opened, listed and found."""
    root = write(tmp_path, {"a": [1, 3, 5]}, a=f"version_policy: {policy}")
    async with world(root) as made:
        assert sorted(made.opener.opened) == [("a", number) for number in served]
        assert list(made.rows()) == [("a", number) for number in served]
        assert made.leased("a") == ("a", served[-1])
        for number in {1, 3, 5} - set(served):
            with pytest.raises(VersionNotFound) as caught:
                made.leased("a", str(number))
            assert caught.value.known == tuple(served)


async def test_a_specific_version_that_is_missing(tmp_path: Path) -> None:
    """It is listed with its reason; the others are served."""
    root = write(tmp_path, {"a": [1]}, a="version_policy: {specific: {versions: [1, 7]}}")
    async with world(root) as made:
        assert made.rows()["a", 1] == (READY, "")
        state, reason = made.rows()["a", 7]
        assert state is UNAVAILABLE
        assert "no such folder" in reason
        assert made.leased("a") == ("a", 1)
        with pytest.raises(ModelNotReady, match="no such folder"):
            made.leased("a", "7")


async def test_only_specific_versions_that_are_missing(tmp_path: Path) -> None:
    root = write(tmp_path, {"a": [1]}, a="version_policy: {specific: {versions: [7]}}")
    async with world(root) as made:
        assert list(made.rows()) == [("a", 7)]
        with pytest.raises(ModelNotReady, match="no such folder"):
            made.leased("a")


async def test_as_many_loads_at_once_as_allowed(tmp_path: Path) -> None:
    """The others are LOADING as well, but wait for their turn."""
    root = write(tmp_path, {"a": [1, 2, 3, 4]}, a="version_policy: all")
    async with world(root, load_threads=2, load=False) as made:
        made.opener.gate.clear()
        loading = asyncio.create_task(made.manager.load_all())
        await made.opener.entered()
        await everybody_had_a_turn()
        assert made.opener.loading == 2
        assert made.rows() == {("a", number): (LOADING, "") for number in (1, 2, 3, 4)}
        made.opener.gate.set()
        await loading
        assert made.opener.most_loading == 2
        assert len(made.opener.opened) == 4


async def test_loading_is_a_state(tmp_path: Path) -> None:
    """Told as such from the moment that the model is found; not lent out, and not ready."""
    root = write(tmp_path, {"a": [1]})
    async with world(root, load=False) as made:
        assert made.manager.index() == [IndexRow("a", 0, LOADING, "")]
        made.opener.gate.clear()
        loading = asyncio.create_task(made.manager.load_all())
        for number in (0, 1):  # before its config is read, and after
            assert made.rows() == {("a", number): (LOADING, "")}
            assert not made.manager.ready
            for version in (None, "1"):
                with pytest.raises(ModelNotReady) as caught:
                    made.leased("a", version)
                assert caught.value.state == "LOADING"
            await made.opener.entered()
        made.opener.gate.set()
        await loading
        assert made.manager.ready
        assert made.leased("a") == ("a", 1)


async def test_ready(tmp_path: Path) -> None:
    """The start is over and something answers; without any model, when the start is over."""
    async with world(tmp_path) as made:
        assert made.manager.ready
        assert made.manager.index() == []
    root = write(tmp_path, {"a": [1]})
    async with world(root, failures={("a", 1): ModelLoadFailed("x")}) as made:
        assert made.manager.loaded
        assert not made.manager.ready


# --- repositories ---


async def test_a_name_in_two_repositories_is_served_by_neither(tmp_path: Path) -> None:
    """The reason names both; other models of both are served."""
    one = write(tmp_path / "one", {"ner": [1], "a": [1]})
    two = write(tmp_path / "two", {"ner": [1], "b": [1]})
    async with world(one, two) as made:
        state, reason = made.rows()["ner", 0]
        assert state is UNAVAILABLE
        assert "(one, two)" in reason
        assert str(tmp_path) not in reason  # clients see it
        assert sorted(made.opener.opened) == [("a", 1), ("b", 1)]
        with pytest.raises(ModelNotReady, match="several repositories"):
            made.leased("ner")


async def test_one_repository_given_twice_is_one(tmp_path: Path) -> None:
    """By another way, too."""
    root = write(tmp_path / "one", {"ner": [1]})
    (tmp_path / "link").symlink_to(root)
    async with world(root, root, tmp_path / "link", tmp_path / "one" / ".." / "one") as made:
        assert made.rows() == {("ner", 1): (READY, "")}


async def test_a_repository_that_is_not_there(tmp_path: Path) -> None:
    made = World(default_model=None, load_threads=1)
    with pytest.raises(RepositoryInvalid, match="gone"):
        await made.manager.find([tmp_path / "gone"])


# --- names and versions ---


async def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    """The error lists what is."""
    async with world(write(tmp_path, {"b": [1], "a": [1]})) as made:
        for name in ("c", "", "A", "a/1", "é"):
            with pytest.raises(ModelNotFound) as caught:
                made.leased(name)
            assert (caught.value.model, caught.value.known) == (name, ("a", "b"))
        with pytest.raises(ModelNotFound):
            await made.manager.load("c")


@pytest.mark.parametrize(
    "version",
    [
        *["2", "0", "01", "-1", "+1", "1.0", "", " 1", "1 ", "1_", "abc", "latest", "null"],
        *["٣", "٠٣", "１", "²", "Ⅲ", "1e0", "0x1", "é", "\x00", "😀"],
        *["9" * 30, "1" + "0" * 5000, "0" * 5000 + "1"],
    ],
    ids=lambda version: ascii(version)[:10],
)
async def test_a_version_that_is_not_there(tmp_path: Path, version: str) -> None:
    """Folder names are the only version numbers: what is written otherwise names no version."""
    root = write(tmp_path, {"a": [1, 3]}, a="version_policy: all")
    async with world(root) as made:
        with pytest.raises(VersionNotFound) as caught:
            made.leased("a", version)
        assert (caught.value.version, caught.value.known) == (version, (1, 3))


@pytest.mark.parametrize(
    "version", ["7", "-1", "abc", "٣", "9" * 5000], ids=lambda v: ascii(v)[:10]
)
async def test_any_version_of_any_model_that_cannot_answer(tmp_path: Path, version: str) -> None:
    """Whatever the client wrote, what comes is an error that can be told."""
    async with world(write(tmp_path, {"a": [], "b": [1]})) as made:
        for name in ("a", "b", "c", None):
            with pytest.raises(NerveError):
                made.leased(name, version)


async def test_versions_are_compared_as_numbers(tmp_path: Path) -> None:
    root = write(tmp_path, {"a": [9, 10]}, a="version_policy: all")
    async with world(root) as made:
        assert made.leased("a") == ("a", 10)
        assert made.leased("a", "9") == ("a", 9)


# --- the default model ---


async def test_the_only_model_is_the_default(tmp_path: Path) -> None:
    async with world(write(tmp_path, {"a": [1]})) as made:
        assert made.leased() == ("a", 1)
        assert made.leased(None, "1") == ("a", 1)


async def test_the_only_model_is_the_default_even_if_it_fails(tmp_path: Path) -> None:
    """The caller learns why, not that there is no model."""
    root = write(tmp_path, {"a": [1]})
    async with world(root, failures={("a", 1): ModelLoadFailed("broken")}) as made:
        with pytest.raises(ModelNotReady, match="broken"):
            made.leased()


async def test_the_only_usable_model_is_the_default(tmp_path: Path) -> None:
    """Others fail to load, are no models, or have a broken config."""
    root = write(tmp_path, {"a": [1], "b": [1], "c": [], "d": [1]}, d="[")
    async with world(root, failures={("a", 1): ModelLoadFailed("broken")}) as made:
        assert made.leased() == ("b", 1)


async def test_several_models_have_no_default(tmp_path: Path) -> None:
    """The error names those that could be meant."""
    root = write(tmp_path, {"a": [1], "b": [1], "c": []})
    async with world(root) as made:
        with pytest.raises(NoDefaultModel) as caught:
            made.leased()
        assert caught.value.known == ("a", "b")


async def test_no_usable_model_is_no_default(tmp_path: Path) -> None:
    root = write(tmp_path, {"a": [], "b": []})
    async with world(root) as made:
        with pytest.raises(NoDefaultModel) as caught:
            made.leased()
        assert caught.value.known == ()


async def test_no_model_at_all(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        with pytest.raises(NoDefaultModel):
            made.leased()


async def test_the_configured_default(tmp_path: Path) -> None:
    """It wins over the only usable one, and is not replaced when it fails."""
    root = write(tmp_path, {"a": [1], "b": [1]})
    async with world(root, default_model="b") as made:
        assert made.leased() == ("b", 1)
        assert made.leased("a") == ("a", 1)
    failures = {("b", 1): ModelLoadFailed("broken")}
    async with world(root, default_model="b", failures=failures) as made:
        with pytest.raises(ModelNotReady, match="broken"):
            made.leased()
    async with world(root, default_model="c") as made:
        with pytest.raises(ModelNotFound, match="'c'"):
            made.leased()


# --- leases and the end ---


async def test_closing_waits_for_every_lease(tmp_path: Path) -> None:
    """What is lent is not freed; what is asked for meanwhile is refused."""
    async with world(write(tmp_path, {"a": [1], "b": [1]})) as made:
        lent, other = made.opener.opened["a", 1], made.opener.opened["b", 1]
        with made.manager.lease("a", None) as first:
            with made.manager.lease("a", "1") as second:
                assert first is second is lent
                closing = asyncio.create_task(made.manager.aclose())
                await everybody_had_a_turn()
                assert other.closed
                assert not lent.closed
                assert made.rows()["a", 1][0] is State.UNLOADING
                assert made.rows()["b", 1] == (UNAVAILABLE, "unloaded")
                for version in (None, "1"):
                    with pytest.raises(ModelNotReady) as caught:
                        made.leased("a", version)
                    assert caught.value.state == "UNLOADING"
            await everybody_had_a_turn()
            assert not lent.closed
            assert not closing.done()
        await closing
        assert lent.closed
        assert made.rows()["a", 1] == (UNAVAILABLE, "unloaded")
        assert made.ready_metric("a", 1) == 0


async def test_a_lease_is_given_back_when_its_user_fails(tmp_path: Path) -> None:
    """An error and a cancelled caller."""
    async with world(write(tmp_path, {"a": [1]})) as made:
        with pytest.raises(ZeroDivisionError), made.manager.lease("a", None):
            raise ZeroDivisionError

        async def use() -> None:
            with made.manager.lease("a", None):
                await asyncio.Event().wait()

        user = asyncio.create_task(use())
        await everybody_had_a_turn()
        user.cancel()
        await asyncio.gather(user, return_exceptions=True)
        assert user.cancelled()
        await asyncio.wait_for(made.manager.aclose(), PATIENCE_S)
        assert made.opener.opened["a", 1].closed


async def test_leases_before_do_not_count(tmp_path: Path) -> None:
    """Given back long ago: closing waits only for those of now."""
    async with world(write(tmp_path, {"a": [1]})) as made:
        assert made.leased("a") == made.leased("a")
        with made.manager.lease("a", None):
            closing = asyncio.create_task(made.manager.aclose())
            await everybody_had_a_turn()
            assert not closing.done()
        await closing


async def test_closing_twice_is_no_error(tmp_path: Path) -> None:
    """The fake refuses to be closed a second time."""
    async with world(write(tmp_path, {"a": [1]})) as made:
        await made.manager.aclose()
        await made.manager.aclose()
        with pytest.raises(ModelNotReady, match="unloaded"):
            made.leased("a")
        assert not made.manager.ready


async def test_a_model_that_cannot_be_closed_does_not_stop_the_others(tmp_path: Path) -> None:
    """Closing is over when every version is free, whatever one of them said."""
    async with world(write(tmp_path, {"a": [1], "b": [1]})) as made:
        made.opener.opened["a", 1].close_failure = OSError("device is gone")
        with made.manager.lease("b", None):
            closing = asyncio.create_task(made.manager.aclose())
            await everybody_had_a_turn()
            assert made.opener.opened["a", 1].closed
            assert not closing.done()
        await asyncio.gather(closing, return_exceptions=True)
        assert made.opener.opened["b", 1].closed


async def test_closing_during_the_load(tmp_path: Path) -> None:
    """A start that is given up leaves nothing behind."""
    root = write(tmp_path, {"a": [1]})
    async with world(root, load=False) as made:
        made.opener.gate.clear()
        loading = asyncio.create_task(made.manager.load_all())
        await made.opener.entered()
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        assert loading.cancelled()
        await asyncio.wait_for(made.manager.aclose(), PATIENCE_S)
        assert made.opener.loading == 0
        with pytest.raises(ModelNotReady):
            made.leased("a")
