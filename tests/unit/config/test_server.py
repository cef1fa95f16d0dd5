"""Settings of the daemon: flags over variables over the file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest
from pydantic import ValidationError

from nerve.config.described import descriptions
from nerve.config.server import ServerConfig, load_server_config, misspelt, service_links
from nerve.config.settings.repositories import ControlMode
from nerve.errors import ConfigInvalid
from nerve.words import OffsetUnit

ENVIRONMENT: dict[str, tuple[str, object]] = {
    "repositories": (os.pathsep.join(["/a", "b/c"]), [Path("/a"), Path("b/c")]),
    "http_hostname": ("127.0.0.1", "127.0.0.1"),
    "http_port": ("9000", 9000),
    "disable_http": ("true", True),
    "disable_playground": ("true", True),
    "grpc_hostname": ("::1", "::1"),
    "grpc_port": ("0", 0),
    "disable_grpc": ("1", True),
    "grpc_keepalive_s": ("30", 30.0),
    "grpc_min_ping_interval_s": ("0", 0.0),
    "grpc_max_connection_idle_s": ("60", 60.0),
    "grpc_max_connection_age_s": ("300", 300.0),
    "enable_mcp": ("true", True),
    "mcp_allowed_origins": ("https://a,http://b:1", ["https://a", "http://b:1"]),
    "mcp_max_sessions": ("1", 1),
    "mcp_session_timeout_s": ("0.5", 0.5),
    "cert_file": ("/a/cert.pem", Path("/a/cert.pem")),
    "key_file": ("/a/key.pem", Path("/a/key.pem")),
    "client_ca_file": ("/a/ca.pem", Path("/a/ca.pem")),
    "hsts_max_age_s": ("60", 60),
    "api_keys_file": ("keys.yaml", Path("keys.yaml")),
    "cors_allowed_origins": ("https://a,http://b:1", ["https://a", "http://b:1"]),
    "default_model": ("ner", "ner"),
    "log_level": ("debug", "debug"),
    "metrics_port": ("0", 0),
    "metrics_hostname": ("::1", "::1"),
    "metrics_compat": ("Triton, tei", ["triton", "tei"]),
    "log_format": ("JSON", "json"),
    "access_log": ("true", True),
    "enable_otel": ("1", True),
    "otel_exporter_url": ("http://collector:4317", "http://collector:4317"),
    "otel_exporter_protocol": ("http/protobuf", "http/protobuf"),
    "otel_service_name": ("tagger", "tagger"),
    "otel_sample_ratio": ("0.01", 0.01),
    "offset_unit": ("utf16", OffsetUnit.UTF16),
    "request_timeout_s": ("2.5", 2.5),
    "head_timeout_s": ("0.5", 0.5),
    "body_timeout_s": ("1", 1.0),
    "write_timeout_s": ("9", 9.0),
    "keepalive_timeout_s": ("600", 600.0),
    "max_connections": ("1", 1),
    "grpc_max_connections": ("1", 1),
    "max_requests_in_flight": ("1", 1),
    "max_bytes_in_flight": ("1024", 1024),
    "max_header_bytes": ("1048576", 2**20),
    "max_body_bytes": ("4096", 4096),
    "max_infer_bytes": ("1024", 1024),
    "max_inputs": ("1", 1),
    "max_client_batch_size": ("7", 7),
    "async_store": ("postgresql://nerve@db/jobs", "postgresql://nerve@db/jobs"),
    "async_retention_s": ("60", 60.0),
    "async_max_queued": ("1", 1),
    "async_max_stored_bytes": ("1048576", 2**20),
    "async_max_body_bytes": ("1024", 1024),
    "async_max_in_progress": ("1024", 1024),
    "async_timeout_s": ("0.5", 0.5),
    "async_webhook_secrets_file": ("/a/secrets", Path("/a/secrets")),
    "async_webhook_networks": (
        "10.0.0.0/8,fd00::/8",
        [IPv4Network("10.0.0.0/8"), IPv6Network("fd00::/8")],
    ),
    "async_webhook_attempts": ("1", 1),
    "async_webhook_timeout_s": ("2.5", 2.5),
    "async_webhook_connections": ("1", 1),
    "shutdown_delay_s": ("5", 5.0),
    "shutdown_timeout_s": ("0", 0.0),
    "model_control_mode": ("EXPLICIT", ControlMode.EXPLICIT),
    "load_model": ("a,b", ["a", "b"]),
    "allow_model_control": ("true", True),
    "repository_poll_seconds": ("0.5", 0.5),
    "settle_seconds": ("0", 0.0),
    "load_threads": ("64", 64),
    "load_timeout_s": ("2.5", 2.5),
    "prove_models": ("false", False),
    "proof_memory_bytes": ("67108864", 67_108_864),
    "graph_cache": ("/a/b", Path("/a/b")),
    "graph_cache_bytes": ("5", 5),
    "exit_on_error": ("1", True),
}
"""Every field: what its variable holds, and what it becomes. None is the default."""

INVALID: dict[str, list[str]] = {
    "repositories": [],  # any text is a path
    "http_hostname": [],
    "http_port": ["-1", "65536", "x", "1.5"],
    "disable_http": ["maybe"],
    "disable_playground": ["maybe"],
    "grpc_hostname": [],
    "grpc_port": ["-1", "65536", "x"],
    "disable_grpc": ["maybe"],
    "grpc_keepalive_s": ["0", "x", "nan", "inf"],
    "grpc_min_ping_interval_s": ["-1", "x", "nan", "inf"],
    "grpc_max_connection_idle_s": ["0", "x", "nan", "inf"],
    "grpc_max_connection_age_s": ["0", "x", "nan", "inf"],
    "enable_mcp": ["maybe"],
    "mcp_allowed_origins": ["a", "https://a/", "https://a/mcp", "HTTPS://A", "https://a b", "*.a"],
    "mcp_max_sessions": ["0", "x"],
    "mcp_session_timeout_s": ["0", "-1", "x", "nan", "inf"],
    "cert_file": [],  # any text is a path
    "key_file": [],
    "client_ca_file": [],
    "hsts_max_age_s": ["0", "x"],
    "api_keys_file": [],
    "cors_allowed_origins": ["a", "https://a/", "https://a/mcp", "HTTPS://A", "https://a b", "*.a"],
    "default_model": [],
    "log_level": ["trace", "loud"],
    "metrics_port": ["-1", "65536", "x"],
    "metrics_hostname": [],
    "metrics_compat": ["vllm", "3"],
    "log_format": ["xml"],
    "access_log": ["maybe"],
    "enable_otel": ["maybe"],
    "otel_exporter_url": ["collector:4317", "grpc://a:1", "http://", "http://a:x", "http://a b"],
    "otel_exporter_protocol": ["http/json", "tcp"],
    "otel_service_name": [],
    "otel_sample_ratio": ["-0.1", "1.1", "nan", "x"],
    "offset_unit": ["bytes"],
    "request_timeout_s": ["0", "-1", "x", "nan"],
    "head_timeout_s": ["0", "-1", "nan"],
    "body_timeout_s": ["0", "-1", "nan"],
    "write_timeout_s": ["0", "inf"],
    "keepalive_timeout_s": ["0", "x"],
    "max_connections": ["0"],
    "grpc_max_connections": ["0", "2147483648"],
    "max_requests_in_flight": ["0"],
    "max_bytes_in_flight": ["1023"],
    "max_header_bytes": ["1023", "1048577"],
    "max_body_bytes": ["1023", "x"],
    "max_infer_bytes": ["1023", "2147483648", "x"],
    "max_inputs": ["0"],
    "max_client_batch_size": ["0"],
    "async_store": [],  # what is wrong is not repeated: there may be a password in it
    "async_retention_s": ["0", "-1", "nan", "inf"],
    "async_max_queued": ["0", "x"],
    "async_max_stored_bytes": ["1048575"],
    "async_max_body_bytes": ["1023"],
    "async_max_in_progress": ["0", "1025"],
    "async_timeout_s": ["0", "x"],
    "async_webhook_secrets_file": [],  # any text is a path
    "async_webhook_networks": ["10.0.0.1/8", "everywhere"],
    "async_webhook_attempts": ["0", "21"],
    "async_webhook_timeout_s": ["0", "nan"],
    "async_webhook_connections": ["0", "1025"],
    "shutdown_delay_s": ["-1", "inf"],
    "shutdown_timeout_s": ["-1", "nan"],
    "model_control_mode": ["auto", "true"],
    "load_model": [],
    "allow_model_control": ["maybe"],
    "repository_poll_seconds": ["0", "-1", "x", "nan", "inf"],
    "settle_seconds": ["-1", "x", "nan"],
    "load_threads": ["0", "65"],
    "load_timeout_s": ["0", "-1", "x", "nan"],
    "prove_models": ["maybe"],
    "proof_memory_bytes": ["67108863", "x"],
    "graph_cache": [],  # any text is a path
    "graph_cache_bytes": ["0", "x"],
    "exit_on_error": ["maybe"],
}

PAIR: dict[str, str] = {"NERVE_CERT_FILE": "/a/cert.pem", "NERVE_KEY_FILE": "/a/key.pem"}
NEEDED: dict[str, dict[str, str]] = {
    "load_model": {"NERVE_MODEL_CONTROL_MODE": "explicit"},
    "cert_file": PAIR,
    "key_file": PAIR,
    "client_ca_file": PAIR,
    "hsts_max_age_s": PAIR,
}
"""Variables without which that of a field is refused."""


def settings(
    *,
    flags: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> ServerConfig:
    return load_server_config(flags or {}, environment or {}, file)


def write(tmp_path: Path, text: str | bytes) -> Path:
    file = tmp_path / "nerve.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def test_the_tables_hold_every_field() -> None:
    assert set(ENVIRONMENT) == set(ServerConfig.model_fields)
    assert set(INVALID) == set(ServerConfig.model_fields)


def test_nothing_said_means_defaults() -> None:
    assert settings() == ServerConfig()


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_every_field_can_be_set_by_its_variable(name: str) -> None:
    """`NERVE_` and the field's name in capitals."""
    text, expected = ENVIRONMENT[name]
    needed = NEEDED.get(name, {})
    config = settings(environment={f"NERVE_{name.upper()}": text, **needed})
    assert getattr(config, name) == expected
    assert getattr(config, name) != getattr(ServerConfig(), name)
    without = settings(environment=needed)
    others = {field for field in ServerConfig.model_fields if field != name}
    assert config.model_dump(include=others) == without.model_dump(include=others)


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, texts in INVALID.items() for text in texts]
)
def test_an_invalid_variable_is_told_by_its_field(name: str, text: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        settings(environment={f"NERVE_{name.upper()}": text})
    (problem,) = caught.value.problems
    assert (problem.path.removesuffix("[0]"), problem.line) == (name, 0)
    assert repr(text) in problem.message or "greater" in problem.message
    assert problem.message[0].islower()


def test_flags_win_over_variables_and_variables_over_the_file(tmp_path: Path) -> None:
    """Field by field; what the stronger source does not say comes from the weaker one."""
    file = write(tmp_path, "http_port: 1\ngrpc_port: 1\nmax_inputs: 1\n")
    environment = {"NERVE_HTTP_PORT": "2", "NERVE_GRPC_PORT": "4"}
    config = settings(flags={"http_port": 3}, environment=environment, file=file)
    assert (config.http_port, config.grpc_port, config.max_inputs) == (3, 4, 1)
    assert settings(environment=environment, file=file).http_port == 2
    assert settings(flags={"http_port": 3}, file=file).http_port == 3


def test_lists_are_replaced_not_joined(tmp_path: Path) -> None:
    file = write(tmp_path, "repositories: [from_file]\n")
    environment = {"NERVE_REPOSITORIES": "from_variable"}
    assert settings(file=file).repositories == [Path("from_file")]
    assert settings(environment=environment, file=file).repositories == [Path("from_variable")]
    flags = {"repositories": [Path("a"), Path("b")]}
    config = settings(flags=flags, environment=environment, file=file)
    assert config.repositories == [Path("a"), Path("b")]


def test_a_bad_value_that_is_overruled_does_no_harm(tmp_path: Path) -> None:
    file = write(tmp_path, "http_port: x\n")
    assert settings(environment={"NERVE_HTTP_PORT": "2"}, file=file).http_port == 2
    assert settings(flags={"http_port": 3}, environment={"NERVE_HTTP_PORT": "y"}).http_port == 3


def test_empty_and_foreign_variables_are_ignored() -> None:
    """`NERVE_HTTP_PORT=` in a compose file means: not set."""
    environment = {"NERVE_HTTP_PORT": "", "HTTP_PORT": "1", "nerve_http_port": "1", "NERVE_X": "1"}
    assert settings(environment=environment) == ServerConfig()


def test_all_problems_of_all_sources_at_once(tmp_path: Path) -> None:
    """Those of the file with their line, the others without."""
    file = write(tmp_path, "log_level: loud\nhttp_prot: 80\nmax_inputs: 0\n")
    with pytest.raises(ConfigInvalid) as caught:
        settings(flags={"grpc_port": -1}, environment={"NERVE_MAX_INPUTS": "-5"}, file=file)
    assert {(each.path, each.line) for each in caught.value.problems} == {
        ("grpc_port", 0),
        ("log_level", 1),
        ("http_prot", 2),
        ("max_inputs", 0),
    }
    assert "did you mean 'http_port'?" in str(caught.value)


def test_something_must_listen() -> None:
    with pytest.raises(ConfigInvalid, match="disable both gRPC and HTTP"):
        settings(flags={"disable_http": True}, environment={"NERVE_DISABLE_GRPC": "true"})


@pytest.mark.parametrize("value", [[], "models"])
def test_repositories_are_a_list_of_at_least_one(value: object) -> None:
    with pytest.raises(ConfigInvalid, match="repositories"):
        settings(flags={"repositories": value})


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        pytest.param(b"\xff", "is not UTF-8", id="no text"),
        pytest.param(b"[1", "line 1: not valid YAML", id="syntax"),
        pytest.param(
            b"http_port: 1\nhttp_port: 2\n", "http_port: this key stands twice", id="twice"
        ),
        pytest.param(b"- 1\n", "expected a mapping", id="list"),
    ],
)
def test_a_broken_file(tmp_path: Path, content: bytes, fault: str) -> None:
    """The error names the file by the path that was given."""
    file = write(tmp_path, content)
    with pytest.raises(ConfigInvalid) as caught:
        settings(file=file)
    assert caught.value.source == str(file)
    assert fault in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"nowhere\.yaml: cannot be read: No such file"):
        settings(file=tmp_path / "nowhere.yaml")


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ServerConfig().http_port = 1  # type: ignore[misc]


