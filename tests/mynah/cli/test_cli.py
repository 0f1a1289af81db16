"""The `mynah` command as a process: files, pipes, error messages, exit statuses."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import re
import shlex
import sys
import wave
from asyncio.subprocess import PIPE
from dataclasses import dataclass
from pathlib import Path

import pytest

import mynah
from engines.errors import EngineFailure
from engines.fake import Script, fake_voice, tone
from mynah.cli.audio_sinks import FORMATS
from mynah.cli.main import parser
from mynah.cli.text_input import TextDecoder
from service.audio.codecs import pcm_s16le
from service.audio.formats import AudioFormat, AudioSettings
from tests.service.audio.decoding import decode
from tests.service.serving import REFERENCE, Serving, serving

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(mynah.__file__).parents[1])}
SLOW = Script(token_s=0.002)
TIMEOUT_S = 240.0  # a process starts in 0.4 s, on a busy machine in a minute
SECOND = "sec\N{LATIN SMALL LETTER O WITH DIAERESIS}nd"


@dataclass
class Ended:
    status: int
    out: bytes
    stderr: str


async def start(at: Serving, *arguments: str) -> asyncio.subprocess.Process:
    return await start_at(at.address, *arguments)


async def start_at(address: str, *arguments: str, stdout: int = PIPE, path: str = "") -> asyncio.subprocess.Process:
    """The command as a process; modules in the folder `path` go before all others."""
    command = [sys.executable, "-m", "mynah", "--server", address, *arguments]
    environment = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, [path, ENVIRONMENT["PYTHONPATH"]]))}
    return await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=stdout, stderr=PIPE, env=environment)


async def ended(running: asyncio.subprocess.Process, stdin: bytes = b"") -> Ended:
    async with asyncio.timeout(TIMEOUT_S):
        out, stderr = await running.communicate(stdin)
    assert running.returncode is not None
    return Ended(running.returncode, out or b"", stderr.decode())


async def cli(at: Serving, *arguments: str, stdin: bytes = b"") -> Ended:
    return await ended(await start(at, *arguments), stdin)


def read_wav(path: Path) -> tuple[int, bytes]:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return file.getframerate(), file.readframes(10**9)


async def test_say_leaves_a_wav_and_a_summary(tmp_path: Path):
    output = tmp_path / "out.wav"
    async with serving(SLOW) as at:
        done = await cli(at, "say", "Hello there.", "-o", str(output), "--seed", "5")
        assert (done.status, done.out) == (0, b"")
        assert read_wav(output) == (24_000, pcm_s16le(tone("Hello there.", fake_voice("default"), 5, 12 * 960)))
        notice, summary = done.stderr.splitlines()
        assert notice == f"mynah: {at.engine.info.notice}"
        assert re.fullmatch(
            r"mynah: 0\.48 s of audio in 2 chunks; time to first audio \d+ ms, real-time factor \d\.\d\d; .*/out\.wav",
            summary,
        )
        await at.settled()


async def test_say_speaks_standard_input_while_it_is_written(tmp_path: Path):
    output = tmp_path / "out.wav"
    words = [
        "The",
        "first",
        "sentence",
        "ends",
        "here.",
        "The",
        "sec\N{LATIN SMALL LETTER O WITH DIAERESIS}nd",
        "follows.",
    ]
    async with serving(SLOW) as at:
        running = await start(at, "say", "-", "-o", str(output), "--quiet")
        assert running.stdin is not None
        for word in words[:6]:
            running.stdin.write((word + " ").encode())
            await running.stdin.drain()
        async with asyncio.timeout(TIMEOUT_S):
            await at.engine.progress.wait()  # spoken although the input is still open
        running.stdin.write(SECOND.encode()[:4])  # in the middle of a sign
        await running.stdin.drain()
        done = await ended(running, SECOND.encode()[4:] + b" follows.")
        assert (done.status, done.stderr) == (0, "")
        tokens = len(" ".join(words).replace(". ", "."))
        assert len(read_wav(output)[1]) == 2 * 960 * tokens


@pytest.mark.parametrize("suffix", [".mp3", ".opus", ".ogg", ".webm", ".flac", ".aac", ".ulaw", ".alaw", ".pcm"])
async def test_the_file_name_chooses_the_format(tmp_path: Path, suffix: str):
    output = tmp_path / f"OUT{suffix.upper()}"
    async with serving() as at:
        done = await cli(at, "say", "Hello there, how are you?", "-o", str(output), "--quiet")
    assert (done.status, done.stderr) == (0, "")
    audio_format = AudioFormat(FORMATS[suffix])
    samples = decode(output.read_bytes(), AudioSettings(audio_format, audio_format.default_rate_hz))
    assert len(samples) / audio_format.default_rate_hz == pytest.approx(0.04 * 25, abs=0.1)


async def test_a_file_name_without_a_format_is_refused_before_a_stream_opens(tmp_path: Path):
    async with serving() as at:
        done = await cli(at, "say", "Hello.", "-o", str(tmp_path / "out.doc"))
        assert (done.status, at.engine.opened_streams) == (2, 0)
        assert ".opus" in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
async def test_closed_standard_streams_are_no_traceback(closed: str, tmp_path: Path):
    output = tmp_path / "out.wav"
    async with serving() as at:
        command = [sys.executable, "-m", "mynah", "--server", at.address, "say", "Hello.", "-o", str(output)]
        shell = ["sh", "-c", f"{shlex.join(command)} {closed}"]
        done = await ended(await asyncio.create_subprocess_exec(*shell, stdin=PIPE, stderr=PIPE, env=ENVIRONMENT))
        await at.settled()
    assert (done.status, "Traceback" in done.stderr) == (0, False), done.stderr
    assert read_wav(output)[0] == 24_000


async def test_a_closed_standard_input_has_nothing_to_speak():
    async with serving() as at:
        command = [sys.executable, "-m", "mynah", "--server", at.address, "say", "-", "-o", "out.wav"]
        shell = ["sh", "-c", f"{shlex.join(command)} <&-"]
        done = await ended(await asyncio.create_subprocess_exec(*shell, stdin=PIPE, stderr=PIPE, env=ENVIRONMENT))
    assert done.status == 2
    assert "nothing to speak" in done.stderr


class Pieces:
    """A standard input whose bytes arrive in these pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.text, self._decoder = "", TextDecoder("standard input")
        for piece in pieces:
            self.text += self._decoder.decode(piece)
        self.text += self._decoder.decode(b"", final=True)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_standard_input_is_decoded_in_any_pieces(encoding: str, size: int):
    text = "Höflich grüßt 😀 er.\r\nEnde"
    data = text.encode(encoding)
    assert Pieces(*(data[start : start + size] for start in range(0, len(data), size))).text == text


