"""Which view of which model a name means."""

from __future__ import annotations

import pytest

from nerve.frontend.v2.views import Target, View, resolve


@pytest.mark.parametrize(
    ("name", "known", "target"),
    [
        ("ner", ["ner"], Target("ner", View.TEXT)),
        ("ner.raw", ["ner"], Target("ner", View.RAW)),
        ("ner.raw", ["ner", "ner.raw"], Target("ner.raw", View.TEXT)),
        ("ner.raw.raw", ["ner", "ner.raw"], Target("ner.raw", View.RAW)),
        ("ner.raw", [], Target("ner.raw", View.TEXT)),
        (".raw", ["ner"], Target(".raw", View.TEXT)),
    ],
)
def test_a_model_s_own_name_goes_first(name: str, known: list[str], target: Target) -> None:
    assert resolve(name, known.__contains__) == target
