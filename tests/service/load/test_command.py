"""`mynah-load` against servers that its user names, with keys and certificates."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engines.fake import Script
from service.access.keys import ApiKey, digest, write_keys
from service.load.__main__ import main
from service.load.surfaces import SURFACES
from tests.service.access.tls_files import Authority
from tests.service.serving import Serving, serving
from tests.service.test_process import ENVIRONMENT

# each segment in one chunk of seconds, so that no player runs dry on a slow machine
QUICK = Script(token_s=0.0001, first_hop_tokens=10_000, hop_tokens=10_000)


async def load(*flags: object) -> tuple[int, str, str]:
    """The command's status and what it printed, for one short trial within any bound."""
    command = [sys.executable, "-m", "service.load", "--rate", "6", "--seconds", "0.5", "--bound", "60"]
    pipe = asyncio.subprocess.PIPE
    running = await asyncio.create_subprocess_exec(
        *command, *map(str, flags), stdout=pipe, stderr=pipe, env={**ENVIRONMENT, "MYNAH_API_KEY": ""}
    )
    out, err = await asyncio.wait_for(running.communicate(), 60)
    assert running.returncode is not None
    return running.returncode, out.decode(), err.decode()


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The same in this process."""

    def run(*flags: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mynah-load", *flags])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    return run


def address_of(at: Serving, surface: str) -> str:
    return str(at.address if surface in ("grpc", "riva") else at.http)


@pytest.mark.parametrize("surface", SURFACES)
async def test_a_server_with_keys_and_mutual_tls(surface: str, tmp_path: Path):
    authority = Authority(tmp_path / "authority")
    own, clients = authority.issue(), Authority(tmp_path / "clients")
    hers, keys, key = clients.issue(), tmp_path / "keys.json", tmp_path / "key"
    write_keys(keys, [ApiKey("load", digest("secret"))])
    key.write_text("secret\n")
    tls = {"tls_certificate": own.certificate, "tls_key": own.key, "tls_client_ca": clients.certificate}
    async with serving(QUICK, max_streams=32, http=True, api_keys=keys, **tls) as at:
        flags = ["--server", address_of(at, surface), "--surface", surface, "--ca", authority.certificate]
        flags += ["--cert", hers.certificate, "--cert-key", hers.key, "--json", tmp_path / "figures.json"]
        status, out, err = await load(*flags, "--api-key-file", key)
        assert (status, err) == (0, ""), out
        (trial,) = json.loads((tmp_path / "figures.json").read_text())["trials"]
        assert trial["errors"] == {}
        assert trial["streams"] > 0
        assert at.engine.made_samples > 0
        status, out, _ = await load(*flags, "--server-name", "localhost")  # without the key
    assert status == 1
    assert "API_KEY_INVALID" in out or "InvalidStatus" in out, out


async def test_streams_take_several_servers_in_turn():
    async with serving(QUICK, max_streams=32) as one, serving(QUICK, max_streams=32) as other:
        status, out, _ = await load("--server", one.address, "--server", other.address)
        assert status == 0, out
        assert one.engine.made_samples > 0
        assert other.engine.made_samples > 0


@pytest.mark.parametrize("surface", SURFACES)
def test_a_server_that_is_not_there_is_an_error_of_each_stream(surface: str, command: Command):
    flags = ("--rate", "6", "--seconds", "0.5", "--surface", surface)
    status, out, err = command("--server", "127.0.0.1:9", *flags)
    assert (status, err) == (1, "")
    assert "too much" in out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "--server"),
        (("--server", "a:1", "--rate", "0"), "--rate must be above 0"),
        (("--server", "a:1", "--rate", "nan"), "--rate must be above 0"),
        (("--server", "a:1", "--seconds", "601"), "--seconds"),
        (("--server", "a:1", "--rate", "100000", "--seconds", "600"), "more than 5000 streams"),
        (("--server", "a:1", "--cert", "x"), "need each other"),
        (("--server", "a:1", "--api-key-file", "/none"), "/none"),
        (("--server", "a:1", "--ca", "/none", "--surface", "http"), "No such file"),
        (("--server", "a:1", "--ca", "/none", "--surface", "grpc"), "No such file"),
    ],
)
def test_wrong_arguments_end_with_two_and_a_reason(flags: tuple[str, ...], said: str, command: Command):
    status, _, err = command("--rate", "6", "--seconds", "0.5", *flags)
    assert status == 2
    assert said in err
