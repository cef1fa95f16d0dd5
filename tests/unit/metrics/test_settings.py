"""Which servers' names are wanted besides our own, and where the metrics are."""

from __future__ import annotations

import pytest

from nerve.config.server import load_server_config
from nerve.errors import ConfigInvalid


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["triton"], ["triton"]), (["triton,tei"], ["triton", "tei"]), ("TEI", ["tei"]),
        (["triton", "tei", "triton"], ["triton", "tei"]), (["none"], []), ("", []),
    ],
)  # fmt: skip
def test_names_of_other_servers(given: object, expected: list[str]) -> None:
    """On the command line, where the option may be repeated, or in a file."""
    assert load_server_config({"metrics_compat": given}, {}, None).metrics_compat == expected


def test_names_in_a_variable() -> None:
    given = {"NERVE_METRICS_COMPAT": "triton, tei", "NERVE_METRICS_PORT": "8002"}
    config = load_server_config({}, given, None)
    assert (config.metrics_compat, config.metrics_port) == (["triton", "tei"], 8002)


@pytest.mark.parametrize("given", [["vllm"], 3, [3]])
def test_a_server_that_is_not_known(given: object) -> None:
    with pytest.raises(ConfigInvalid, match="metrics_compat"):
        load_server_config({"metrics_compat": given}, {}, None)
