"""Every step of the page, run as it stands there, and its output against what the page shows.

Where ports are named, 0 stands in for them: those of the page may be taken on this machine.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent

from commands import run_here
from cookbook.conftest import CONFIG, Bare, Page
from nerve._proto.encoderfile import metadata_pb2, token_classification_pb2

EXAMPLE_1 = '{\n  "inputs": ["Mozilla is headquartered in San Fancisco, CA"]\n}'
EXAMPLE_2 = """{
  "inputs": [
    "Yvon Chouinard founded Patagonia in 1957.",
    "The Eiffel Tower is located in Paris, France."
  ]
}"""
SINGLE = "Tim Cook presented the new iPhone at Apple Park in California."
BATCH = (
    "Amazon was founded by Jeff Bezos in Seattle.",
    "Mozilla's headquarters are in San Francisco, California.",
    "Marie Curie won the Nobel Prize in Physics.",
)
SERVICE = "/encoderfile.token_classification.TokenClassificationInference/"
LOCAL = ("--http-hostname", "127.0.0.1", "--http-port", "0", "--grpc-hostname", "127.0.0.1")
MADE = ("Generating project...", "Compiling binary... (once, about a minute)")
WAIT_S = 60.0
SOFTMAX = """\
  transform: |
    --- Apply softmax to normalize logits
    function Postprocess(arr)
        return arr:softmax(3)
    end
"""
ARGMAX = """\
transform: |
  function Postprocess(arr)
    -- Only return top prediction per token
    return arr:argmax(3)
  end
