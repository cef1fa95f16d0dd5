"""The ways in which people put a new model where the old one was: cp, rename, a symlink flip."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path
from typing import Final, Protocol

CHUNK_BYTES: Final = 65536


class Placing(Protocol):
    """A model folder of a repository, and one way to renew it. All of it blocks."""

    @property
    def next_version(self) -> int:
        """The version that the files placed next will have."""

    def place(self, files: Path) -> None:
        """Put a copy of the files of a folder where the server looks for them."""

    def tidy(self) -> None:
        """Remove what the newest files have replaced, once they are known to be served."""


class Copying:
    """`cp files/* model/1/`: every file overwritten in place, one after the other, in chunks.

    Between files it pauses, so that a server looks at half a model now and then. `longest_gap_s`
    is the longest time in which nothing was written: a copy must not look finished before it is.
    """

    def __init__(self, repository: Path, model: str, *, pause_s: float) -> None:
        self.next_version = 1
        self.longest_gap_s = 0.0
        self._folder = repository / model / "1"
        self._pause_s = pause_s
        self._random = random.Random(0)

    def place(self, files: Path) -> None:
        """See `Placing.place`; a file that is gone from the source is removed."""
        self._folder.mkdir(parents=True, exist_ok=True)
        sources = {path.name: path for path in files.iterdir()}
        names = sorted(sources.keys() | {path.name for path in self._folder.iterdir()})
        self._random.shuffle(names)  # the new labels come before the new graph, or after it
        last = time.perf_counter()
        for name in names:
            if name not in sources:
                (self._folder / name).unlink()
                continue
            with sources[name].open("rb") as source, (self._folder / name).open("wb") as copy:
                while chunk := source.read(CHUNK_BYTES):
                    copy.write(chunk)
                    copy.flush()
                    self.longest_gap_s = max(self.longest_gap_s, time.perf_counter() - last)
                    last = time.perf_counter()
            time.sleep(self._pause_s)

    def tidy(self) -> None:
        """Nothing is left over."""


class Renaming:
    """Built aside and renamed into place: in turn a new version folder, and the model's folder."""

    def __init__(self, repository: Path, model: str) -> None:
        self._version = 0
        self._model = repository / model
        self._aside = repository.parent / f"aside-{model}"  # the same file system, not served
        self._count = 0

    @property
    def next_version(self) -> int:
        """Every other time a new one."""
        return self._version + (self._count + 1) % 2

    def place(self, files: Path) -> None:
        """See `Placing.place`."""
        self._version = self.next_version
        self._count += 1
        if self._count % 2:
            self._place_version(files)
        else:
            self._place_model(files)

    def _place_version(self, files: Path) -> None:
        self._model.mkdir(parents=True, exist_ok=True)
        building = self._model / f".{self._version}.building"
        shutil.copytree(files, building)
        building.rename(self._model / str(self._version))

    def _place_model(self, files: Path) -> None:
        """The same version number, in a new folder; for a moment the model is not there at all."""
        building = self._model.with_name(f".{self._model.name}.building")
        shutil.copytree(files, building / str(self._version))
        self._model.rename(self._aside)
        building.rename(self._model)
        shutil.rmtree(self._aside)

    def tidy(self) -> None:
        """Move the older versions away, and then remove them."""
        for folder in self._model.iterdir():
            if folder.name != str(self._version):
                folder.rename(self._aside)
                shutil.rmtree(self._aside)


class Flipping:
    """As Kubernetes updates a mounted ConfigMap or Secret: a link to a folder of all files.

    `model/model.onnx -> ..data/model.onnx`, `model/..data -> ..2026_x`: the new folder is written,
    `..data` renamed over, the links of the files renewed, the old folder removed at once.
    """

    def __init__(self, repository: Path, model: str) -> None:
        self.next_version = 1
        self._model = repository / model
        self._count = 0

    def place(self, files: Path) -> None:
        """See `Placing.place`."""
        self._model.mkdir(exist_ok=True)
        data = self._model / "..data"
        old = data.resolve() if data.is_symlink() else None
        self._count += 1
        new = self._model / f"..2026_{self._count:06d}"
        shutil.copytree(files, new)
        flip = self._model / "..data_tmp"
        flip.symlink_to(new.name)
        flip.replace(data)
        wanted = {path.name for path in files.iterdir()}
        linked = {path.name for path in self._model.iterdir() if not path.name.startswith("..")}
        for name in wanted - linked:
            (self._model / name).symlink_to(os.path.join("..data", name))  # noqa: PTH118  as it is
        for name in linked - wanted:
            (self._model / name).unlink()
        if old is not None:
            shutil.rmtree(old)

    def tidy(self) -> None:
        """Nothing is left over."""
