"""What `mynah say` does with files that exist, with the text's and the server's place, and with players."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

import mynah
from engines.errors import EngineFailure
from engines.fake import Script
from mynah.cli.audio_sinks import RawFileSink, WavFileSink, free_name, open_sink
from mynah.cli.main import parser
from mynah.cli.player import PLAYERS, find_player, make_player
from mynah.client.events import AudioChunk
from tests.mynah.cli.test_cli import ENVIRONMENT, SLOW, TIMEOUT_S, cli, ended, read_wav, start_at
from tests.service.serving import REFERENCE, serving

BROKEN = Script(failure=EngineFailure("the device is gone"), fail_after_chunks=1)
CHUNK = AudioChunk(sequence_number=0, segment_index=0, offset_samples=0, samples=480, data=bytes(960))


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    path = tmp_path / "keep.wav"
    path.write_bytes(b"kept")
    return path


def assert_kept(path: Path) -> None:
    """The file is as it was, and nothing lies beside it."""
    assert path.read_bytes() == b"kept"
    assert [each.name for each in path.parent.iterdir()] == ["keep.wav"]


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "..."])
async def test_a_text_without_words_leaves_the_file(text: str, kept: Path):
    async with serving() as at:
        done = await cli(at, "say", text, "-o", str(kept))
        assert done.status == 2
        assert "nothing to speak" in done.stderr
    assert_kept(kept)


async def test_a_failure_leaves_an_existing_file(kept: Path):
    async with serving(BROKEN) as at:
        assert (await cli(at, "say", "Twenty letters here.", "-o", str(kept))).status == 1
    assert_kept(kept)


def test_an_existing_file_is_replaced_at_the_end_alone(kept: Path):
    kept.chmod(0o640)
    with WavFileSink(str(kept), 24_000) as sink:
        sink.write(CHUNK)
        assert kept.read_bytes() == b"kept"
    assert read_wav(kept) == (24_000, bytes(960))
    assert kept.stat().st_mode & 0o777 == 0o640


def test_a_link_stays_a_link(kept: Path):
    link = kept.with_name("link.mp3")
    link.symlink_to(kept)
    with RawFileSink(str(link)) as sink:
        sink.write(CHUNK)
    assert link.is_symlink()
    assert kept.read_bytes() == CHUNK.data


def test_a_pipe_is_written_to_directly(tmp_path: Path):
    path = tmp_path / "pipe.mp3"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open_sink(str(path), 24_000) as sink:
        sink.write(CHUNK)
    assert os.read(reader, 2000) == CHUNK.data
    os.close(reader)
    assert path.is_fifo()


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path):
    path = str(tmp_path / "missing" / "out.mp3")
    with pytest.raises(OSError, match=r"missing/out\.mp3'$"), RawFileSink(path):
        pass


def test_the_default_name_is_the_next_free_one(tmp_path: Path):
    names = []
    for _ in range(3):
        names.append(free_name(tmp_path))
        (tmp_path / names[-1]).touch()
    assert names == ["mynah.wav", "mynah-2.wav", "mynah-3.wav"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--server", "a:1", "voices", "list"],
        ["voices", "list", "--server", "a:1"],
        ["say", "x", "--server", "a:1"],
        ["info", "--server", "a:1"],
        ["health", "--server", "a:1"],
        ["--server", "b:2", "batch", "x", "--server", "a:1"],
        ["voices", "delete", "x", "--server", "a:1"],
        ["voices", "create", "x", "--name", "y", "--server", "a:1"],
    ],
)
def test_the_server_stands_before_or_after_the_command(arguments: list[str]):
    args = parser().parse_args(arguments)
    assert (args.server, args.tls, args.ca) == ("a:1", False, None)
    assert parser().parse_args(["--tls", *arguments]).tls


def test_words_are_one_text():
    assert parser().parse_args(["say", "Hello", "there.", "-o", "x.wav"]).text == "Hello there."
    assert parser().parse_args(["say", "-o", "x.wav", "-"]).text == "-"
    assert parser().parse_args(["say", ""]).text == ""


def test_a_text_that_looks_like_an_option_goes_behind_two_dashes(capsys: pytest.CaptureFixture[str]):
    assert parser().parse_args(["say", "--", "-Hello"]).text == "-Hello"
    for text in ("-Hello", "--Hello", "-hello"):
        with pytest.raises(SystemExit):
            parser().parse_args(["say", text])
        assert "mynah say -- -Hello" in capsys.readouterr().err


async def test_a_voice_is_chosen_and_deleted_by_its_name(tmp_path: Path):
    output = tmp_path / "out.wav"
    async with serving() as at:
        await at.client.voices.create("Anna Lee", REFERENCE, consent=True, voice_id="v1")
        assert (await cli(at, "say", "Hi.", "--voice", "anna lee", "-o", str(output))).status == 0
        assert (await cli(at, "voices", "delete", "Anna Lee")).status == 0
        assert [voice.voice_id for voice in await at.client.voices.list()] == ["default"]
        refused = await cli(at, "voices", "create", str(output), "--name", "A", "--id", "Anna", "--consent")
        assert (refused.status, "Write it in lower case: 'anna'." in refused.stderr) == (2, True)


def install(folder: Path, name: str, script: str) -> None:
    """Makes a program that stands for a player."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which players are found before those of the machine."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


