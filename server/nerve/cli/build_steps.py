"""The steps of `nerve build`, in the order of Encoderfile's; each tells what it has found."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import orjson

import nerve
from nerve.building.assembly import assemble, check_output
from nerve.building.contents import pack
from nerve.building.faults import BuildFailed
from nerve.building.freezing import make_runtime, require_freezer
from nerve.building.runtime import (
    MAKING,
    Runtime,
    cache_lock,
    cached_runtime,
    host_target,
    keep_runtime,
    read_runtime,
    runtime_key,
)
from nerve.cli.stopping import run
from nerve.cli.trial import Trial
from nerve.config.model import ModelConfig, load_model_config
from nerve.errors import ModelLoadFailed
from nerve.importing.plan import SCRIPT, VERSION_FOLDER, ImportPlan
from nerve.proof import ForkServer
from nerve.proof_server import forked
from nerve.repository.layout import GOLDEN_FILE, MODEL_FILE, SIDE_FILES
from nerve.transforming.host import TransformHost
from nerve.types import Limits, VersionFiles

LOAD_TIMEOUT_S: Final = 600.0
"""For the trial of a model: somebody looks on, and can break it off."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RuntimeWanted:
    """Which program goes into the file: `base`, or one that is kept in the folder `cache`."""

    cache: Path
    base: Path | None
    target: str | None
    version: str | None


def find_runtime(wanted: RuntimeWanted, key: str, *, say: Say) -> Runtime | None:
    """The runtime, None if it can and must be made first.

    Raises:
        BuildFailed: there is none for what is wanted, and none can be made.
    """
    host = host_target()
    if wanted.target not in (None, host):
        raise BuildFailed(
            f"a program for {wanted.target} cannot be built here: this machine is {host}, and "
            "nothing is downloaded; build on a machine of that kind"
        )
    if wanted.version not in (None, nerve.__version__):
        raise BuildFailed(
            f"the runtime of version {wanted.version} is not to be had: this is Nerve "
            f"{nerve.__version__}, and it builds with itself; install the other version to build "
            "with that"
        )
    if wanted.base is not None:
        runtime = read_runtime(wanted.base)
        if runtime.info.get("target") != host:
            built_for = runtime.info.get("target")
            raise BuildFailed(f"{wanted.base} is for {built_for}, and this machine is {host}")
        say(f"• Using local binary target: {wanted.base}")
        return runtime
    found = cached_runtime(wanted.cache, key)
    if found is not None:
        say("✓ Binary already cached")
        return found
    require_freezer()
    say("• Base binary not found locally. It is made when the model has been validated")
    return None


def made_runtime(cache: Path, key: str, *, say: Say) -> Runtime:
    """Make the runtime and keep it; another build that is at it is waited for.

    Raises:
        BuildFailed: with the reason.
    """
    with cache_lock(cache):
        found = cached_runtime(cache, key)
        if found is not None:
            say("✓ Binary already cached")
            return found
        say("Generating project...")
        try:
            with tempfile.TemporaryDirectory(prefix=MAKING, dir=cache / "runtimes") as folder:
                say("Compiling binary... (once, about a minute)")
                return keep_runtime(cache, key, make_runtime(Path(folder)))
        except OSError as error:
            reason = error.strerror or error
            raise BuildFailed(
                f"no runtime can be made in {cache} ({reason}); name another folder: --cache-dir"
            ) from error


def version_of(plan: ImportPlan) -> VersionFiles:
    """The files of a planned model as a version that can be loaded from where they lie. Pure."""
    side: dict[str, Path] = {}
    external: dict[str, Path] = {}
    graph = golden = None
    for place, path in plan.files.items():
        parts = PurePosixPath(place)
        name = parts.relative_to(VERSION_FOLDER).as_posix()
        if name == MODEL_FILE:
            graph = path
        elif name in SIDE_FILES:
            side[name] = path
        elif name == GOLDEN_FILE:
            golden = path
        else:
            external[name] = path
    return VersionFiles(int(VERSION_FOLDER), graph, side, external=external, golden=golden)


def config_of(plan: ImportPlan) -> ModelConfig:
    """The planned config.yaml as a load reads it. Raises ConfigInvalid."""
    content: Mapping[str, object] = plan.config
    if "transform" in content and SCRIPT in plan.texts:
        content = {**content, "transform": plan.texts[SCRIPT]}
    return load_model_config(None, name=plan.name, override=content)


async def validate(plan: ImportPlan, *, say: Say, forks: ForkServer | None) -> int:
    """Load the model where a crash harms nobody (forked from `forks` if that is given), run it, and try
    its transform.

    Returns:
        Its longest row in tokens.
    Raises:
        BuildFailed, ConfigInvalid, RuntimeMissing: it cannot be served.
    """
    say("Validating model...")
    config, files = config_of(plan), version_of(plan)
    _check_model_config(files.side.get("config.json"))
    say("✓ Model config validated")
    async with Trial(timeout_s=LOAD_TIMEOUT_S, memory_bytes=None, advice="", forks=forks) as trial:
        try:
            bare = config.model_copy(update={"transform": None})
            facts = (await trial(plan.name, files, bare)).facts
        except ModelLoadFailed as error:
            raise BuildFailed(f"the model cannot be served: {error}") from error
    say("✓ Model weights validated")
    if config.transform is not None:
        await _try_transform(plan.name, config, labels=len(_listed(facts["labels"])))
        say("✓ Transform validated")
    say("✓ Tokenizer validated")
    return int(str(facts["max_tokens"]))


async def _try_transform(name: str, config: ModelConfig, *, labels: int) -> None:
    assert config.transform is not None
    try:
        host = await TransformHost.open(
            name,
            config.transform.text,
            libs=config.lua_libs,
            limits=Limits(
                config.transform_limits.max_instructions,
                config.transform_limits.timeout_microseconds,
                config.transform_limits.max_memory_bytes,
            ),
            labels=labels,
            validate=config.validate_transform,
            max_waiting=1,
        )
    except ModelLoadFailed as error:
        raise BuildFailed(f"❌ {error}") from error
    await host.aclose()


def _check_model_config(path: Path | None) -> None:
    """Raises BuildFailed: config.json is not one of a model."""
    if path is None:
        raise BuildFailed("config.json is missing")
    try:
        value = orjson.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BuildFailed(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict) or not isinstance(value.get("model_type"), str):
        raise BuildFailed(f"{path}: model_type is missing, which must be a text such as bert")


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def build_file(
    plan: ImportPlan, wanted: RuntimeWanted, output: Path, *, inputs: Sequence[Path], say: Say
) -> None:
    """Validate a model and write the executable file, which must be none of `inputs`.

    Raises:
        BuildFailed, ConfigInvalid, RuntimeMissing: with the reason; nothing is written then.
    """
    check_output(output, inputs)
    key = runtime_key() if wanted.base is None else ""
    runtime = find_runtime(wanted, key, say=say)
    max_tokens = run(validate(plan, say=say, forks=forked()))
    if runtime is None:
        runtime = made_runtime(wanted.cache, key, say=say)
    say("• Writing encoderfile...")
    size_bytes = assemble(runtime, pack(plan, max_tokens=max_tokens), output)
    say(f"✓ Encoderfile written to {output} ({size_bytes / 1e6:.0f} MB)")
