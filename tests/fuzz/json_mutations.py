"""Mutations of JSON: of its tree first, written by a writer that knows what JSON forbids. Pure."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from json.encoder import encode_basestring
from random import Random
from typing import Final

DEPTHS: Final = (30, 200, 1100, 20_000)
"""Levels of nesting: harmless, a few parsers' limit, Python's, and everybody's."""
LENGTHS: Final = (257, 2049, 30_000)
"""Of long strings and lists."""


MOST_PLACES: Final = 5000
"""A tree with more values is changed as a whole only: to look for places would take too long."""


class Raw(bytes):
    """Written as it is, JSON or not."""


class Pairs(list[tuple[object, object]]):
    """An object as its pairs, so that a key may be there twice."""


EVIL: Final[tuple[object, ...]] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    -(2**31) - 1,
    2**63,
    -(2**63) - 1,
    2**64,
    10**400,
    0.0,
    -0.5,
    1e-320,
    1e308,
    "",
    " ",
    "\x00",
    "a\x00b",
    "\u202e",
    "\ufeff",
    "\U0001f468\u200d\U0001f469",
    "e" + "\u0301" * 60,
    "null",
    "NaN",
    "-1",
    "../../etc/passwd",
    "{}",
    "%s%n",
    "\ud800",
    "Ω" * 40,
    [],
    {},
    [[]],
    [None],
    [""],
    {"": ""},
    {"inputs": []},
    Raw(b"NaN"),
    Raw(b"-Infinity"),
    Raw(b"1e999"),
    Raw(b"-0"),
    Raw(b"0" * 40),
    Raw(b"1" * 5000),
    Raw(b"1.0"),
    Raw(b'"\xff\xfe"'),
    Raw(b'"\xc0\x80"'),
    Raw(b'"\\ud83d"'),
    Raw(b'"\\u0000"'),
    Raw(b'"\n"'),
    Raw(b""),
    Raw(b"// x\n1"),
)
"""Values that parsers and checks may not expect."""


def evil(rng: Random) -> object:
    """One of them, the caller's own: the next mutation may change it."""
    return copy.deepcopy(rng.choice(EVIL))


def loads(text: str) -> object:
    """JSON as a tree that can be mutated: objects become `Pairs`."""
    parsed: object = json.loads(text, object_pairs_hook=Pairs)
    return parsed


def dumps(value: object) -> bytes:
    """Write a tree. Not recursive: it may be deep."""
    out: list[bytes] = []
    left: list[object] = [value]
    while left:
        match left.pop():
            case Raw() as raw:
                out.append(raw)
            case Pairs() as pairs:
                left.append(Raw(b"}"))
                for at, (key, each) in enumerate(reversed(pairs)):
                    left += [each, Raw(b":"), key]
                    left += [Raw(b",")] if at < len(pairs) - 1 else []
                left.append(Raw(b"{"))
            case dict() as plain:
                left.append(Pairs(plain.items()))
            case list() as items:
                left.append(Raw(b"]"))
                for at, each in enumerate(reversed(items)):
                    left += [each, Raw(b",")] if at < len(items) - 1 else [each]
                left.append(Raw(b"["))
            case str() as text:
                out.append(encode_basestring(text).encode("utf-8", "surrogatepass"))
            case other:
                out.append(json.dumps(other).encode())
    return b"".join(out)


def places(tree: object) -> list[tuple[list[object] | Pairs, int]]:
    """Every value in the tree but its root, as what holds it and where."""
    found: list[tuple[list[object] | Pairs, int]] = []
    left = [tree]
    while left:
        held = left.pop()
        if isinstance(held, Pairs):
            found += [(held, at) for at in range(len(held))]
            left += [each for _, each in held]
        elif isinstance(held, list):
            found += [(held, at) for at in range(len(held))]
            left += held
    return found


def get(holder: list[object] | Pairs, at: int) -> object:
    """The value there."""
    return holder[at][1] if isinstance(holder, Pairs) else holder[at]


def put(holder: list[object] | Pairs, at: int, value: object) -> None:
    """Replace it."""
    if isinstance(holder, Pairs):
        holder[at] = (holder[at][0], value)
    else:
        holder[at] = value


# --- mutations of one place; `Words` are keys and strings that the server knows ---


def _replace(rng: Random, holder: list[object] | Pairs, at: int, _words: tuple[str, ...]) -> None:
    put(holder, at, evil(rng))