def test_every_field_is_described() -> None:
    assert ServerConfig.__doc__
    assert set(ServerConfig.model_fields) <= set(descriptions(ServerConfig))


def test_a_level_in_upper_case_is_the_same() -> None:
    assert load_server_config({}, {"NERVE_LOG_LEVEL": "INFO"}, None).log_level == "info"


def test_yes_is_no_port(tmp_path: Path) -> None:
    file = tmp_path / "nerve.yaml"
    file.write_text("http_port: yes\n")
    with pytest.raises(ConfigInvalid, match="http_port: expected a port number, got a boolean"):
        load_server_config({}, {}, file)


def test_misspelt_variables_are_found_and_those_of_kubernetes_left_alone() -> None:
    ours = "NERVE_HTTP_PROT NERVE_MAX_INPUT NERVE_HTTP_PORT NERVE_CONFIG"
    others = "NERVE_SERVICE_HOST NERVE_SERVICE_PORT_GRPC NERVE_PORT_8080_TCP_ADDR HTTP_PROT"
    clients = "NERVE_API_KEY NERVE_URL NERVE_GRPC NERVE_CACHE_DIR"
    given = dict.fromkeys(f"{ours} {others} {clients}".split(), "1")
    assert misspelt({**given, "NERVE_PORT": "tcp://10.0.0.1:80"}) == [
        ("NERVE_HTTP_PROT", "NERVE_HTTP_PORT"),
        ("NERVE_MAX_INPUT", "NERVE_MAX_INPUTS"),
    ]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("API_KEYS", "API_KEYS_FILE"),
        ("TLS_CERT", "CERT_FILE"),
        ("TLS_KEY", "KEY_FILE"),
        ("CERT", "CERT_FILE"),
        ("CERT_PATH", "CERT_FILE"),
        ("OTEL_URL", "OTEL_EXPORTER_URL"),
        ("CORS_ORIGINS", "CORS_ALLOWED_ORIGINS"),
        ("MAX_BODY", "MAX_BODY_BYTES"),
        ("MODELS", "REPOSITORIES"),
        ("MODEL_REPOSITORY", "REPOSITORIES"),
        ("PORT", "HTTP_PORT"),
        ("LOGLEVEL", "LOG_LEVEL"),
    ],
)
def test_what_was_meant(written: str, meant: str) -> None:
    """A server that was to have keys and TLS does not start without them and without a word."""
    assert misspelt({f"NERVE_{written}": "x"}) == [(f"NERVE_{written}", f"NERVE_{meant}")]


