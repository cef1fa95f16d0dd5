"""docs/metrics.md, the dashboard and the rules speak of metrics that there are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from metric_names import documented, family_of, in_dashboard, in_rules, shown_name
from nerve.metrics.all import Metrics
from nerve.metrics.gpu import READINGS
from nerve.metrics.security import SecurityMetrics


def collected() -> dict[str, str]:
    """Every metric of the daemon, with its type."""
    registry = CollectorRegistry()
    Metrics(registry)
    SecurityMetrics(registry)
    return {shown_name(family): family.type for family in registry.collect()}


def of_gpus() -> dict[str, str]:
    """Those that only a machine with a GPU has."""
    return {f"nerve_gpu_{reading.name}": "gauge" for reading in READINGS} | {
        "nerve_gpu_energy_joules_total": "counter"
    }


def test_the_documentation_has_every_metric(root: Path) -> None:
    """With its type; and none that there is not."""
    ours = {name: kind for name, kind in collected().items() if name.startswith("nerve_")}
    assert {name: row.kind for name, row in documented(root).items()} == ours


def test_the_documentation_names_the_gpus_metrics(root: Path) -> None:
    text = (root / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert [name for name in of_gpus() if f"`{name}`" not in text] == []


def test_the_documentation_names_the_aliases(root: Path) -> None:
    text = (root / "docs" / "metrics.md").read_text(encoding="utf-8")
    registry = CollectorRegistry()
    Metrics(registry, compat=["triton", "tei"])
    names = [each.name for each in registry.collect() if each.name.startswith(("nv_", "te_"))]
    assert len(names) > 20
    assert [name for name in names if f"`{name}" not in text] == []


@pytest.mark.parametrize("place", ["dashboard", "rules"])
def test_queries_are_for_metrics_that_there_are(root: Path, place: str) -> None:
    wanted = in_dashboard(root) if place == "dashboard" else in_rules(root)
    there = collected() | of_gpus()
    assert len(wanted) > 10
    assert [name for name in sorted(wanted) if family_of(name, there) is None] == []


def test_the_dashboard_hangs_together(root: Path) -> None:
    """Ids once, nothing on top of another, everything from the data source that is chosen."""
    board = json.loads((root / "deploy" / "grafana" / "nerve.json").read_text(encoding="utf-8"))
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
        for target in panel.get("targets", ()):
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    names = {variable["name"] for variable in board["templating"]["list"]}
    assert names == {"datasource", "job", "instance", "model"}
