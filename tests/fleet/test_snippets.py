"""The snippets of the documentation run unchanged against a server process."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import wave
from pathlib import Path

from tests.fleet.manifests import ROOT
from tests.service.http.test_process import HTTP, http_address
from tests.service.serving import REFERENCE
from tests.service.test_process import ENVIRONMENT, process, serving

HERE = Path(__file__).parent
EXPECTED_BYTES = 2 * 960 * len("Good morning.How are you?")  # bytes: the fake engine makes one token for each character


async def test_the_typescript_client_receives_the_whole_text(tmp_path: Path):
    (code,) = snippets(ROOT / "docs/api.md", "typescript")
    script = HERE / "node_modules" / "snippet.mjs"  # beside the packages that it imports
    script.write_text(code)
    async with process() as running:
        environment = {**os.environ, "MYNAH": await serving(running), "PROTOS": str(ROOT / "protos")}
        pipe = asyncio.subprocess.PIPE
        node = await asyncio.create_subprocess_exec(
            "node", script, stdout=pipe, stderr=pipe, env=environment, cwd=tmp_path
        )
        assert await node.communicate() == (b"", b"")
    assert (tmp_path / "speech.pcm").stat().st_size == EXPECTED_BYTES


async def test_the_readmes_python_writes_the_whole_text_as_a_wav(tmp_path: Path):
    code = next(block for block in snippets(ROOT / "README.md", "python") if "async def main" in block)
    async with process() as running:
        code = code.replace("127.0.0.1:50051", await serving(running))
        python = await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=tmp_path, env=ENVIRONMENT)
        assert await python.wait() == 0
    with wave.open(str(tmp_path / "stream.wav")) as file:
        assert 2 * file.getnframes() == EXPECTED_BYTES


async def test_the_readmes_commands_speak_clone_and_speak_in_the_new_voice(tmp_path: Path):
    block = next(block for block in snippets(ROOT / "README.md", "sh") if "mynah voices create" in block)
    async with process() as running:
        mynah = f"{sys.executable} -m mynah --server {await serving(running)}"
        script = re.sub(r"^mynah", mynah, block.replace(". .venv/bin/activate\n", ""), flags=re.MULTILINE)
        shell = await asyncio.create_subprocess_exec("sh", "-e", "-c", script, cwd=tmp_path, env=ENVIRONMENT)
        assert await shell.wait() == 0
    assert (tmp_path / "morning.wav").stat().st_size > 1000
    assert (tmp_path / "cloned.mp3").stat().st_size > 1000


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