def test_no_variable_of_ours_is_passed_over() -> None:
    assert misspelt({"NERVE_TLS": "1"}) == [("NERVE_TLS", "")]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"otel_exporter_url": "http://a"}, [("otel_exporter_url", "enable_otel")]),
        ({"otel_exporter_url": "http://a", "enable_otel": True}, []),
        ({"otel_sample_ratio": None}, []),
        ({"metrics_hostname": "::1"}, [("metrics_hostname", "metrics_port")]),
        ({"metrics_hostname": "::1", "metrics_port": 0}, []),
        ({"graph_cache_bytes": 5}, [("graph_cache_bytes", "graph_cache")]),
        ({"async_timeout_s": 5}, [("async_timeout_s", "async_store")]),
        ({"async_timeout_s": 5, "async_store": "jobs.db"}, []),
        ({"proof_memory_bytes": 2**30}, []),
        (
            {"proof_memory_bytes": 2**30, "prove_models": False},
            [("proof_memory_bytes", "prove_models")],
        ),
    ],
)
def test_settings_that_do_nothing_are_found(
    flags: dict[str, object], told: list[tuple[str, str]]
) -> None:
    assert settings(flags=flags).without_effect == told


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"http_port": 9, "metrics_port": 9}, "http_port and metrics_port are both 9"),
        ({"http_port": 9, "grpc_port": 9}, "http_port and grpc_port are both 9"),
        (
            {"grpc_port": 9, "metrics_port": 9, "metrics_hostname": "127.0.0.1"},
            "grpc_port and metrics_port are both 9",
        ),
        ({"http_port": 0, "grpc_port": 0, "metrics_port": 0}, ""),
        ({"http_port": 9, "grpc_port": 9, "disable_grpc": True}, ""),
        ({"http_port": 9, "metrics_port": 9, "metrics_hostname": "::"}, ""),
        (
            {
                "http_port": 9, "http_hostname": "10.0.0.1",
                "metrics_port": 9, "metrics_hostname": "127.0.0.1",
            },
            "",
        ),
    ],
)  # fmt: skip
def test_each_listener_has_a_port_of_its_own(flags: dict[str, object], told: str) -> None:
    if not told:
        settings(flags=flags)
        return
    with pytest.raises(ConfigInvalid, match=told):
        settings(flags=flags)


