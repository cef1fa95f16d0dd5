"""What the documentation, the dashboard and the rules say of metrics, and what a page has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from prometheus_client.core import Metric

ROW = re.compile(r"^\| `(nerve_\w+)` \| (\w+) \| ([\w, ]*)\|", re.MULTILINE)
NAME = re.compile(r"(?<![\w:])(?:nerve|nv|te|process|python)_\w+(?![\w:])")
SUFFIXES = ("_bucket", "_sum", "_count")


class Row(NamedTuple):
    """A metric in docs/metrics.md."""

    kind: str
    labels: frozenset[str]


def documented(root: Path) -> dict[str, Row]:
    """The tables of docs/metrics.md."""
    text = (root / "docs" / "metrics.md").read_text(encoding="utf-8")
    found = ROW.findall(text)
    assert len({name for name, *_ in found}) == len(found), "a metric is there twice"
    return {name: Row(kind, frozenset(re.findall(r"\w+", labels))) for name, kind, labels in found}


def shown_name(family: Metric) -> str:
    """As Prometheus' text format calls it."""
    return f"{family.name}_total" if family.type == "counter" else family.name


def in_dashboard(root: Path) -> set[str]:
    """Metrics that the dashboard's queries want, variables and annotations included."""
    board = json.loads((root / "deploy" / "grafana" / "nerve.json").read_text(encoding="utf-8"))
    return _names(_queries(board))


def in_rules(root: Path) -> set[str]:
    """Metrics that rules and alerts want."""
    file = root / "deploy" / "prometheus" / "nerve.rules.yml"
    groups = yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
    return _names(rule["expr"] for group in groups for rule in group["rules"])


def _queries(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key in ("expr", "query", "definition") and isinstance(value, str):
                yield value
            else:
                yield from _queries(value)
    elif isinstance(node, list):
        for value in node:
            yield from _queries(value)


def _names(queries: Iterable[str]) -> set[str]:
    return {name for query in queries for name in NAME.findall(query)}


def family_of(name: str, families: Mapping[str, str]) -> str | None:
    """The metric that a series belongs to, of families with their types."""
    if name in families and families[name] != "histogram":
        return name
    for suffix in SUFFIXES:
        base = name.removesuffix(suffix)
        if base != name and families.get(base) == "histogram":
            return base
    return None