def test_a_torn_word_is_let_pass():
    assert Pieces("Caf\xe9 is open, and we are glad of it.".encode("latin-1")).text.startswith("Caf\ufffd is open")


def test_a_first_letter_does_not_wait():
    assert TextDecoder("standard input").decode(b"H") == "H"


@pytest.mark.parametrize("data", [bytes(10), "Hello.".encode("utf-16-le"), b"\x89PNG\r\n\x1a\n\0\0", b"\xff" * 50])
async def test_what_is_no_text_is_not_spoken(data: bytes, tmp_path: Path):
    output = tmp_path / "out.wav"
    async with serving() as at:
        done = await cli(at, "say", "-", "-o", str(output), stdin=data)
        await at.settled()
    assert done.status == 2
    assert re.search(r"Standard input is not text: it has .* Send text in UTF-8.*\[TEXT_NOT_DECODABLE\]", done.stderr)
    assert not output.exists()


async def test_say_to_standard_output_is_a_wav_stream():
    async with serving() as at:
        done = await cli(at, "say", "Hello.", "-o", "-", "--rate", "16000")
        assert done.status == 0
        with wave.open(io.BytesIO(done.out)) as file:
            assert (file.getframerate(), len(file.readframes(10**9))) == (16_000, 2 * 6 * 640)


