"""SHA256SUMS: what sha256sum(1) writes is understood, and what does not match is told."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from nerve.repository.checksums import verify

CONTENT = {"model.onnx": b"graph", "tokenizer.json": b"{}", "onnx/model.onnx_data": b"weights"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in CONTENT.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "README.md").write_text("not ours")
    return tmp_path


def digests(folder: Path) -> dict[Path, str]:
    return {folder / name: sha(folder / name) for name in CONTENT if (folder / name).exists()}


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check(folder: Path, listing: str | bytes) -> str:
    sums = folder / "SHA256SUMS"
    sums.write_bytes(listing.encode() if isinstance(listing, str) else listing)
    return verify(sums, digests(folder))


@pytest.mark.parametrize("options", [[], ["--binary"], ["--text"], ["--tag"]])
def test_what_sha256sum_writes(folder: Path, options: list[str]) -> None:
    done = subprocess.run(
        ["sha256sum", *options, "./model.onnx", *CONTENT, "README.md"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    assert check(folder, done.stdout) == ""
    assert check(folder, done.stdout.replace(b"\n", b"\r\n")) == ""
    assert check(folder, b"# made by a script\n\n" + done.stdout) == ""
    (folder / "tokenizer.json").write_bytes(b"[]")
    assert "tokenizer.json" in check(folder, done.stdout)


def test_a_file_that_differs(folder: Path) -> None:
    found = sha(folder / "model.onnx")
    assert check(folder, f"{'A' * 64}  model.onnx\n") == (
        f"SHA256SUMS says aaaaaaaaaaaa… of model.onnx, which is {found[:12]}…: the copy is "
        "incomplete or damaged"
    )


def test_a_file_that_is_missing(folder: Path) -> None:
    """Whether it would be ours or not."""
    assert check(folder, f"{'0' * 64}  vocab.txt\n") == (
        "SHA256SUMS names vocab.txt, which is not there: the copy is incomplete or damaged"
    )


def test_a_file_that_is_not_ours_is_not_read(folder: Path) -> None:
    assert check(folder, f"{'0' * 64}  README.md\n") == ""


def test_a_file_by_way_of_a_link(folder: Path) -> None:
    (folder / "link").symlink_to("model.onnx")
    assert "says 000000000000… of link" in check(folder, f"{'0' * 64}  link\n")


def test_names_with_escapes(folder: Path) -> None:
    assert r"names 'a\nb\\c', which is not there" in check(folder, f"\\{'0' * 64}  a\\nb\\\\c\n")


@pytest.mark.parametrize("name", ["../other", "/etc/passwd", "x/../../y", ".."])
def test_names_outside(folder: Path, name: str) -> None:
    """Nothing is told of what is there."""
    told = f"SHA256SUMS names {name}, which is outside of its folder"
    assert check(folder, f"{'0' * 64}  {name}\n") == told


@pytest.mark.parametrize(
    ("listing", "line"),
    [
        (b"nonsense", 1),
        (b"0" * 64 + b"  README.md\n" + b"0" * 40, 2),
        (b"0" * 64 + b"  a\0b\n", 1),
        (b"0" * 64 + b" name\n", 1),
        (b"\xff\xfe", 1),
    ],
)
def test_what_sha256sum_does_not_write(folder: Path, listing: bytes, line: int) -> None:
    """A listing that was copied in part is one of those."""
    assert check(folder, listing) == f"SHA256SUMS line {line} is not what sha256sum writes"


def test_listings_that_cannot_be_used(folder: Path) -> None:
    assert check(folder, b"#" * (1 << 20)) == ""
    assert check(folder, b"#" * ((1 << 20) + 1)) == "SHA256SUMS is over 1048576 bytes"
    assert check(folder, b"") == ""
    assert verify(folder / "none", {}) == "none cannot be read: No such file or directory"
