"""Signatures of messages, and the file of their secrets."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from job_tools import signed
from nerve.errors import ConfigInvalid
from nerve.jobs.signing import LOOK_S, Secrets, new_secrets, read_secrets, signature

ONE, OTHER = "a-secret-of-16-and-more", "another-secret-of-that-kind"


def written(path: Path, *lines: str, mode: int = 0o600) -> Path:
    """A file of secrets."""
    path.write_text("\n".join(lines))
    path.chmod(mode)
    return path


def test_a_signature_is_hmac_sha256_of_the_body() -> None:
    """The value is that of RFC 4231, test case 2, whose key is shorter than we take."""
    assert signature(b"what do ya want for nothing?", [b"Jefe"]) == (
        "v1=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )
    assert signature(b"{}", [ONE.encode(), OTHER.encode()]) == signed(b"{}", [ONE, OTHER])


def test_comments_and_empty_lines_are_left_out(tmp_path: Path) -> None:
    path = written(tmp_path / "s", "# the newer one", f"  {ONE} ", "", OTHER, ONE)
    assert read_secrets(path) == (ONE.encode(), OTHER.encode())


@pytest.mark.parametrize(
    ("lines", "mode", "fault"),
    [
        ([], 0o600, "holds no secret"),
        (["# nothing"], 0o600, "holds no secret"),
        ([ONE, "tiny"], 0o600, "line 2.*shorter than 16"),
        (["two words are no secret"], 0o600, "line 1.*one word"),
        ([f"{ONE}{number}" for number in range(5)], 0o600, "5 secrets, at most 4"),
        (["x" * 70_000], 0o600, "over 65536 bytes"),
        ([ONE], 0o604, "mode 604.*chmod 600"),
        ([ONE], 0o620, "mode 620"),
    ],
)
def test_a_file_that_is_not_used(tmp_path: Path, lines: list[str], mode: int, fault: str) -> None:
    path = written(tmp_path / "s", *lines, mode=mode)
    with pytest.raises(ConfigInvalid, match=fault) as caught:
        read_secrets(path)
    assert "async_webhook_secrets_file" in str(caught.value)
    assert not any(line in str(caught.value) for line in lines if line)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert new_secrets(None) is None
    with pytest.raises(ConfigInvalid, match="No such file"):
        new_secrets(tmp_path / "s")


def test_a_changed_file_is_taken_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A broken one is reported once, and changes nothing."""
    path = written(tmp_path / "s", ONE)
    secrets, now = Secrets(path), 10.0**9
    assert secrets.sign(b"{}", now) == signed(b"{}", [ONE])
    written(tmp_path / "s", OTHER, ONE)
    assert secrets.sign(b"{}", now + LOOK_S / 2) == signed(b"{}", [ONE])
    assert secrets.sign(b"{}", now + LOOK_S) == signed(b"{}", [OTHER, ONE])
    written(tmp_path / "s", "")
    with caplog.at_level(logging.ERROR):
        for look in (2, 3, 4):
            assert secrets.sign(b"{}", now + look * LOOK_S) == signed(b"{}", [OTHER, ONE])
    assert len(caplog.records) == 1
    path.unlink()
    assert secrets.sign(b"{}", now + 5 * LOOK_S) == signed(b"{}", [OTHER, ONE])
    written(tmp_path / "s", OTHER)
    assert secrets.sign(b"{}", now + 6 * LOOK_S) == signed(b"{}", [OTHER])
