"""Renders the chart with Helm's own library; `python -m deploy.helm_chart CHART < values.json`.

A program, as the library brings the runtime of Go, with threads and signal handlers of its own, into the
process that loads it.

In: a JSON list of values. Out: `findings` of its linter, and `charts`, for each values either
`{"manifests": {path: text}}` or `{"error": text}`.
"""

from __future__ import annotations

import importlib
import json
import sys


def main(chart: str) -> None:
    """Render with each."""
    helm = importlib.import_module("helm_python")
    charts = []
    with helm.Chart.load(chart) as loaded:
        for values in json.load(sys.stdin):
            try:
                loaded.validate_schema(values)
                charts.append({"manifests": loaded.render(values, name="ner", namespace="texts")})
            except helm.HelmError as error:
                charts.append({"error": str(error)})
    findings = helm.lint(chart, strict=True)["messages"]
    json.dump({"findings": findings, "charts": charts}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
