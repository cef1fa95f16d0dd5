"""Imports only point down, and each heavy dependency has one home (docs/architecture.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import nerve

PACKAGE = Path(nerve.__file__).parent
FREE = {"errors", "exchange", "types", "offload", "processes", "threads", "words"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "exchange": set(),
    "types": set(),
    "offload": set(),
    "processes": set(),
    "threads": set(),
    "access_log": set(),
    "log_lines": set(),
    "logs": {"log_lines"},
    "starting": set(),
    "words": set(),
    "metrics": set(),
    "config": set(),
    "pipeline": {"config"},
    "engine": {"config", "metrics"},
    "model": {"pipeline"},
    "opening": {"model", "config", "metrics", "pipeline", "engine", "transforming"},
    "golden_texts": set(),
    "golden": {"config", "golden_texts"},
    "caching": {"config", "metrics"},
    "jobs": {"config", "metrics"},
    "conversion": {"config", "engine"},
    "proof": {"config", "engine"},
    "security": {"config", "metrics"},
    "tracing": {"config"},
    "transforming": {"pipeline"},
    "proof_server": {"proof", "model", "opening", "golden", "engine", "config", "metrics", "logs"},
    "repository": {"config", "metrics"},
    "importing": {"config", "repository", "_proto"},
    "building": {"importing", "_proto"},
    "service": {"repository", "config", "metrics"},
    "frontend": {"service", "jobs", "config", "metrics", "logs", "_proto"},
    "_proto": set(),
}
"""What an area may import besides FREE. `app`, `cli` and `__main__` import all."""
TOP = {"app", "doors", "loading", "daemon", "cli", "__main__", "__init__"}
HOMES: dict[str, str | tuple[str, ...]] = {
    "onnxruntime": "engine/session.py",
    "onnx": "engine/precision/",
    "tokenizers": "pipeline/tokenizer.py",
    "lupa": "pipeline/transform.py",
    "opentelemetry": "tracing/",
    "watchfiles": "repository/watcher.py",
    "aiohttp": ("frontend/http/", "doors.py", "cli/remote.py", "jobs/webhook.py"),
    "sqlite3": "jobs/sqlite.py",
    "psycopg": "jobs/postgres.py",
    "psycopg_pool": "jobs/postgres.py",
    "pyarrow": "cli/bulk/",
    "ruamel": "cli/config_file.py",
    "grpc": "frontend/grpc/",
    "mcp": "frontend/mcp/",
    "mcp_types": "frontend/mcp/",
    "anyio": "frontend/mcp/",
    "yaml": ("config/problems.py", "importing/config_text.py"),
    "prometheus_client": "",
    "typer": "cli/",
    "rich": "cli/",
}
"""Where a dependency may be imported: prefixes of the module's path."""


def imports(path: Path) -> set[str]:
    """Full dotted names of everything that a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            module = node.module or ""
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def modules() -> list[tuple[str, Path]]:
    return [
        (path.relative_to(PACKAGE).as_posix(), path)
        for path in sorted(PACKAGE.rglob("*.py"))
        if not path.name.endswith(("_pb2.py", "_pb2_grpc.py"))
    ]


def test_every_area_is_in_the_table() -> None:
    areas = {name.split("/")[0].removesuffix(".py") for name, _ in modules()}
    assert areas <= set(ALLOWED) | TOP


def test_imports_point_down() -> None:
    wrong = []
    for name, path in modules():
        area = name.split("/")[0].removesuffix(".py")
        if area in TOP:
            continue
        for imported in imports(path):
            parts = imported.split(".")
            if parts[0] != "nerve" or len(parts) == 1 or imported == "nerve.__version__":
                continue
            if parts[1] != area and parts[1] not in ALLOWED[area] | FREE:
                wrong.append(f"{name} imports {imported}")
    assert wrong == []


def test_heavy_dependencies_stay_at_home() -> None:
    wrong = [
        f"{name} imports {imported}"
        for name, path in modules()
        for imported in imports(path)
        if (home := HOMES.get(imported.split(".")[0])) and not name.startswith(home)
    ]
    assert wrong == []


def test_only_the_cli_prints_or_exits() -> None:
    """`daemon` may end the process when a second signal asks for it."""
    wrong = []
    for name, path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called == "print" and not name.startswith("cli/"):
                    wrong.append(f"{name}:{node.lineno} prints")
                if called == "sys.exit" and not name.startswith(("cli/", "daemon.py")):
                    wrong.append(f"{name}:{node.lineno} exits")
    assert wrong == []