async def test_say_takes_more_text_than_may_wait(tmp_path: Path):
    output = tmp_path / "out.wav"
    book = "It was a bright cold day in April. " * 1000
    async with serving(max_pending_text_chars=1000) as at:
        done = await cli(at, "say", "-", "-o", str(output), stdin=book.encode())
        assert done.status == 0, done.stderr
        assert len(read_wav(output)[1]) == 2 * at.engine.made_samples == 2 * 960 * 34 * 1000


async def test_say_with_a_created_voice(tmp_path: Path):
    reference, output = tmp_path / "reference.wav", tmp_path / "out.wav"
    reference.write_bytes(REFERENCE)
    async with serving() as at:
        made = await cli(at, "voices", "create", str(reference), "--name", "Anna", "--consent")
        voice_id = made.out.decode().strip()
        assert made.status == 0
        assert made.stderr.splitlines() == [
            f"mynah: created voice {voice_id} (Anna) from 6.0 s, beginning at 0.5 s, of {reference}",
            "mynah: 90% of that is speech, 40 dB above the noise",
            "mynah: similarity to the recording: not measured. "
            "The model's weights are random: its speech has no speaker.",
            "mynah: this voice ends with the server, which keeps voices if it is started with --voices-dir FOLDER",
        ]
        said = await cli(at, "say", "Hi.", "--voice", voice_id, "-o", str(output), "--seed", "1")
        assert said.status == 0
        assert read_wav(output)[1] == pcm_s16le(tone("Hi.", fake_voice("Anna", REFERENCE), 1, 3 * 960))
        header, *listed = (await cli(at, "voices", "list")).out.decode().splitlines()
        assert header.split() == ["ID", "CREATED", "NAME"]
        assert sorted(line.split()[::2] for line in listed) == sorted([["default", "default"], [voice_id, "Anna"]])
        bare = await cli(at, "voices", "list", "--no-header")
        assert bare.out.decode().splitlines() == [line.rstrip() for line in listed]
        assert (await cli(at, "voices", "delete", voice_id)).status == 0
        again = await cli(at, "voices", "delete", voice_id)
        assert again.status == 2
        assert again.stderr == f"mynah: There is no voice '{voice_id}'; the server has default. [VOICE_NOT_FOUND]\n"


async def test_a_recording_can_be_kept_with_its_voice(tmp_path: Path):
    reference = tmp_path / "reference.wav"
    reference.write_bytes(REFERENCE)
    async with serving(voices_dir=tmp_path / "voices") as at:
        made = await cli(at, "voices", "create", str(reference), "--name", "Anna", "--consent", "--keep-recording")
        assert made.stderr.splitlines()[-1] == "mynah: the server keeps this voice and its recording"
        assert [path.read_bytes() for path in (tmp_path / "voices/recordings").iterdir()] == [REFERENCE]