def _remove(_rng: Random, holder: list[object] | Pairs, at: int, _words: tuple[str, ...]) -> None:
    del holder[at]


def _again(rng: Random, holder: list[object] | Pairs, at: int, _words: tuple[str, ...]) -> None:
    """The same key, or item, a few times; of keys sometimes with another value."""
    for _ in range(rng.choice((1, 1, 2, 40))):
        if isinstance(holder, Pairs):
            value = rng.choice((holder[at][1], evil(rng)))
            holder.insert(rng.randint(0, len(holder)), (holder[at][0], value))
        else:
            holder.append(holder[at])


def _rename(rng: Random, holder: list[object] | Pairs, at: int, words: tuple[str, ...]) -> None:
    if isinstance(holder, Pairs):
        keys: tuple[object, ...] = (
            rng.choice(words),
            "",
            "__proto__",
            "Inputs",
            7,
            None,
            Raw(b"x"),
        )
        holder[at] = (rng.choice(keys), holder[at][1])
    else:
        holder[at] = rng.choice(words)


def _add(rng: Random, holder: list[object] | Pairs, at: int, words: tuple[str, ...]) -> None:
    value = rng.choice((evil(rng), rng.choice(words)))
    if isinstance(holder, Pairs):
        holder.insert(at, (rng.choice(words), value))
    else:
        holder.insert(at, value)


def _wrap(rng: Random, holder: list[object] | Pairs, at: int, words: tuple[str, ...]) -> None:
    value = get(holder, at)
    put(holder, at, rng.choice(([value], [[value], value], Pairs([(rng.choice(words), value)]))))


def _nest(rng: Random, holder: list[object] | Pairs, at: int, words: tuple[str, ...]) -> None:
    begin, end = rng.choice(((b"[", b"]"), (b'{"%s":' % rng.choice(words).encode(), b"}")))
    depth = rng.choices(DEPTHS, (5, 3, 2, 1))[0]
    middle = dumps(get(holder, at)) if rng.random() < 0.5 else b"[]"
    put(holder, at, Raw(begin * depth + middle + end * rng.choice((depth, depth, depth - 1))))


def _lengthen(rng: Random, holder: list[object] | Pairs, at: int, _words: tuple[str, ...]) -> None:
    value, length = get(holder, at), rng.choices(LENGTHS, (6, 3, 1))[0]
    if isinstance(value, str):
        put(holder, at, (value or "x") * max(1, length // max(1, len(value))))
    elif isinstance(value, Pairs):
        put(holder, at, Pairs((f"k{number}", number) for number in range(min(length, 1200))))
    else:
        put(holder, at, [value] * (40 if isinstance(value, list) else min(length, 1200)))


def _swap(rng: Random, holder: list[object] | Pairs, at: int, _words: tuple[str, ...]) -> None:
    other = rng.randrange(len(holder))
    mine, theirs = get(holder, at), get(holder, other)
    put(holder, at, theirs)
    put(holder, other, mine)


def _text(rng: Random, holder: list[object] | Pairs, at: int, _words: tuple[str, ...]) -> None:
    """Characters that tokenizers see seldom."""
    planes = (
        (32, 127),
        (0, 32),
        (0x300, 0x370),
        (0x4E00, 0x4F00),
        (0x1F300, 0x1F700),
        (0xE000, 0xE100),
    )
    low, high = rng.choice(planes)
    put(holder, at, "".join(chr(rng.randrange(low, high)) for _ in range(rng.randint(1, 200))))


_Mutation = Callable[[Random, "list[object] | Pairs", int, tuple[str, ...]], None]
MUTATIONS: Final[tuple[_Mutation, ...]] = (
    _replace,
    _replace,
    _replace,
    _remove,
    _again,
    _rename,
    _add,
    _add,
    _wrap,
    _nest,
    _lengthen,
    _swap,
    _text,
)


def mutate(rng: Random, tree: object, words: tuple[str, ...]) -> bytes:
    """A tree after one to four mutations, written; the tree itself is spoilt."""
    root: list[object] = [tree]
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        where = places(root[0])
        if not where or len(where) > MOST_PLACES or rng.random() < 0.03:
            rng.choice((_replace, _wrap, _nest))(rng, root, 0, words)
        else:
            rng.choice(MUTATIONS)(rng, *rng.choice(where), words)
    return dumps(root[0])
