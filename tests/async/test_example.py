"""clients/examples/async.py, as it stands, against the daemon on the bundled model."""

from __future__ import annotations

import sys
from pathlib import Path

from clients.separate import run
from support import running_server


async def test_entities_of_two_texts(root: Path, bundled: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "jobs.db")
    async with running_server(
        str(bundled), "--async-store", store, "--disable-grpc", "--no-prove-models"
    ) as daemon:
        texts = ("Ada Lovelace lived in London.", "Marie Curie lived in Paris.")
        example = root / "clients" / "examples" / "async.py"
        printed = await run(sys.executable, example, *texts, env={"NERVE_URL": daemon.url})
    assert [line.rpartition(" ")[0] for line in printed.splitlines()] == [
        "PER Ada Lovelace",
        "LOC London",
        "PER Marie Curie",
        "LOC Paris",
    ]
