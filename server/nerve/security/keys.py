"""The file of API keys: who may ask for what, how often and until when. Decides nothing."""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import re
import secrets
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Self

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from nerve.config.problems import parse_yaml, validate
from nerve.errors import ConfigInvalid, Problem

MAX_FILE_BYTES: Final = 4 * 2**20
PREFIX: Final = "nerve_"
"""Of keys that we make, so that programs which look for leaked secrets know one."""
SECRET_BYTES: Final = 32
_INDEX_BYTES: Final = 4
MAX_KEYS: Final = 10_000
_DIGEST: Final = re.compile(r"[0-9a-fA-F]{64}")
_KEY: Final = re.compile(PREFIX + r"[A-Za-z0-9_-]{43}")
"""The prefix and 32 bytes in base64. Nothing else is a key, so that the hash of a word opens nothing."""
_LIKE_A_KEY: Final = re.compile(PREFIX + r"[A-Za-z0-9_-]{8,}")
"""Or a good part of one."""


class Scope(StrEnum):
    """What a key is good for."""

    READ = "read"
    PREDICT = "predict"
    ADMIN = "admin"
    """Everything."""


class RateLimit(BaseModel):
    """How often a key may ask."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_per_second: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
    burst: Annotated[int, Field(ge=1, le=10**9)] | None = None
    """Requests at once after a pause; by default those of one second."""

    @property
    def capacity(self) -> int:
        """Requests at once after a pause."""
        return self.burst or max(1, math.ceil(self.requests_per_second))


def _digest(value: object) -> object:
    # The value is not told: it may be the key itself.
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise ValueError(
            "expected the SHA-256 of the key, 64 hexadecimal digits; `nerve new-api-key` prints it"
        )
    return value.lower()


def _name(value: object) -> object:
    # It would be in every line of the log that is about it, whose rules a key does not break.
    if isinstance(value, str) and _KEY.fullmatch(value):
        raise ValueError("expected a name, and this looks like a key itself")
    return value


def _moment(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str | date):  # a number would be seconds
        raise ValueError("expected a date or a time, as 2027-01-31 or 2027-01-31T12:00:00Z")  # noqa: TRY004  pydantic wants it
    return value


class ApiKey(BaseModel):
    """An entry of the file. The key itself is nowhere."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"), BeforeValidator(_name)
    ]
    """For logs, metrics and error messages."""
    sha256: Annotated[str, BeforeValidator(_digest)]
    scopes: Annotated[list[Scope], Field(min_length=1)]
    rate_limit: RateLimit | None = None
    expires: Annotated[datetime, BeforeValidator(_moment)] | None = None
    """From then on it is refused; without a zone in UTC, a date from its first moment on."""

    @property
    def expires_at(self) -> float:
        """Seconds since 1970 began, UTC."""
        if self.expires is None:
            return math.inf
        known = self.expires if self.expires.tzinfo else self.expires.replace(tzinfo=UTC)
        return known.timestamp()


class KeyFile(BaseModel):
    """The file. With an empty list of keys nobody may ask."""

    # What stands in a wrong place may be a key, and what is told of it ends up in logs.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    keys: Annotated[list[ApiKey], Field(max_length=MAX_KEYS)]

    @model_validator(mode="after")
    def _each_is_one(self) -> Self:
        for what, values in (
            ("name", [key.name for key in self.keys]),
            ("sha256", [key.sha256 for key in self.keys]),
        ):
            if twice := _first_repeated(values):
                raise ValueError(f"two keys have the same {what} {twice:.64}")
        return self


def _first_repeated(values: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


class KeySet:
    """The keys of a file, found by what a client sends."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._found: dict[bytes, list[tuple[bytes, ApiKey]]] = {}
        for key in keys:
            digest = bytes.fromhex(key.sha256)
            self._found.setdefault(digest[:_INDEX_BYTES], []).append((digest, key))

    def __iter__(self) -> Iterator[ApiKey]:
        """All of them."""
        for row in self._found.values():
            for _, key in row:
                yield key

    def find(self, sent: str) -> ApiKey | None:
        """The key that a client sent, None if it is none of these.

        Digests are looked up by their first bytes and compared whole, in constant time. How long it
        takes tells at most whether a key has a digest that begins alike, and what a digest begins
        with nobody can choose, nor go from there to the key.
        """
        if not _KEY.fullmatch(sent):
            return None
        digest = hashlib.sha256(sent.encode()).digest()
        found = None
        for known, key in self._found.get(digest[:_INDEX_BYTES], ()):
            if hmac.compare_digest(known, digest):
                found = key
        return found


def read_keys(path: Path) -> KeySet:
    """The keys in a file.

    Raises:
        ConfigInvalid: it cannot be read, or has faults; no key is in what is told of them.
    """
    return keys_in(text_of(path), source=str(path), json=path.suffix == ".json")


def text_of(path: Path) -> str:
    """What stands in a file of keys.

    Raises:
        ConfigInvalid: it cannot be read, is too large, or no text.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _invalid(path, f"cannot be read: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise _invalid(path, f"is over {MAX_FILE_BYTES} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise _invalid(path, "is not UTF-8") from error


def keys_in(text: str, *, source: str, json: bool = False) -> KeySet:
    """The keys in the text of a file: YAML, or JSON, of which thousands are read in no time. Pure.

    Raises:
        ConfigInvalid: no value is in what is told, nor anything else that looks like a key.
    """
    try:
        if json:
            return KeySet(validate(KeyFile, orjson.loads(text), source=source).keys)
        value, lines = parse_yaml(text, source=source)
        return KeySet(validate(KeyFile, value, source=source, lines=lines).keys)
    except orjson.JSONDecodeError as error:
        detail = f"not valid JSON: {error.msg}"
        raise ConfigInvalid(source, [Problem("", detail, error.lineno)]) from error
    except ConfigInvalid as error:
        raise ConfigInvalid(source, [_masked(each) for each in error.problems]) from None


def _masked(problem: Problem) -> Problem:
    path, message = (
        _LIKE_A_KEY.sub(f"{PREFIX}…", each) for each in (problem.path, problem.message)
    )
    return Problem(path, message, problem.line)


def new_key() -> tuple[str, str]:
    """A key that nobody can guess, and its SHA-256 in hexadecimal digits.

    A hash that is slow on purpose guards words that people choose, which can be tried one after the
    other. Of 256 random bits none can, so a fast one does, on every request.
    """
    secret = base64.urlsafe_b64encode(secrets.token_bytes(SECRET_BYTES)).rstrip(b"=").decode()
    key = PREFIX + secret
    return key, hashlib.sha256(key.encode()).hexdigest()


def _invalid(path: Path, fault: str) -> ConfigInvalid:
    return ConfigInvalid(str(path), [Problem("", fault)])
