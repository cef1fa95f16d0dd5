"""The runtime for KServe, and its command run for real on a model where KServe would put one."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from clients.separate import cannot
from deploy.tools import DEPLOY, package
from nerve.config.server import load_server_config

RUNTIME: Final = DEPLOY / "kserve" / "cluster-serving-runtime.yaml"
PROBE: Final = DEPLOY / "docker" / "probe.py"
KEYS: Final = {
    "annotations", "labels", "containers", "volumes", "supportedModelFormats", "protocolVersions",
    "multiModel", "nodeSelector", "affinity", "tolerations", "imagePullSecrets", "disabled",
}  # fmt: skip
"""Of a ServingRuntimeSpec of serving.kserve.io/v1alpha1 (KServe 0.15), those of single models."""


def runtime(name: str) -> dict[str, Any]:
    """The runtime's spec as KServe fills it in for an InferenceService of that name."""
    text = RUNTIME.read_text().replace("{{.Name}}", name)
    assert "{{" not in text
    spec = yaml.safe_load(text)["spec"]
    assert isinstance(spec, dict)
    return spec


def test_its_pod_would_be_taken() -> None:
    kubernetes = package("kubernetes_validate", of="kubernetes-validate")
    spec = runtime("my-ner")
    assert set(spec) <= KEYS
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "my-ner", "annotations": spec["annotations"]},
        "spec": {"containers": spec["containers"], "volumes": spec["volumes"]},
    }
    kubernetes.validate(pod, "1.37", strict=True)
    (container,) = spec["containers"]
    assert container["name"] == "kserve-container"  # KServe knows it by that
    assert spec["multiModel"] is False
    environment = {each["name"]: each["value"] for each in container["env"]}
    config = load_server_config({}, environment, None)
    assert container["ports"] == [{"containerPort": config.http_port, "protocol": "TCP"}]
    # what Kubernetes gives a pod that says nothing, and this cannot
    assert config.shutdown_delay_s + config.shutdown_timeout_s < 30


def test_the_example_asks_for_a_format_that_the_runtime_has() -> None:
    service = yaml.safe_load((DEPLOY / "kserve" / "inference-service.yaml").read_text())
    model, spec = service["spec"]["predictor"]["model"], runtime("x")
    assert model["runtime"] == yaml.safe_load(RUNTIME.read_text())["metadata"]["name"]
    assert model["modelFormat"]["name"] in {each["name"] for each in spec["supportedModelFormats"]}
    assert model["protocolVersion"] in spec["protocolVersions"]


async def run_probe(**environment: str) -> tuple[int | None, str]:
    """How the image's health check ends, and what it says."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", PROBE, env=environment, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30):
        _, said = await process.communicate()
    return process.returncode, said.decode().strip()


async def test_the_command_serves_the_model_under_the_services_name(
    tmp_path: Path, tiny_models: Path
) -> None:
    """A flat export folder in /mnt/models; and the image's health check tells the truth of it."""
    if shutil.which("sh") is None:
        cannot("there is no sh")
    shutil.copytree(tiny_models / "bert", tmp_path / "mnt" / "models")
    (container,) = runtime("my-ner")["containers"]
    command = [*container["command"], *container["args"]]
    command[2] = command[2].replace("/mnt/models", f"{tmp_path}/mnt/models")
    command[2] = re.sub(r'"/tmp/\$0"', f'"{tmp_path}/$0"', command[2])
    environment = {each["name"]: each["value"] for each in container["env"]}
    environment |= {
        "NERVE_HTTP_PORT": "0",
        "NERVE_GRPC_PORT": "0",
        "NERVE_HTTP_HOSTNAME": "127.0.0.1",
    }
    environment |= {"NERVE_GRPC_HOSTNAME": "127.0.0.1", "NERVE_SHUTDOWN_DELAY_S": "0"}
    environment |= {"NERVE_METRICS_PORT": "0", "NERVE_METRICS_HOSTNAME": "127.0.0.1"}
    here = str(Path(sys.executable).parent)
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE,
        env={**environment, "PATH": os.pathsep.join((here, os.environ["PATH"]))},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        said: list[str] = []
        async with asyncio.timeout(60):
            while not said or not said[-1].startswith("{"):
                line = (await process.stdout.readline()).decode()
                assert line, said
                said.append(line.rstrip())
        assert "Model: my-ner v1" in said
        ports = json.loads(said[-1])["ports"]
        port, grpc, metrics = (str(ports[each]) for each in ("http", "grpc", "metrics"))
        assert await run_probe(NERVE_HTTP_PORT=port) == (0, "")
        assert await run_probe(NERVE_METRICS_PORT=metrics) == (0, "")
        assert await run_probe(NERVE_DISABLE_HTTP="true", NERVE_GRPC_PORT=grpc) == (0, "")
    finally:
        process.terminate()  # `exec`: there is no shell in between
        async with asyncio.timeout(30):
            assert await process.wait() == 0
    status, reason = await run_probe(NERVE_HTTP_PORT=port)
    assert status == 1
    assert reason.startswith(f"nothing answers on port {port}")


@pytest.mark.parametrize("variable", ["NERVE_CLIENT_CA_FILE", "NERVE_DISABLE_HTTP"])
async def test_where_nothing_listens_the_probe_says_so(variable: str, unused_tcp_port: int) -> None:
    port = str(unused_tcp_port)
    status, reason = await run_probe(
        **{variable: "true", "NERVE_HTTP_PORT": port, "NERVE_GRPC_PORT": port}
    )
    assert status == 1
    assert reason.startswith(f"nothing listens on port {port}")