@pytest.mark.parametrize("name", ["http_port", "grpc_port", "metrics_port"])
def test_links_of_kubernetes_are_no_ports(tmp_path: Path, name: str) -> None:
    """A Service `nerve-http` gives every pod NERVE_HTTP_PORT; the file's port stays."""
    variable = f"NERVE_{name.upper()}"
    for link in ("tcp://10.0.0.1:80", "udp://[fd00::1]:80"):
        environment = {variable: link, "NERVE_MAX_INPUTS": "3"}
        assert service_links(environment) == [variable]
        assert misspelt(environment) == []
        assert settings(environment=environment) == settings(flags={"max_inputs": 3})
        file = write(tmp_path, f"{name}: 9000\n")
        assert getattr(settings(environment=environment, file=file), name) == 9000
    for other in ("tcp://10.0.0.1", "http://10.0.0.1:80", "tcp://10.0.0.1:80/x"):
        assert service_links({variable: other}) == []
        with pytest.raises(ConfigInvalid, match=name):
            settings(environment={variable: other})
    assert service_links({"NERVE_LOG_LEVEL": "tcp://10.0.0.1:80", variable: "80"}) == []


# --- control of models ---


@pytest.mark.parametrize(
    ("mode", "allowed", "control"),
    [
        ("watch", False, False),
        ("poll", False, False),
        ("none", False, False),
        ("explicit", False, True),
        ("watch", True, True),
        ("none", True, True),
    ],
)
def test_who_may_load_and_unload(mode: str, allowed: bool, control: bool) -> None:
    """Nobody, unless the mode is explicit or it is allowed."""
    config = settings(flags={"model_control_mode": mode, "allow_model_control": allowed})
    assert config.model_control is control


