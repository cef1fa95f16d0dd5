"""The file of API keys: what is taken, what is refused, and that no key is in what is told."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nerve.errors import ConfigInvalid
from nerve.security.keys import PREFIX, KeySet, Scope, keys_in, new_key, read_keys

DIGEST = "ab" * 32
OTHER = "cd" * 32


def entry(**more: object) -> dict[str, object]:
    return {"name": "a", "sha256": DIGEST, "scopes": ["predict"], **more}


def written(*entries: object) -> str:
    return yaml.safe_dump({"keys": list(entries)})


def test_an_entry() -> None:
    text = f"""
keys:
  - name: shop-front  # a comment
    sha256: "{DIGEST.upper()}"
    scopes: [read, predict]
    rate_limit: {{requests_per_second: 2.5}}
    expires: 2027-01-31
"""
    (key,) = keys_in(text, source="x")
    assert (key.name, key.sha256, key.scopes) == (
        "shop-front", DIGEST, [Scope.READ, Scope.PREDICT],
    )  # fmt: skip
    assert key.rate_limit is not None
    assert key.rate_limit.capacity == 3
    assert key.expires_at == 1801353600


@pytest.mark.parametrize(
    ("expires", "moment"),
    [
        ("2027-01-31T12:00:00", 1801396800),
        ("2027-01-31T12:00:00Z", 1801396800),
        ('"2027-01-31T14:00:00+02:00"', 1801396800),
    ],
)
def test_when_it_expires(expires: str, moment: int) -> None:
    text = written(entry()) + f"  expires: {expires}\n"
    (key,) = keys_in(text, source="x")
    assert key.expires_at == moment


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "keys: field required"),
        ("keys: 1", "keys: "),
        (written(entry(name="a b")), "keys[0].name"),
        (written(entry(name="")), "keys[0].name"),
        (written(entry(sha256="hunter2-hunter2")), "keys[0].sha256: expected the SHA-256"),
        (written(entry(sha256=77)), "keys[0].sha256: expected the SHA-256"),
        (written(entry(scopes=[])), "keys[0].scopes"),
        (written(entry(scopes=["write"])), "keys[0].scopes[0]"),
        (written(entry(key="hunter2")), "unknown key"),
        (written(entry(expires=2027)), "keys[0].expires: expected a date"),
        (written(entry(expires="soon")), "keys[0].expires"),
        (written(entry(rate_limit={"requests_per_second": 0})), "requests_per_second"),
        (written(entry(rate_limit={"requests_per_second": 1, "burst": 0})), "burst"),
        (written(entry(rate_limit={"burst": 1})), "requests_per_second"),
        (written(entry(), entry(sha256=OTHER)), "two keys have the same name a"),
        (written(entry(), entry(name="b")), "two keys have the same sha256"),
        ("keys: [", "not valid YAML"),
    ],
)
def test_what_is_refused(text: str, told: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        keys_in(text, source="the file")
    assert told in str(caught.value)
    assert str(caught.value).startswith("the file: ")
    assert "hunter2" not in str(caught.value)


KEY = "nerve_" + "Zk3-q_9X" * 5 + "abc"  # the same in every process that collects these tests


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (written(KEY), "line 2: keys[0]: expected a mapping"),
        (KEY, "expected a mapping of keys"),
        (written(entry(name=f"{KEY}/x")), "line 2: keys[0].name: string should match pattern"),
        (written(entry(name=KEY)), "keys[0].name: expected a name, and this looks like a key"),
        (written(entry(scopes=[KEY])), "keys[0].scopes[0]: input should be 'read', 'predict' or"),
        (written(entry(**{KEY: 1})), "keys[0].nerve_…: unknown key"),
        (written(entry(expires=KEY)), "keys[0].expires: "),
        (written(entry(rate_limit=KEY)), "keys[0].rate_limit: expected a mapping"),
        (written(entry(rate_limit={"requests_per_second": KEY})), "requests_per_second: "),
        (f"{KEY}: 1\n{KEY}: 2", "line 2: nerve_…: this key stands twice"),
        (f"keys: [*{KEY}]", "not valid YAML"),
        (f"keys: [!{KEY} 1]", "not valid YAML"),
        (f"keys: {KEY}: x", "not valid YAML"),
    ],
)
def test_a_key_in_a_wrong_place_is_not_told(text: str, told: str) -> None:
    """Nor a good part of it. What it says is for a log."""
    with pytest.raises(ConfigInvalid) as caught:
        keys_in(text, source="the file")
    assert told in str(caught.value)
    assert KEY[6:14] not in str(caught.value)


def test_a_key_in_a_wrong_place_of_json() -> None:
    value: object
    for value in (KEY, [KEY], {"keys": [KEY]}, {KEY: []}, {"keys": [entry(name=f"{KEY}/")]}):
        with pytest.raises(ConfigInvalid) as caught:
            keys_in(json.dumps(value), source="the file", json=True)
        assert KEY[6:14] not in str(caught.value)


def test_no_keys_are_an_answer() -> None:
    """Of whom took the last one away; nobody may ask then."""
    assert list(keys_in("keys: []", source="x")) == []


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    with pytest.raises(ConfigInvalid, match="cannot be read: No such file"):
        read_keys(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigInvalid, match="is not UTF-8"):
        read_keys(path)
    path.write_bytes(b" " * (4 * 2**20 + 1))
    with pytest.raises(ConfigInvalid, match="is over"):
        read_keys(path)
    path.write_text(written(entry()))
    assert [key.name for key in read_keys(path)] == ["a"]


def test_json(tmp_path: Path) -> None:
    """Where the file's name says so."""
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [entry(expires="2027-01-31")]}))
    (key,) = read_keys(path)
    assert key.expires_at == 1801353600
    for text, told in (
        ("{", "line 1: not valid JSON"),
        ("[]", "expected a mapping"),
        ('{"keys": [{"sha256": "hunter2"}]}', "keys[0].sha256"),
        ("[" * 100_000, "not valid JSON"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigInvalid) as caught:
            read_keys(path)
        assert told in str(caught.value)
        assert "hunter2" not in str(caught.value)


def test_finding_a_key() -> None:
    made = [new_key() for _ in range(50)]
    entries = [entry(name=f"k{number}", sha256=digest) for number, (_, digest) in enumerate(made)]
    keys = keys_in(written(*entries), source="x")
    for number, (key, _) in enumerate(made):
        found = keys.find(key)
        assert found is not None
        assert found.name == f"k{number}"
        assert keys.find(key[:-1]) is None
    for other in ("", "k1", DIGEST, made[0][1], "ü", "\udcff", "x" * 10_000):
        assert keys.find(other) is None


def test_digests_that_begin_alike() -> None:
    """They share a place, and are told apart by the rest."""
    right, digest = new_key()
    alike = digest[:8] + "0" * 56
    keys = keys_in(written(entry(sha256=alike), entry(name="b", sha256=digest)), source="x")
    found = keys.find(right)
    assert found is not None
    assert found.name == "b"
    assert KeySet([]).find(right) is None


@pytest.mark.parametrize(
    "word", ["test", "nerve_", "nerve_test", "x" * 49, "nerve_" + "ü" * 43, "nerve_" + "x" * 44]
)
def test_a_word_is_no_key(word: str) -> None:
    """Nor is its hash, whoever wrote it into the file."""
    digest = hashlib.sha256(word.encode()).hexdigest()
    assert keys_in(written(entry(sha256=digest)), source="x").find(word) is None


def test_new_keys() -> None:
    key, digest = new_key()
    assert key.startswith(PREFIX)
    assert len(key) == len(PREFIX) + 43
    assert hashlib.sha256(key.encode()).hexdigest() == digest
    assert new_key()[0] != key


PIECES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["keys", "name", "sha256", "scopes", "rate_limit", "expires", "burst"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(st.text() | PIECES.map(yaml.safe_dump))
def test_whatever_is_in_it(text: str) -> None:
    """Keys, or an error of ours."""
    with suppress(ConfigInvalid):
        assert isinstance(keys_in(text, source="x"), KeySet)
