"""The Helm chart: rendered by Helm's library, checked by Kubernetes' schemas and our own settings."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from deploy.tools import DEPLOY, package
from nerve.config.server import ServerConfig, load_server_config

CHART: Final = DEPLOY / "helm" / "nerve"
KUBERNETES: Final = ("1.27", "1.37")
"""The oldest that Chart.yaml allows, and the newest that there are schemas of."""

Values = Mapping[str, Any]

GOOD: Final[Mapping[str, Values]] = {
    "defaults": {},
    "autoscaled by queue age": {"autoscaling": {"enabled": True}},
    "autoscaled by queue rows": {"autoscaling": {"enabled": True, "metric": "queueRows"}},
    "autoscaled by cpu": {"autoscaling": {"enabled": True, "metric": "cpu"}},
    "everything": {
        "image": {"repository": "example.com/nerve", "tag": "gpu"},
        "imagePullSecrets": [{"name": "pull"}],
        "settings": {"max_inputs": 64, "model_control_mode": "poll", "log_level": "debug"},
        "models": {"from": "newClaim", "path": "/ner/", "newClaim": {"storageClassName": "fast"}},
        "service": {"headless": True, "annotations": {"a/b": "c"}},
        "tls": {"secretName": "certificate"},
        "apiKeys": {"secretName": "keys"},
        "tracing": {"enabled": True, "url": "http://collector:4317"},
        "metrics": {"podMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
        "networkPolicy": {
            "enabled": True,
            "clients": [{"podSelector": {}}],
            "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "collector"}}}]}],
        },
        "gpu": {"enabled": True, "count": 2},
        "strategy": {"type": "Recreate"},
        "podAnnotations": {"c": "d"},
        "podLabels": {"e": "f"},
        "nodeSelector": {"g": "h"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "priorityClassName": "high",
        "extraEnv": [{"name": "TMPDIR", "value": "/tmp"}],
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    },
    "mutual tls": {"tls": {"secretName": "certificate", "clientCa": True}},
    "one pod": {"replicas": 1, "settings": {}},
    "a claim": {"models": {"from": "claim", "claim": {"name": "models"}}},
    "an image of models": {"models": {"from": "image", "image": {"name": "example.com/models:1"}}},
    "a volume": {"models": {"from": "volume", "volume": {"nfs": {"server": "a", "path": "/b"}}}},
}
BAD: Final[Mapping[str, tuple[Values, str]]] = {
    "misspelt": ({"replica": 1}, "replica"),
    "misspelt below": ({"tls": {"secret": "a"}}, "secret"),
    "a number in quotes": ({"replicas": "2"}, "replicas"),
    "a claim without a name": ({"models": {"from": "claim"}}, "claim"),
    "an image without a name": ({"models": {"from": "image"}}, "image"),
    "no volume": ({"models": {"from": "volume"}}, "volume"),
    "models from nowhere": ({"models": {"from": "s3"}}, "from"),
    "tracing to nowhere": ({"tracing": {"enabled": True}}, "url"),
    "a client CA alone": ({"tls": {"clientCa": True}}, "secretName"),
    "an unknown metric": ({"autoscaling": {"enabled": True, "metric": "requests"}}, "metric"),
    "a setting of the chart": ({"settings": {"http_port": 1}}, "settings.http_port"),
    "a service without its port": ({"settings": {"disable_grpc": True}}, "settings.disable_grpc"),
    "a misspelt setting": ({"settings": {"max_inputz": 1}}, "max_inputz"),
    "deaf to probes": ({"settings": {"metrics_hostname": "127.0.0.1"}}, "metrics_hostname"),
    "a port for two": ({"ports": {"http": 8080, "metrics": 8080}}, "ports"),
}


@dataclass(frozen=True)
class Rendered:
    """What Helm makes of GOOD and BAD."""

    findings: list[dict[str, Any]]
    texts: Mapping[str, Mapping[str, str]]
    errors: Mapping[str, str]

    def documents(self, case: str) -> dict[str, dict[str, Any]]:
        """By kind; the chart has at most one of each."""
        found: dict[str, dict[str, Any]] = {}
        for path, text in self.texts[case].items():
            for document in yaml.safe_load_all(text) if path.endswith(".yaml") else ():
                if document is not None:
                    assert document["kind"] not in found
                    found[document["kind"]] = document
        return found

    def container(self, case: str) -> dict[str, Any]:
        (container,) = self.pod(case)["containers"]
        assert isinstance(container, dict)
        return container

    def pod(self, case: str) -> dict[str, Any]:
        pod = self.documents(case)["Deployment"]["spec"]["template"]["spec"]
        assert isinstance(pod, dict)
        return pod

    def environment(self, case: str) -> dict[str, str]:
        return {each["name"]: each["value"] for each in self.container(case)["env"]}


@pytest.fixture(scope="module")
def rendered() -> Rendered:
    package("helm_python", of="helm-python-sdk")
    values = [*GOOD.values(), *(values for values, _ in BAD.values())]
    result = subprocess.run(
        [sys.executable, "-m", "deploy.helm_chart", CHART], input=json.dumps(values),
        cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    good = dict(zip(GOOD, answer["charts"], strict=False))
    bad = dict(zip(BAD, answer["charts"][len(GOOD) :], strict=True))
    failed = {case: each["error"] for case, each in good.items() if "error" in each}
    assert not failed
    return Rendered(
        answer["findings"],
        {case: each["manifests"] for case, each in good.items()},
        {case: each.get("error", "") for case, each in bad.items()},
    )


def test_helm_finds_nothing_to_say(rendered: Rendered) -> None:
    """But that the chart has no icon."""
    assert [each["error"] for each in rendered.findings] == ["icon is recommended"]


@pytest.mark.parametrize("case", GOOD)
def test_kubernetes_would_take_it(rendered: Rendered, case: str) -> None:
    kubernetes = package("kubernetes_validate", of="kubernetes-validate")
    documents = rendered.documents(case)
    # a kind of the Prometheus Operator's, which Kubernetes has no schema of
    monitor = documents.pop("PodMonitor", None)
    for document in documents.values():
        for version in KUBERNETES if case == "everything" else KUBERNETES[-1:]:
            kubernetes.validate(document, version, strict=True)
    if monitor is not None:
        assert set(monitor["spec"]) == {"selector", "podMetricsEndpoints"}


@pytest.mark.parametrize("case", BAD)
def test_values_that_mean_nothing_are_refused(rendered: Rendered, case: str) -> None:
    assert BAD[case][1] in rendered.errors[case]


@pytest.mark.parametrize("case", GOOD)
def test_the_server_understands_what_it_is_told(
    rendered: Rendered, case: str, tmp_path: Path
) -> None:
    """The settings file and the variables, read as `nerve serve` reads them."""
    file = tmp_path / "nerve.yaml"
    file.write_text(rendered.documents(case)["ConfigMap"]["data"]["nerve.yaml"])
    environment = rendered.environment(case)
    names = {f"NERVE_{name.upper()}" for name in ServerConfig.model_fields} | {"NERVE_CONFIG"}
    assert {name for name in environment if name.startswith("NERVE_")} <= names
    config = load_server_config({}, environment, file)
    ports = {each["name"]: each["containerPort"] for each in rendered.container(case)["ports"]}
    assert ports == {
        "http": config.http_port, "grpc": config.grpc_port, "metrics": config.metrics_port,
    }  # fmt: skip
    grace = rendered.pod(case)["terminationGracePeriodSeconds"]
    assert grace > config.shutdown_delay_s + config.shutdown_timeout_s


@pytest.mark.parametrize("case", GOOD)
def test_every_file_that_is_named_is_mounted(rendered: Rendered, case: str) -> None:
    mounts = {each["mountPath"]: each["name"] for each in rendered.container(case)["volumeMounts"]}
    volumes = {each["name"] for each in rendered.pod(case)["volumes"]}
    assert set(mounts.values()) <= volumes
    for name, value in rendered.environment(case).items():
        if value.startswith("/etc/nerve/"):
            assert {value, str(Path(value).parent)} & set(mounts), name
    bundled = GOOD[case].get("models", {}).get("from", "bundled") == "bundled"
    assert ("/models" in mounts) != bundled


@pytest.mark.parametrize("case", GOOD)
def test_the_pod_is_confined(rendered: Rendered, case: str) -> None:
    """As Kubernetes' restricted profile of pod security asks, and the root is read-only."""
    pod = rendered.pod(case)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    for container in [*pod["containers"], *pod.get("initContainers", ())]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_selectors_find_the_pods_and_nothing_else(rendered: Rendered) -> None:
    documents = rendered.documents("everything")
    deployment = documents["Deployment"]["spec"]
    wanted = deployment["selector"]["matchLabels"]
    assert wanted.items() <= deployment["template"]["metadata"]["labels"].items()
    assert documents["Service"]["spec"]["selector"] == wanted
    assert documents["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == wanted
    assert documents["PodMonitor"]["spec"]["selector"]["matchLabels"] == wanted
    assert documents["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == wanted


def test_the_chart_knows_every_setting() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    known = schema["properties"]["settings"]["propertyNames"]["enum"]
    assert known == sorted(ServerConfig.model_fields)


def test_the_rules_find_the_pods_job(rendered: Rendered) -> None:
    """They ask for job="nerve", which is not how the operator names a job."""
    (endpoint,) = rendered.documents("everything")["PodMonitor"]["spec"]["podMetricsEndpoints"]
    renamed = {each["targetLabel"]: each["replacement"] for each in endpoint["relabelings"]}
    rules = (DEPLOY / "prometheus" / "nerve.rules.yml").read_text()
    assert renamed == {"job": "nerve"}
    assert f'up{{job="{renamed["job"]}"}}' in rules


def test_one_pod_has_no_budget_and_an_autoscaler_owns_the_replicas(rendered: Rendered) -> None:
    assert "PodDisruptionBudget" not in rendered.documents("one pod")
    assert rendered.documents("one pod")["Deployment"]["spec"]["replicas"] == 1
    scaled = rendered.documents("autoscaled by cpu")
    assert "replicas" not in scaled["Deployment"]["spec"]
    assert "PodDisruptionBudget" in scaled


def test_the_autoscaler_asks_for_what_the_adapter_offers(rendered: Rendered) -> None:
    adapter = yaml.safe_load((DEPLOY / "helm" / "prometheus-adapter.yaml").read_text())
    offered = {rule["name"]["matches"] for rule in adapter["rules"]["custom"]}
    asked = set()
    for case in ("autoscaled by queue age", "autoscaled by queue rows"):
        (metric,) = rendered.documents(case)["HorizontalPodAutoscaler"]["spec"]["metrics"]
        asked.add(metric["pods"]["metric"]["name"])
    assert asked == offered


@pytest.mark.parametrize("case", ["defaults", "everything", "mutual tls"])
def test_probes_need_neither_key_nor_certificate(rendered: Rendered, case: str) -> None:
    container = rendered.container(case)
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
    assert probes == [
        {"path": path, "port": "metrics"} for path in ("/readyz", "/readyz", "/livez")
    ]


def test_a_new_setting_makes_new_pods(rendered: Rendered) -> None:
    templates = [
        rendered.documents(case)["Deployment"]["spec"]["template"]["metadata"]["annotations"]
        for case in ("defaults", "everything")
    ]
    assert templates[0]["nerve/settings"] != templates[1]["nerve/settings"]
