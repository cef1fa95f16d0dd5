"""`nerve models`: what a running server has loaded, and loading and unloading, over HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nerve.cli.https import Identity
from nerve.cli.terminal import plain, print_json, print_lines, print_table
from nerve.config.model import MAX_CONFIG_BYTES
from nerve.errors import InvalidField

if TYPE_CHECKING:
    from nerve.cli.client import Client

LOOK_TIMEOUT_S = 30.0
"""For what the server answers at once."""

app = typer.Typer(
    name="models",
    help="See, load and unload the models of a running server.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Model name.", show_default=False)]
Url = Annotated[str, typer.Option("--url", envvar="NERVE_URL", help="Root of the server.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Timeout = Annotated[
    float, typer.Option("--timeout", min=0.001, help="Seconds to wait for the server's answer.")
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        envvar="NERVE_API_KEY",
        help="Of a server that wants one; others see what stands on a command line, so rather put "
        "it into the variable.",
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        metavar="FILE",
        help="Authorities in PEM that a server with https may have its certificate from. Default: "
        "those of SSL_CERT_FILE, or the system's.",
    ),
]
CertFile = Annotated[
    Path | None,
    typer.Option(
        "--cert-file",
        metavar="FILE",
        envvar="NERVE_CLIENT_CERT_FILE",
        help="Certificate in PEM, for a server that wants one of its clients.",
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        metavar="FILE",
        envvar="NERVE_CLIENT_KEY_FILE",
        help="Its private key, if that is not in the same file.",
    ),
]
DEFAULT_URL = "http://127.0.0.1:8080"


@app.command("list")
def list_(
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
    api_key: ApiKey = None,
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
) -> None:
    """Every version of every model, its state, and why it is in it."""
    client = _client(url, LOOK_TIMEOUT_S, Identity(api_key, ca_file, cert_file, key_file))
    _show(joined(client.index(), client.models()), as_json=as_json)


@app.command()
def status(
    name: Name,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
    api_key: ApiKey = None,
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
) -> None:
    """Everything that the server tells of one model."""
    model = _client(url, LOOK_TIMEOUT_S, Identity(api_key, ca_file, cert_file, key_file)).model(
        name
    )
    if as_json:
        print_json(model)
        return
    versions = [each for each in model.pop("versions", None) or [] if isinstance(each, dict)]
    about = flat(model)
    columns = [flat(version) for version in versions]
    width = max(map(len, about), default=0)
    print_lines(f"{plain(key):{width}}  {plain(value)}".rstrip() for key, value in about.items())
    if columns:
        print_lines([""])
        # a line a fact: labels and reasons are too long to stand beside each other
        facts = dict.fromkeys(key for column in columns for key in column)
        facts.pop("version", None)
        head = ["version", *(str(each.get("version", "")) for each in versions)]
        print_table(head, [[key, *(column.get(key, "") for column in columns)] for key in facts])


@app.command()
def load(
    name: Name,
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            metavar="FILE|JSON",
            help="Taken in place of the model's config.yaml, until the next load: a YAML or JSON "
            "file with its keys, or JSON text.",
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    timeout: Timeout = 600.0,
    as_json: AsJson = False,
    api_key: ApiKey = None,
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
) -> None:
    """Load a model, or what changed of it; returns when it is READY."""
    parameters = {} if config is None else {"config": config_text(config)}
    client = _client(url, timeout, Identity(api_key, ca_file, cert_file, key_file))
    client.load(name, parameters)
    _show_one(client, name, as_json=as_json)


@app.command()
def unload(
    name: Name,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when requests in flight have ended.")
    ] = False,
    url: Url = DEFAULT_URL,
    timeout: Timeout = 600.0,
    as_json: AsJson = False,
    api_key: ApiKey = None,
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
) -> None:
    """Unload a model: new requests are refused at once, those in flight end first."""
    client = _client(url, timeout, Identity(api_key, ca_file, cert_file, key_file))
    client.unload(name, {"wait": True} if wait else {})
    _show_one(client, name, as_json=as_json)


def _client(url: str, timeout_s: float, identity: Identity) -> Client:
    from nerve.cli.client import Client  # noqa: PLC0415  keeps `--help` fast

    return Client(url, timeout_s=timeout_s, identity=identity)


def _show_one(client: Client, name: str, *, as_json: bool) -> None:
    rows = [row for row in client.index() if row.get("name") == name]
    models = [model for model in client.models() if model.get("name") == name]
    _show(joined(rows, models), as_json=as_json)


def _show(models: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json({"models": models})
        return
    rows = []
    for model in models:
        default = "yes" if model["default"] else ""
        for version in model["versions"] or [{"version": "", **model}]:
            cells = [version.get(key) or "" for key in ("version", "state", "reason")]
            rows.append([model["name"], cells[0], cells[1], default, cells[2]])
    print_table(["MODEL", "VERSION", "STATE", "DEFAULT", "REASON"], rows)


def joined(index: list[dict[str, Any]], models: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The index and the list of models as one list, by name. Pure.

    Returns:
        `name`, `state`, `reason`, `default`, and `versions` with `version`, `state`, `reason`. A
        model that only one of the two knows came or went between the questions, or was never
        loaded.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in [*(each.get("name") for each in models), *(row.get("name") for row in index)]:
        found[str(name)] = {
            "name": str(name), "state": "", "reason": "", "default": False, "versions": [],
        }  # fmt: skip
    for each in models:
        known = found[str(each.get("name"))]
        known |= {key: each.get(key) or known[key] for key in ("state", "reason", "default")}
    for row in index:
        known = found[str(row.get("name"))]
        about = {key: row.get(key) or "" for key in ("version", "state", "reason")}
        if about["version"]:
            known["versions"].append(about)
        else:
            known |= {key: about[key] or known[key] for key in ("state", "reason")}
    return [found[name] for name in sorted(found)]


def flat(value: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Facts by dotted path, as text; what is null is left out. Pure."""
    facts: dict[str, str] = {}
    for key, child in value.items():
        path = f"{above}.{key}" if above else str(key)
        if isinstance(child, dict):
            facts |= flat(child, path)
        elif isinstance(child, list):
            facts[path] = ", ".join(
                each if isinstance(each, str) else json.dumps(each) for each in child
            )
        elif isinstance(child, bool):
            facts[path] = "yes" if child else "no"
        elif child is not None:
            facts[path] = str(child)
    return facts


def config_text(given: str) -> str:
    """JSON text of a config: given as such, or the content of a YAML or JSON file.

    Raises:
        InvalidField: it is neither.
        ConfigInvalid: the file is no YAML, or no mapping.
    """
    if given.lstrip().startswith("{"):
        return given
    path = Path(given)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
        text = content.decode()
    except (OSError, ValueError) as error:
        detail = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise InvalidField("--config", f"{given}: {detail}") from error
    if len(content) > MAX_CONFIG_BYTES:
        raise InvalidField("--config", f"{given}: is over {MAX_CONFIG_BYTES} bytes")
    if path.suffix == ".json":
        return text
    import orjson  # noqa: PLC0415  keeps `--help` fast

    from nerve.config.problems import parse_yaml  # noqa: PLC0415

    value, _ = parse_yaml(text, source=given)
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError as error:  # YAML knows sets, bytes and numbers of any size
        raise InvalidField("--config", f"{given}: {error}") from error