@pytest.mark.parametrize(
    ("flags", "poll_s"),
    [
        ({}, 30.0),
        ({"model_control_mode": "poll"}, 15.0),
        ({"model_control_mode": "poll", "repository_poll_seconds": 2}, 2.0),
        ({"repository_poll_seconds": 0.25}, 0.25),
    ],
)
def test_time_between_two_looks(flags: dict[str, object], poll_s: float) -> None:
    """With watch it is only a net."""
    assert settings(flags=flags).poll_s == poll_s


@pytest.mark.parametrize("mode", ["watch", "poll", "none"])
def test_load_model_is_for_explicit(mode: str) -> None:
    """The others load every model; not to be told would mislead."""
    flags = {"model_control_mode": mode, "load_model": ["ner"]}
    with pytest.raises(ConfigInvalid, match="load_model is for model_control_mode explicit"):
        settings(flags=flags)
    config = settings(flags={**flags, "model_control_mode": "explicit"})
    assert config.load_model == ["ner"]


@pytest.mark.parametrize("scheme", ["mysql", "sqlite", "https"])
def test_a_store_is_a_file_or_postgresql(scheme: str) -> None:
    """The password of what is none is not told."""
    with pytest.raises(
        ConfigInvalid, match="async_store: expected a file, or postgresql"
    ) as caught:
        settings(flags={"async_store": f"{scheme}://nerve:sesame@db/jobs"})
    assert f"got '{scheme}'://…" in str(caught.value)
    assert "sesame" not in str(caught.value)


def test_mcp_has_a_door() -> None:
    """It is on the port of HTTP."""
    with pytest.raises(ConfigInvalid, match="enable_mcp offers /mcp on the port of HTTP"):
        settings(flags={"enable_mcp": True, "disable_http": True})


def test_load_model_in_a_file(tmp_path: Path) -> None:
    file = write(tmp_path, "model_control_mode: explicit\nload_model: ['*']\n")
    assert settings(file=file).load_model == ["*"]


def test_yes_is_no_mode(tmp_path: Path) -> None:
    """YAML's `none` is a word, but `no` is false."""
    assert settings(file=write(tmp_path, "model_control_mode: none")).model_control_mode == "none"
    with pytest.raises(ConfigInvalid, match="model_control_mode"):
        settings(file=write(tmp_path, "model_control_mode: no"))


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"cert_file": "a"}, "cert_file is nothing without key_file"),
        ({"key_file": "a"}, "key_file is nothing without cert_file"),
        ({"client_ca_file": "a"}, "client_ca_file is for TLS"),
        ({"hsts_max_age_s": 1}, "hsts_max_age_s is for TLS"),
    ],
)
def test_tls_is_whole(flags: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigInvalid, match=told):
        settings(flags=flags)
