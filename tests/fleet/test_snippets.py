"""The snippets of the documentation run unchanged against a server process."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

from tests.fleet.manifests import ROOT
from tests.service.http.test_process import HTTP, http_address
from tests.service.serving import REFERENCE
from tests.service.test_process import ENVIRONMENT, process, serving

HERE = Path(__file__).parent
BEFORE = (
    "let received = 0; const play = (data) => (received += data.length); const done = () => console.log(received);\n"
)
EXPECTED_BYTES = 2 * 960 * len("Good morning.How are you?")  # bytes: the fake engine makes one token for each character


async def test_the_typescript_client_receives_the_whole_text():
    (code,) = snippets(ROOT / "docs/api.md", "typescript")
    imports, rest = code.split("\n\n", 1)
    script = HERE / "node_modules" / "snippet.mjs"  # beside the packages that it imports
    script.write_text(f"{imports}\n{BEFORE}{rest}")
    async with process() as running:
        environment = {**os.environ, "MYNAH": await serving(running), "PROTOS": str(ROOT / "protos")}
        pipe = asyncio.subprocess.PIPE
        node = await asyncio.create_subprocess_exec("node", script, stdout=pipe, stderr=pipe, env=environment)
        out, errors = await node.communicate()
    assert errors == b""
    assert int(out) == EXPECTED_BYTES


async def test_the_python_client_of_the_readme_clones_a_voice_and_receives_the_whole_text(tmp_path: Path):
    code = next(block for block in snippets(ROOT / "README.md", "python") if "async def main" in block)
    (tmp_path / "me.wav").write_bytes(REFERENCE)
    async with process() as running:
        program = f"received = []\nplay = received.append\n{code}\nprint(sum(map(len, received)))"
        program = program.replace("127.0.0.1:50051", await serving(running))
        pipe = asyncio.subprocess.PIPE
        python = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, stdout=pipe, stderr=pipe, cwd=tmp_path, env=ENVIRONMENT
        )
        out, errors = await python.communicate()
    assert errors == b""
    assert int(out) == EXPECTED_BYTES


async def test_the_curl_commands_of_the_page_on_http_work(tmp_path: Path):
    (tmp_path / "anna.wav").write_bytes(REFERENCE)
    (tmp_path / ".curlrc").write_text("fail\nsilent\nshow-error\n")
    async with process(*HTTP) as running:
        address = await http_address(running)
        for page in ("README.md", "docs/http.md"):
            commands = [block for block in snippets(ROOT / page, "sh") if block.startswith("curl ")]
            assert commands
            for command in commands:
                shell = await asyncio.create_subprocess_exec(
                    *("sh", "-e", "-c", command.replace("http://127.0.0.1:8080", address)),
                    cwd=tmp_path, env={**os.environ, "CURL_HOME": str(tmp_path)},
                )  # fmt: skip
                assert await shell.wait() == 0, command
            assert len((tmp_path / "morning.mp3").read_bytes()) > 1000
            (tmp_path / "morning.mp3").unlink()


def snippets(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)