async def test_info_shows_the_server():
    async with serving() as at:
        done = await cli(at, "info")
        shown = done.out.decode()
        assert done.status == 0
        for words in (
            "fake (random weights)",
            "0 of 4 open",
            "8000, 11025, 12000, 16000, 22050",
            "20000 chars",
            "tones, not speech",
        ):
            assert words in shown


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["say", "Hi.", "--voice", "nobody"], 2, "There is no voice 'nobody'"),
        (["say", "Hi.", "--top-p", "7"], 2, "--top-p is 7; it must be above 0 and at most 1."),
        (["say", "Hi.", "--rate", "7"], 2, "--rate is 7; allowed rates are 8000, 11025"),
        (["say", "Hi.", "--language", "xx"], 2, "--language is 'xx'; it must be en"),
        (["say", "Hi.", "--cfg-weight", "1"], 2, "--cfg-weight is 1, but fake has no cfg_weight"),
        (["say", "Hi.", "--seed", "-1"], 2, "seed is -1, which cannot be sent"),
        (["say", " "], 2, "nothing to speak"),
        (["say", "..."], 2, "nothing to speak"),
        (["say", "Hi.", "-o", "/no/such/folder/out.wav"], 1, "/no/such/folder/out.wav"),
        (["voices", "create", "/no/such/file", "--name", "A", "--consent"], 1, "/no/such/file"),
        (["voices", "create", __file__, "--name", "A"], 2, "confirm that with --consent. [CONSENT_REQUIRED]"),
    ],
)
async def test_errors_are_messages(arguments: list[str], status: int, expected: str, tmp_path: Path):
    async with serving() as at:
        output = ["-o", str(tmp_path / "out.wav")] if arguments[0] == "say" and "-o" not in arguments else []
        done = await cli(at, *arguments, *output)
        assert done.status == status
        assert expected in done.stderr
        assert "Traceback" not in done.stderr
        await at.settled()


async def test_a_failure_half_way_leaves_the_audio_so_far(tmp_path: Path):
    output = tmp_path / "out.wav"
    async with serving(Script(failure=EngineFailure("the device is gone"), fail_after_chunks=1)) as at:
        done = await cli(at, "say", "Twenty letters here.", "-o", str(output))
        assert done.status == 1
        assert done.stderr.splitlines()[-1] == "mynah: the device is gone. Try again later. [ENGINE_FAILURE]"
        assert len(read_wav(output)[1]) == 2 * 10 * 960


async def test_a_busy_server_has_the_status_to_try_later():
    async with serving(max_streams=1) as at, at.client.stream():
        done = await cli(at, "say", "Hi.", "-o", "-")
        assert done.status == 3
        assert (
            "The server already has 1 streams, its limit; retry when one has ended. [STREAMS_EXHAUSTED]" in done.stderr
        )


async def test_an_unreachable_server_has_a_message():
    async with serving() as at:
        pass
    done = await cli(at, "info")
    assert done.status == 3
    assert done.stderr.startswith(f"mynah: No Mynah server answers at {at.address}: ")


@pytest.mark.parametrize(
    "arguments", [[], ["shout"], ["say"], ["say", "x", "--loud"], ["voices"], ["voices", "create"]]
)
def test_a_wrong_command_line_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as raised:
        parser().parse_args(arguments)
    assert raised.value.code == 2
    assert "usage: mynah" in capsys.readouterr().err


async def test_health_is_reported_by_the_exit_status():
    async with serving(warm=False) as at:
        warming = await cli(at, "health")
        assert (warming.status, warming.out) == (3, b"")
        assert "NOT_SERVING" in warming.stderr
        assert (await cli(at, "health", "--service", "liveness")).status == 0
        await at.server.warm_up()
        ready = await cli(at, "health")
        assert (ready.status, ready.out) == (0, b"SERVING\n")


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "change its permissions"),
        (errno.EROFS, "Write to another folder"),
        (errno.ENOSPC, "Free some"),
        (errno.ENOENT, "mynah: 'out.wav' cannot be used: no. Name a file"),
        (errno.EISDIR, "mynah: 'out.wav' cannot be used: no. Name a file"),
    ],
)
async def test_an_error_of_the_file_system_says_what_to_do(number: int, advice: str, tmp_path: Path):
    broken = f"def opened(*_, **__): raise OSError({number}, 'no', 'out.wav')"
    program = f"from mynah.cli import commands, main\n{broken}\ncommands.execute = opened\nmain.main(['say', 'x'])"
    done = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stderr=asyncio.subprocess.PIPE, cwd=tmp_path, env=ENVIRONMENT
    )
    _, stderr = await done.communicate()
    assert done.returncode == 1
    assert stderr.decode().startswith("mynah: ")
    assert advice in stderr.decode()
