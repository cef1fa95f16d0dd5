"""benchmarks/gpu.py measures a GPU or says that there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nerve.engine.session import gpu_devices


@pytest.mark.skipif(bool(gpu_devices()), reason="this machine has a GPU")
def test_nothing_is_measured_without_a_gpu(root: Path) -> None:
    """One sentence, and no file with figures."""
    results = root / "benchmarks" / "results"
    before = sorted(results.glob("gpu-*"))
    ran = subprocess.run(
        [sys.executable, "benchmarks/gpu.py"], cwd=root, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert ran.stdout == ""
    (told,) = ran.stderr.splitlines()
    assert told.startswith("this benchmark needs an NVIDIA GPU, and ONNX Runtime ")
    assert told.endswith("; nothing measured")
    assert sorted(results.glob("gpu-*")) == before