async def play(name: str, *data: bytes) -> None:
    async with make_player(name, 24_000) as player:
        for piece in data:
            player.write(piece)


@pytest.mark.parametrize("name", [name for name in PLAYERS if name != "afplay"])
async def test_a_player_gets_the_samples_on_its_standard_input(name: str, path: Path, tmp_path: Path):
    install(path, name, f'/bin/cat > {tmp_path}/played; echo "$@" > {tmp_path}/arguments')
    assert find_player() == name
    await play(name, b"12", b"34")
    assert (tmp_path / "played").read_bytes() == b"1234"
    assert "24000" in (tmp_path / "arguments").read_text()


async def test_a_player_of_files_gets_a_wav(path: Path, tmp_path: Path):
    install(path, "afplay", f'/bin/cp "$1" {tmp_path}/played.wav')
    await play(find_player(), bytes(960), bytes(960))
    assert read_wav(tmp_path / "played.wav") == (24_000, bytes(1920))


@pytest.mark.parametrize("name", ["aplay", "afplay"])
async def test_a_player_that_fails_is_named_with_its_reason(name: str, path: Path):
    install(path, name, "echo 'audio open error: no such device' >&2; exit 1")
    with pytest.raises(OSError, match=f"{name} could not play the audio: audio open error: no such device"):
        await play(name, bytes(960))


async def test_a_player_stops_at_once_after_an_error(path: Path):
    install(path, "aplay", "exec /bin/sleep 1000")
    with pytest.raises(ValueError, match="mine"):
        async with make_player("aplay", 24_000):
            raise ValueError("mine")


def test_without_a_player_a_sentence_names_those_that_would_do(path: Path):
    with pytest.raises(mynah.InvalidArgument, match=r"aplay, paplay, pw-play, ffplay, play, afplay is installed"):
        find_player()


async def test_speech_is_played_while_the_text_is_still_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fifo = tmp_path / "speaker"
    os.mkfifo(fifo)
    install(tmp_path / "bin", "aplay", f"/bin/cat > {fifo}")
    monkeypatch.setitem(ENVIRONMENT, "PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    async with serving(SLOW) as at:
        running = await start_at(at.address, "say", "-", "--play")
        assert running.stdin is not None
        running.stdin.write(b"The first sentence ends here. And")
        await running.stdin.drain()
        async with asyncio.timeout(TIMEOUT_S):
            with await asyncio.to_thread(open, fifo, "rb") as speaker:
                first = await asyncio.to_thread(speaker.read, 960)
                assert len(first) == 960
                assert running.returncode is None
                reading = asyncio.create_task(asyncio.to_thread(speaker.read))
                done = await ended(running, b" that is all.")
                rest = await reading
        assert done.status == 0, done.stderr
        assert "played with aplay" in done.stderr
        assert len(first) + len(rest) == 2 * at.engine.made_samples
        assert not any(name.endswith(".wav") for name in os.listdir(tmp_path))


@pytest.mark.parametrize("output", ["out.mp3", "-"])
async def test_only_samples_can_be_played(output: str):
    async with serving() as at:
        done = await cli(at, "say", "Hi.", "--play", "-o", output)
        assert (done.status, at.engine.opened_streams) == (2, 0)
        assert "--play works without -o and with a .wav or .pcm file" in done.stderr


async def test_a_command_without_a_file_name_overwrites_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    kept = tmp_path / "mynah.wav"
    kept.write_bytes(b"kept")
    async with serving() as at:
        done = await cli(at, "say", "Hi.")
        assert done.status == 0
        assert done.stderr.rstrip().endswith("; mynah-2.wav")
    assert kept.read_bytes() == b"kept"
    assert len(read_wav(tmp_path / "mynah-2.wav")[1]) == 2 * 3 * 960


@pytest.mark.parametrize("suffix", ["srt", "vtt"])
async def test_subtitles_have_the_words_of_the_speech(suffix: str, tmp_path: Path):
    wav, subtitles = tmp_path / "a.wav", tmp_path / f"a.{suffix}"
    async with serving() as at:
        end = await cli(at, "say", "This is one. And two!", "-o", str(wav), "--subtitles", str(subtitles))
    assert end.status == 0, end.stderr
    text = subtitles.read_text()
    assert text.startswith("1\n00:00:00" if suffix == "srt" else "WEBVTT\n\n00:00:00")
    assert "This is one." in text
    assert "And two!" in text


async def test_subtitles_of_another_name_are_refused_before_anything_is_made(tmp_path: Path):
    async with serving() as at:
        end = await cli(at, "say", "Hello.", "-o", str(tmp_path / "a.wav"), "--subtitles", "a.txt")
        assert (end.status, at.engine.opened_streams) == (2, 0)
    assert "[SUBTITLES_NAME_INVALID]" in end.stderr
    assert os.listdir(tmp_path) == []


async def test_subtitles_from_a_server_without_word_times_say_why(tmp_path: Path):
    async with serving(Script(word_times=False)) as at:
        end = await cli(at, "say", "Hello.", "-o", str(tmp_path / "a.wav"), "--subtitles", str(tmp_path / "a.srt"))
    assert end.status == 2
    assert "[WORD_TIMES_UNAVAILABLE]" in end.stderr
    assert os.listdir(tmp_path) == []
