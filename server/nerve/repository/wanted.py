"""What the disk asks for: a model folder read to the end, ready to be compared with what is loaded.

Reads files, so it is for threads. Knows nothing of loaded models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nerve.config.model import SERVING_KEYS, ModelConfig, load_model_config, load_version_config
from nerve.errors import ConfigInvalid
from nerve.repository.fingerprint import Digests, Stamp, inspect_version, stamp
from nerve.repository.layout import ModelFiles
from nerve.types import VersionFiles


@dataclass(frozen=True, slots=True)
class WantedVersion:
    """A version as it is on the disk. `problem` says why it cannot be loaded, or is empty.

    `identity` is that of its contents and of the config that it would be loaded with: equal
    identities are the same model. `stamp` tells cheaply whether its files have been touched.
    """

    number: int
    files: VersionFiles
    config: ModelConfig
    identity: str
    stamp: Stamp
    problem: str = ""

    def untouched(self) -> bool:
        """Whether the files are still those that were read; looks at the disk."""
        return dict(stamp(paths(self.files))) == dict(self.stamp)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model as it is on the disk. `problem` concerns all of it; `overridden` tells that `config`
    did not come from its config.yaml."""

    name: str
    config: ModelConfig = field(default_factory=ModelConfig)
    versions: Mapping[int, WantedVersion] = field(default_factory=dict)
    problem: str = ""
    warnings: tuple[str, ...] = ()
    overridden: bool = False


def paths(files: VersionFiles) -> list[Path]:
    """Every file that a version is made of."""
    own = [files.onnx, files.config, files.golden, *files.side.values(), *files.external.values()]
    return [path for path in own if path is not None]


def read_wanted(
    files: ModelFiles, digests: Digests, *, override: Mapping[str, object] | None = None
) -> Wanted:
    """Read config files and contents of a model folder. Raises nothing: problems are told in it.

    Args:
        files: of the folder.
        digests: of files that were read before.
        override: a config to take in place of config.yaml.
    """
    name, overridden = files.name, override is not None
    try:
        config = load_model_config(files.config, name=name, override=override, folder=files.path)
    except ConfigInvalid as error:
        problem = files.problem or str(error)
        return Wanted(name, problem=problem, warnings=files.warnings, overridden=overridden)
    versions = {
        number: _read_version(version, config, digests)
        for number, version in files.versions.items()
    }
    return Wanted(name, config, versions, files.problem, files.warnings, overridden)


def _read_version(files: VersionFiles, model: ModelConfig, digests: Digests) -> WantedVersion:
    inspected = inspect_version(files, digests)
    config, problem = model, inspected.files.problem
    if files.config is not None:
        try:
            config = load_version_config(files.config, model, number=files.number)
        except ConfigInvalid as error:
            problem = problem or str(error)
    loading = config.model_dump_json(exclude=set(SERVING_KEYS))
    identity = hashlib.sha256(f"{inspected.fingerprint}\n{loading}\n{problem}".encode()).hexdigest()
    return WantedVersion(files.number, inspected.files, config, identity, inspected.stamp, problem)
