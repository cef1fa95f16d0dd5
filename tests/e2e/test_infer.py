"""`nerve infer`: results in every format, from every source, and nothing else on stdout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from commands import run_here

TEXTS = [
    "Amazon was founded by Jeff Bezos in Seattle.",
    "Mozilla's headquarters are in San Francisco, California.",
    "Marie Curie won the Nobel Prize in Physics.",
]


def infer(
    *arguments: str, stdin: bytes = b"", cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    return run_here("infer", *arguments, stdin=stdin, cwd=cwd)


def infer_apart(
    *arguments: str | bytes, stdin: bytes = b"", cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """In a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "nerve", "infer", *arguments],
        input=stdin,
        capture_output=True,
        timeout=60,
        cwd=cwd,
        check=False,
    )


def test_encoderfile_format(root: Path) -> None:
    """Pretty JSON like Encoderfile's, metadata included; ./model_repository is the default."""
    ended = infer_apart("Tim Cook presented the new iPhone at Apple Park in California.", cwd=root)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(b'{\n  "results": [\n    {\n      "tokens": [\n        {\n')
    assert ended.stdout.endswith(b'"metadata": {}\n}\n')
    answer = json.loads(ended.stdout)
    assert answer["model_id"] == "minilm-ner"
    assert answer["results"][0]["tokens"][0]["label"] == "B-PER"
    assert ended.stderr == b""


def test_output_file(tiny_models: Path, tmp_path: Path) -> None:
    """-o writes the file and leaves stdout empty."""
    file = tmp_path / "results.json"
    ended = infer("-r", str(tiny_models / "bert"), *TEXTS, "-o", str(file))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
    assert file.read_bytes().endswith(b"}")
    assert len(json.loads(file.read_bytes())["results"]) == 3


def test_entities_and_jsonl_from_every_source(root: Path, tmp_path: Path) -> None:
    """Arguments, stdin and a file give the same; an empty line keeps its place."""
    lines = "\n".join([TEXTS[0], "", *TEXTS[1:]]).encode() + b"\r\n"
    file = tmp_path / "texts.txt"
    file.write_bytes(lines)
    by_file = infer("-r", str(root / "model_repository"), "--input-file", str(file), "-f", "jsonl")
    by_stdin = infer_apart("-f", "jsonl", "-", stdin=lines, cwd=root)
    assert by_file.stdout == by_stdin.stdout
    rows = [json.loads(line) for line in by_file.stdout.splitlines()]
    assert [row["text"] for row in rows] == [TEXTS[0], "", *TEXTS[1:]]
    assert rows[1]["entities"] == []
    found = [(e["text"], e["label"], e["start"], e["end"]) for e in rows[0]["entities"]]
    assert ("Jeff Bezos", "PER", 22, 32) in found
    assert ("Seattle", "LOC", 36, 43) in found
    by_arguments = infer("--format", "entities", *TEXTS, cwd=root)
    assert [row for row in rows if row["text"]] == json.loads(by_arguments.stdout)


@pytest.mark.parametrize(
    ("arguments", "stdin", "status", "message"),
    [
        ([], b"", 1, "TEXT: give a text, - for stdin, or --input-file"),
        (["a", ""], b"", 1, "TEXT 2: is empty"),
        (["--input-file", "no.txt"], b"", 1, "no.txt: No such file"),
        (["--model", "nope", "a"], b"", 1, "model 'nope' is not in the repository"),
        (["--format", "xml", "a"], b"", 2, "xml"),
        (["-o", "no/such/folder.json", "a"], b"", 1, "--output"),
        (["-r", "nowhere", "a"], b"", 1, "there is no such folder"),
    ],
)
def test_bad_input(
    root: Path, arguments: list[str], stdin: bytes, status: int, message: str
) -> None:
    """A message on stderr, no traceback, nothing on stdout."""
    _refused(infer(*arguments, stdin=stdin, cwd=root), status, message)


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["-"], b"fine\n\xff\xfe\n", "stdin: line 2 is not valid UTF-8"),
        ([b"\xff"], b"", "TEXT 1: is not valid UTF-8"),
    ],
)
def test_bytes_that_are_no_text(
    root: Path, arguments: list[str | bytes], stdin: bytes, message: str
) -> None:
    """As a shell passes them on."""
    _refused(infer_apart(*arguments, stdin=stdin, cwd=root), 1, message)


def _refused(ended: subprocess.CompletedProcess[bytes], status: int, message: str) -> None:
    assert ended.returncode == status, ended.stderr
    assert message in " ".join(ended.stderr.decode().split())
    assert b"Traceback" not in ended.stderr
    assert ended.stdout == b""


def test_one_model_folder_is_a_repository(tiny_models: Path) -> None:
    """-r may name an export folder itself."""
    ended = infer("-r", str(tiny_models / "roberta"), "Paris")
    assert json.loads(ended.stdout)["model_id"] == "roberta"


def test_a_byte_order_mark_is_no_text(tiny_models: Path) -> None:
    source = ("-r", str(tiny_models / "bert"))
    ended = infer(*source, "-f", "jsonl", "-", stdin=b"\xef\xbb\xbfAda in London\n")
    assert json.loads(ended.stdout)["text"] == "Ada in London"


def test_a_cut_is_told(tiny_models: Path) -> None:
    """On stderr; the result alone is on stdout."""
    source = ("-r", str(tiny_models / "bert"))
    ended = infer(*source, "-f", "jsonl", "-", stdin=b"word " * 600 + b"\nshort\n")
    assert ended.returncode == 0
    assert b"1 of 2 texts were cut" in ended.stderr
    assert len(ended.stdout.splitlines()) == 2


def test_several_models_ask_for_a_name(tiny_models: Path) -> None:
    ended = infer("-r", str(tiny_models), "Paris")
    assert ended.returncode == 1
    assert b"--model: name one of the models: bert, deberta-v2, distilbert" in ended.stderr


def test_what_stdout_leads_to_is_full(root: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "nerve", "infer", "Ada Lovelace met Charles."],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            cwd=root,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stderr == b"Error: stdout cannot be written: No space left on device\n"