"""


@contextmanager
def serving(bare: Bare, *flags: str) -> Iterator[tuple[list[str], dict[str, int]]]:
    """A server until the block ends: the lines that it printed, and its ports. SIGTERM drains it."""
    process = bare.start(*flags)
    try:
        lines, ports = startup(process)
        yield lines, ports
        process.terminate()
        _, err = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0, err
    finally:
        process.kill()
        process.communicate()


def startup(process: subprocess.Popen[str]) -> tuple[list[str], dict[str, int]]:
    assert process.stdout is not None
    assert process.stderr is not None
    lines: list[str] = []
    while not lines or not lines[-1].startswith("{"):
        line = process.stdout.readline()
        assert line, process.stderr.read()
        lines.append(line.rstrip("\n"))
    return lines[:-1], json.loads(lines[-1])["ports"]


def curl(url: str, body: str | None = None) -> bytes:
    """As the page does it; with curl, where there is one."""
    headers = {"Content-Type": "application/json"}
    if tool := shutil.which("curl"):
        posting = [] if body is None else ["-X", "POST", "-H", "Content-Type: application/json"]
        posting += [] if body is None else ["-d", body]
        return subprocess.run([tool, "-sS", url, *posting], capture_output=True, check=True).stdout
    request = urllib.request.Request(url, body.encode() if body else None, headers)
    with urllib.request.urlopen(request, timeout=WAIT_S) as response:
        return bytes(response.read())


def check_shape(answer: Any, texts: int) -> None:
    """That an answer has the fields of the page, in their order."""
    assert list(answer)[:2] == ["results", "model_id"]
    assert answer["model_id"] == "ner-tagger"
    assert len(answer["results"]) == texts
    for result in answer["results"]:
        assert list(result) == ["tokens"]
        for token in result["tokens"]:
            assert list(token) == ["token_info", "scores", "label", "score"]
            assert list(token["token_info"]) == ["token", "token_id", "start", "end"]
            assert token["score"] == max(token["scores"])
            assert len(token["scores"]) == 9


def found(answer: Any, number: int = 0) -> dict[str, str]:
    """The pieces that are no O, with the kind of entity that they are of."""
    tokens = answer["results"][number]["tokens"]
    return {
        token["token_info"]["token"]: token["label"].partition("-")[2]
        for token in tokens
        if token["label"] != "O"
    }


def test_step_3_builds(page: Page) -> None:
    lines = page.said.splitlines()
    assert "Validating model..." in lines
    if "✓ Binary already cached" not in lines:
        project, binary = (lines.index(line) for line in MADE)
        assert project < binary
    assert lines[-1] == "✓ Build complete: ./build/ner-tagger.encoderfile"
    assert os.access(page.program, os.X_OK)
    assert list(page.program.parent.iterdir()) == [page.program]
    assert page.shell("chmod +x ./build/ner-tagger.encoderfile").returncode == 0


def test_a_second_build_takes_the_kept_program_and_the_transform(page: Page, bare: Bare) -> None:
    """Both transforms of the page, the second where the page has it: at the top level."""
    for transform, scores in ((SOFTMAX, 9), (ARGMAX, 1)):
        (page.folder / "other.yml").write_text(CONFIG + transform)
        ended = page.shell(f"nerve build -f other.yml -o {bare.program}")
        assert ended.returncode == 0, ended.stderr
        lines = ended.stdout.splitlines()
        assert "✓ Binary already cached" in lines
        assert "✓ Transform validated" in lines
        answer = json.loads(bare.run("infer", SINGLE).stdout)
        tokens = answer["results"][0]["tokens"]
        assert [len(token["scores"]) for token in tokens] == [scores] * len(tokens)
        if scores == 9:
            assert all(sum(token["scores"]) == pytest.approx(1, abs=1e-5) for token in tokens)
        assert found(answer)["tim"] == "PER"


def test_steps_4_and_5_serve_and_predict(bare: Bare) -> None:
    with serving(bare, "serve", *LOCAL, "--grpc-port", "0") as (lines, ports):
        url = f"http://127.0.0.1:{ports['http']}"
        assert lines == [
            f"Starting HTTP server on 127.0.0.1:{ports['http']}",
            f"Starting gRPC server on 127.0.0.1:{ports['grpc']}",
            "Model: ner-tagger v1.0.0",
        ]
        answer = json.loads(curl(f"{url}/predict", EXAMPLE_1))
        check_shape(answer, 1)
        assert found(answer)["mo"] == "ORG"
        answer = json.loads(curl(f"{url}/predict", EXAMPLE_2))
        check_shape(answer, 2)
        assert found(answer, 1)["paris"] == found(answer, 1)["france"] == "LOC"
        assert curl(f"{url}/health") == b'"OK!"'
        assert json.loads(curl(f"{url}/model"))["model_id"] == "ner-tagger"
        with grpc.insecure_channel(f"127.0.0.1:{ports['grpc']}") as channel:
            check_grpc(channel, answer)


def check_grpc(channel: grpc.Channel, expected: Any) -> None:
    pb = token_classification_pb2
    predict = channel.unary_unary(
        f"{SERVICE}Predict",
        pb.TokenClassificationRequest.SerializeToString,
        pb.TokenClassificationResponse.FromString,
    )
    inputs = json.loads(EXAMPLE_2)["inputs"]
    answer = predict(pb.TokenClassificationRequest(inputs=inputs), timeout=WAIT_S)
    assert [[token.label for token in result.tokens] for result in answer.results] == [
        [token["label"] for token in result["tokens"]] for result in expected["results"]
    ]
    metadata = channel.unary_unary(
        f"{SERVICE}GetModelMetadata",
        metadata_pb2.GetModelMetadataRequest.SerializeToString,
        metadata_pb2.GetModelMetadataResponse.FromString,
    )
    request = metadata_pb2.GetModelMetadataRequest()
    assert metadata(request, timeout=WAIT_S).model_id == "ner-tagger"


def test_http_only_with_nothing_of_this_machines_python(bare: Bare) -> None:
    """What is mapped into the server comes from the file, or from the system itself.

    And if the program is killed, which nothing can hand on, the server behind it ends all the same.
    """
    process = bare.start("serve", *LOCAL, "--disable-grpc")
    try:
        lines, ports = startup(process)
        assert not any("gRPC" in line for line in lines)
        child = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
        maps = {line.split()[5] for line in Path(f"/proc/{child}/maps").read_text().splitlines()
                if len(line.split()) > 5 and line.split()[5].startswith("/")}  # fmt: skip
        ours = {name for name in maps if name.startswith(str(bare.temporary))}
        assert any("libpython" in name for name in ours)
        assert any("onnxruntime" in name for name in ours)
        for place in {sys.prefix, sys.base_prefix} - {"/usr"}:
            assert not [name for name in maps if name.startswith(place)]
        assert not [name for name in maps - ours if "python" in name]
    finally:
        process.kill()
        _, err = process.communicate(timeout=WAIT_S)  # to the end of the child's lines
    assert "finishing requests in flight" in err
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{ports['http']}/health", timeout=WAIT_S)
    until = time.monotonic() + WAIT_S
    while list(bare.temporary.iterdir()) and time.monotonic() < until:
        time.sleep(0.05)  # the child closes its output before it removes its last file


def test_standard_streams_that_are_closed(bare: Bare) -> None:
    """As a service manager may start it: what it opens must not take their place."""
    process = bare.start("serve", *LOCAL, "--disable-grpc", shell='exec "$0" "$@" <&- 2>&-')
    _, ports = startup(process)
    assert curl(f"http://127.0.0.1:{ports['http']}/health") == b'"OK!"'
    process.terminate()
    process.communicate(timeout=WAIT_S)
    assert process.returncode == 0


def test_ctrl_c_is_quiet_from_the_first_module_on(bare: Bare) -> None:
    """What is imported first takes the longest; as soon as it has begun, Ctrl-C comes."""
    process = bare.start("infer", SINGLE, session=True)
    until = time.monotonic() + WAIT_S
    while not any(bare.temporary.glob("_MEI*/*/*.so")) and time.monotonic() < until:
        time.sleep(0.01)  # it is unpacking
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not children.read_text() and time.monotonic() < until:
        time.sleep(0.01)
    child = Path(f"/proc/{children.read_text().split()[0]}/maps")
    while "libpython" not in child.read_text() and time.monotonic() < until:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode in (-signal.SIGINT, 130), out, err) == (True, "", "")


def test_a_result_that_cannot_be_written(bare: Bare) -> None:
    for place, reason in (("/dev/full", "No space left on device"), ("&-", "it is closed")):
        process = bare.start("infer", "hi", shell=f'exec "$0" "$@" >{place}')
        _, err = process.communicate(timeout=WAIT_S)
        said = f"Error: Internal Error: stdout cannot be written: {reason}\n"
        assert (process.returncode, err) == (1, said)


def test_step_6_single_input(bare: Bare, page: Page, tmp_path: Path) -> None:
    """The answer, and to the last digit that of the same model in a repository."""
    ended = bare.run("infer", SINGLE)
    assert (ended.returncode, ended.stderr) == (0, "")
    answer = json.loads(ended.stdout)
    check_shape(answer, 1)
    assert answer["metadata"] == {}
    assert found(answer)["california"] == "LOC"
    shutil.copytree(page.folder / "ner-model", tmp_path / "models" / "ner-tagger")
    other = run_here("infer", "-r", tmp_path / "models", SINGLE)
    assert other.stdout.decode() == ended.stdout


def test_step_6_batch_processing(bare: Bare) -> None:
    ended = bare.run("infer", *BATCH, "-o", "results.json")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    text = (bare.program.parent / "results.json").read_text(encoding="utf-8")
    answer = json.loads(text)
    check_shape(answer, 3)
    assert text == json.dumps(answer, indent=2, ensure_ascii=False)
    assert found(answer, 0)["seattle"] == "LOC"


def test_the_page_says_these_defaults(bare: Bare) -> None:
    shown = " ".join(bare.run("serve", "--help").stdout.split())
    for value in ("0.0.0.0", "8080", "[::]", "50051"):
        assert f"[default: {value}]" in shown


async def test_mcp(bare: Bare) -> None:
    with serving(bare, "mcp", "--hostname", "127.0.0.1", "--port", "0") as (lines, ports):
        assert lines[-1] == "Model: ner-tagger v1.0.0"
        url = f"http://127.0.0.1:{ports['mcp']}/mcp"
        async with (
            streamable_http_client(url) as streams,
            ClientSession(streams[0], streams[1]) as session,
        ):
            await session.initialize()
            result = await session.call_tool("run_encoder", {"inputs": [SINGLE]})
    (content,) = result.content
    assert isinstance(content, TextContent)
    check_shape(json.loads(content.text), 1)


def test_inspect(page: Page) -> None:
    ended = page.shell("nerve inspect ./build/ner-tagger.encoderfile")
    told = json.loads(ended.stdout)
    assert told["encoderfile_config"] == {
        "name": "ner-tagger", "version": "1.0.0", "model_type": "token_classification",
        "transform": None, "lua_libs": None,
    }  # fmt: skip
    assert told["model_config"]["id2label"]["1"] == "B-MISC"


def test_ctrl_c_at_a_terminal_drains(bare: Bare) -> None:
    """It goes to the whole process group, and still counts once."""
    process = bare.start("serve", *LOCAL, "--disable-grpc", session=True)
    startup(process)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
    assert "finishing requests in flight" in err
