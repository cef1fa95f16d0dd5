"""`nerve new-api-key`: what it prints is good for a server, and a file keeps what it had."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from nerve.cli import app
from nerve.security.keys import PREFIX, keys_in, read_keys


def new(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["new-api-key", *arguments])


def key_of(result: Result) -> str:
    """The key that was printed."""
    assert result.exit_code == 0, (result.output, result.exception)
    (key,) = [line for line in result.stdout.splitlines() if line.startswith(PREFIX)]
    return key


def test_an_entry_to_paste() -> None:
    result = new(
        "shop", "--scope", "read", "--scope", "predict", "--rate", "2.5", "--burst", "9",
        "--expires", "2027-01-31",
    )  # fmt: skip
    key = key_of(result)
    _, _, rest = result.stdout.partition("keys:\n")
    (entry,) = keys_in(f"keys:\n{rest}", source="x")
    assert keys_in(f"keys:\n{rest}", source="x").find(key) == entry
    assert (entry.name, entry.scopes) == ("shop", ["read", "predict"])
    assert entry.rate_limit is not None
    assert (entry.rate_limit.requests_per_second, entry.rate_limit.capacity) == (2.5, 9)
    assert entry.expires_at == 1801353600


def test_a_file(tmp_path: Path) -> None:
    """It is made for its owner only; comments, order and mode of one that is there stay."""
    file = tmp_path / "keys.yaml"
    keys = [key_of(new("a", "--file", str(file)))]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_text("# ours\n" + file.read_text() + "    # the end")
    file.chmod(0o640)
    keys += [key_of(new(name, "--scope", "admin", "--file", str(file))) for name in "bc"]
    found = read_keys(file)
    assert [key.name for key in (found.find(each) for each in keys) if key] == ["a", "b", "c"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert "# ours" in file.read_text()
    assert "# the end" in file.read_text()
    assert [each.name for each in tmp_path.iterdir()] == ["keys.yaml"]


@pytest.mark.parametrize(
    "text", ["keys: []\n", "keys:\n- name: z\n  sha256: " + "ab" * 32 + "\n  scopes: [read]"]
)
def test_other_layouts(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(text)
    key = key_of(new("a", "--file", str(file)))
    assert read_keys(file).find(key)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a b"], "name: "),
        (["a", "--scope", "write"], "scopes[0]: "),
        (["a", "--rate", "0"], "requests_per_second"),
        (["a", "--burst", "5"], "--burst: is nothing without --rate"),
        (["a", "--expires", "soon"], "expires: "),
        (["a", "--file", "/nowhere/keys.yaml"], "cannot be written: No such file"),
    ],
)
def test_what_is_refused(arguments: list[str], told: str) -> None:
    result = new(*arguments)
    assert told in str(result.exception)
    assert PREFIX not in result.output


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("keys:\n- {name: a, sha256: " + "ab" * 32 + ", scopes: [read]}\n", "already"),
        ("keys: [{name: b, sha256: " + "ab" * 32 + ", scopes: [read]}]\n", "by hand"),
        ("keys: 1\n", "keys: "),
    ],
)
def test_files_that_stay_as_they_are(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(text)
    result = new("a", "--file", str(file))
    assert told in str(result.exception)
    assert file.read_text() == text
    assert PREFIX not in result.output
