"""`nerve new-api-key`: what it prints is good for a server, and a file keeps what it had."""

from __future__ import annotations

import fcntl
import stat
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from nerve.cli import app
from nerve.cli.new_api_key import add_to
from nerve.errors import ConfigInvalid
from nerve.security.keys import PREFIX, ApiKey, keys_in, read_keys


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


@pytest.mark.parametrize("name", ["123", "true", "null", "yes", "2024-01-01", "1.5", "0x10", "1e3"])
def test_a_name_is_a_name(tmp_path: Path, name: str) -> None:
    """YAML would take it for something else."""
    file = tmp_path / "keys.yaml"
    key = key_of(new(name, "--file", str(file)))
    found = read_keys(file).find(key)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize(
    ("rate", "written"),
    [("123456.7", "123456.7"), ("50", "50"), ("0.00001", "0.00001"), ("1e6", "1000000")],
)
def test_a_rate_is_written_as_it_is(rate: str, written: str) -> None:
    _, _, rest = new("a", "--rate", rate).stdout.partition("keys:\n")
    assert f"{{requests_per_second: {written}}}" in rest
    (entry,) = keys_in(f"keys:\n{rest}", source="x")
    assert entry.rate_limit is not None
    assert entry.rate_limit.requests_per_second == float(rate)


def test_many_at_once(tmp_path: Path) -> None:
    """None is lost, and nothing but the file is left; a link to it is the same file."""
    file, link = tmp_path / "keys.yaml", tmp_path / "link.yaml"
    link.symlink_to(file)
    made = [ApiKey(name=f"k{n}", sha256=f"{n:064x}", scopes=["read"]) for n in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add_to, [file, link] * 12, made))
    assert {key.name for key in read_keys(file)} == {key.name for key in made}
    assert {each.name for each in tmp_path.iterdir()} == {"keys.yaml", "link.yaml"}


def test_who_holds_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is named, if it takes too long; what another left behind is in nobody's way."""
    monkeypatch.setattr(import_module("nerve.cli.new_api_key"), "LOCK_S", 0.05)
    file, lock = tmp_path / "keys.yaml", tmp_path / ".keys.yaml.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        result = new("a", "--file", str(file))
        assert isinstance(result.exception, ConfigInvalid)
        assert "is being changed by another program" in str(result.exception)
        assert str(lock) in str(result.exception)
        assert lock.exists()
    assert key_of(new("a", "--file", str(file)))
    assert [each.name for each in tmp_path.iterdir()] == ["keys.yaml"]


def test_a_file_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server would not read it any more."""
    file = tmp_path / "keys.yaml"
    key_of(new("a", "--file", str(file)))
    before = file.read_text()
    for limit, told in (("MAX_KEYS", "has 1 keys, which is"), ("MAX_FILE_BYTES", "would be over")):
        with monkeypatch.context() as patch:
            patch.setattr(f"nerve.security.keys.{limit}", 1 if limit == "MAX_KEYS" else len(before))
            assert told in str(new("b", "--file", str(file)).exception)
    assert file.read_text() == before


def test_line_ends_of_windows(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    there = f'  - name: z\r\n    sha256: "{"ab" * 32}"\r\n    scopes: [read]\r\n'
    for text in ("# ours\r\nkeys: []\r\n", f"keys: # ours\r\n{there}"):
        file.write_bytes(text.encode())
        key = key_of(new("a", "--file", str(file)))
        assert read_keys(file).find(key)
        assert b"# ours\r\n" in file.read_bytes()


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
