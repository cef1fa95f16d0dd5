"""Encoderfile's NER cookbook with `nerve` in place of `encoderfile`: built once, run by many tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

EXPORTED = ("config.json", "model.onnx", "tokenizer.json", "tokenizer_config.json",
            "special_tokens_map.json")  # fmt: skip
CONFIG = """\
encoderfile:
  name: ner-tagger
  version: "1.0.0"
  path: ./ner-model
  model_type: token_classification
  output_path: ./build/ner-tagger.encoderfile
"""
BUILD_TIMEOUT_S = 600


@dataclass(frozen=True)
class Page:
    """The folder that a reader of the page works in; `said` is what the build printed."""

    folder: Path
    environment: Mapping[str, str]
    said: str

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        """What a reader types."""
        return subprocess.run(
            ["/bin/sh", "-euc", script],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False,
            timeout=BUILD_TIMEOUT_S, encoding="utf-8",
        )  # fmt: skip

    @property
    def program(self) -> Path:
        """The built file."""
        return self.folder / "build" / "ner-tagger.encoderfile"


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory, bundled: Path, root: Path) -> Page:
    """After steps 1 to 3; the bundled model stands in for the export.

    The program in the file is made once and kept in $TEST_CACHE, or beside pytest's own cache;
    processes of one test run wait for each other there.
    """
    lacking = [each for each in ("objdump", "objcopy", "ldd", "curl") if shutil.which(each) is None]
    if lacking and os.environ.get("TEST_CLIENTS") != "all":
        pytest.skip(f"{', '.join(lacking)} not found: apt-get install binutils curl")
    folder = tmp_path_factory.mktemp("page")
    (folder / "ner-model").mkdir()
    for name in EXPORTED:
        shutil.copy(bundled / "minilm-ner" / "1" / name, folder / "ner-model")
    (folder / "ner-config.yml").write_text(CONFIG)
    cache = os.environ.get("TEST_CACHE") or root / ".pytest_cache" / "nerve"
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = {**os.environ, "PATH": path, "NERVE_CACHE_DIR": str(cache), "PYTHONUTF8": "1"}
    built = Page(folder, environment, "").shell("mkdir -p build\nnerve build -f ner-config.yml")
    assert (built.returncode, built.stderr) == (0, "")
    return Page(folder, environment, built.stdout)


@dataclass(frozen=True)
class Bare:
    """A machine with nothing on it but the file: no PATH, no variables, an empty folder."""

    program: Path
    temporary: Path

    @property
    def environment(self) -> dict[str, str]:
        """All variables."""
        return {"PATH": "", "TMPDIR": str(self.temporary)}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the file to its end."""
        return subprocess.run(
            [self.program, *arguments],
            cwd=self.program.parent, env=self.environment, capture_output=True, text=True,
            check=False, timeout=120, encoding="utf-8",
        )  # fmt: skip

    def start(
        self, *arguments: str, session: bool = False, shell: str = ""
    ) -> subprocess.Popen[str]:
        """Start a command of the file; with `session`, as a terminal does it; or by `shell`, as $0."""
        return subprocess.Popen(
            [*(("/bin/sh", "-c", shell) if shell else ()), self.program, *arguments],
            cwd=self.program.parent, env=self.environment, text=True, encoding="utf-8",
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
            start_new_session=session,
        )  # fmt: skip


@pytest.fixture
def bare(page: Page, tmp_path: Path) -> Iterator[Bare]:
    """The built file alone; when the test is over, nothing that it unpacked may be left."""
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    program = home / "ner-tagger.encoderfile"
    program.hardlink_to(page.program)  # a copy is 170 MB, and nothing writes to it
    yield Bare(program, temporary)
    assert list(temporary.iterdir()) == []
