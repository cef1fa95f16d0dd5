"""compose.yaml and what it hands to Prometheus and Grafana."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from deploy.tools import DEPLOY, package, program
from nerve.config.server import load_server_config

COMPOSE: Final = DEPLOY / "compose"


def services() -> dict[str, Any]:
    """Of compose.yaml, with every variable at its default."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (COMPOSE / "compose.yaml").read_text())
    found = yaml.safe_load(text)["services"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("name", ["compose.gpu.yaml", "compose.yaml"])
def test_it_is_as_the_compose_specification_says(name: str) -> None:
    specification = package("compose_spec", of="compose-spec")
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (COMPOSE / name).read_text())
    specification.PyCompose.from_yaml(text).validate()


def test_every_folder_that_is_mounted_is_there() -> None:
    for name, service in services().items():
        for volume in service["volumes"]:
            source = volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
            if source.startswith("."):
                assert (COMPOSE / source).exists(), (name, source)


def test_the_server_understands_its_variables_and_is_given_time_to_end() -> None:
    nerve = services()["nerve"]
    config = load_server_config({}, nerve["environment"], None)
    grace = int(nerve["stop_grace_period"].removesuffix("s"))
    assert grace > config.shutdown_delay_s + config.shutdown_timeout_s
    assert (nerve["read_only"], nerve["cap_drop"]) == (True, ["ALL"])


def test_prometheus_asks_the_port_that_metrics_have() -> None:
    jobs = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())["scrape_configs"]
    (targets,) = [job["static_configs"][0]["targets"] for job in jobs if job["job_name"] == "nerve"]
    assert targets == [f"nerve:{services()['nerve']['environment']['NERVE_METRICS_PORT']}"]


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    """With the rules where they lie here."""
    promtool = program("promtool", of="apt-get install prometheus")
    there = "/etc/prometheus/rules"
    text = (COMPOSE / "prometheus.yml").read_text()
    assert there in text
    file = tmp_path / "prometheus.yml"
    file.write_text(text.replace(there, str(DEPLOY / "prometheus")))
    result = subprocess.run(
        [promtool, "check", "config", file], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_dashboards_find_the_data_that_grafana_is_given() -> None:
    sources = yaml.safe_load((COMPOSE / "grafana" / "datasources" / "prometheus.yaml").read_text())
    known = {source["uid"] for source in sources["datasources"]}
    dashboards = sorted((DEPLOY / "grafana").glob("*.json"))
    assert dashboards
    for path in dashboards:
        text = path.read_text()
        asked = set(re.findall(r'"type":\s*"prometheus",\s*"uid":\s*"([^"$]+)"', text))
        assert asked <= known, path.name
    provider = yaml.safe_load((COMPOSE / "grafana" / "dashboards" / "nerve.yaml").read_text())
    folder = provider["providers"][0]["options"]["path"]
    assert any(str(each).endswith(f":{folder}:ro") for each in services()["grafana"]["volumes"])
