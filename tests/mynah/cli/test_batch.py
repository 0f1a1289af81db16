"""Batches with bad scripts, with servers that fail, die and return, and with interruptions at any moment: nothing is
lost and nothing is spoken twice."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import wave
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import IO

import pytest

import mynah
from engines.errors import EngineFailure
from engines.fake import Script, fake_voice, tone
from mynah.batch import output_dir as output_dir_module
from mynah.batch.output_dir import MANIFEST, OutputDir
from mynah.batch.run import Progress, RetryPolicy, Spoken, run_batch
from mynah.batch.script import Item, read_script
from mynah.cli.batch.command import bar, summary
from mynah.cli.commands import execute
from mynah.cli.main import parser
from mynah.cli.text_input import lines_of
from service.audio.codecs import pcm_s16le
from tests.mynah.cli.test_cli import cli, ended, start
from tests.service.serving import serving
from tests.virtual_time import virtual_time

TEXTS = [f"This is line {letter} of the script." for letter in "abcdefghijkl"]


def script(*lines: object) -> list[Item]:
    return read_script([line if isinstance(line, str) else json.dumps(line) for line in lines])


def items(count: int = len(TEXTS)) -> list[Item]:
    return script(*({"text": text} for text in TEXTS[:count]))


def records(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / MANIFEST).read_text().splitlines() if line.strip()]


def pcm_of(path: Path) -> bytes:
    with wave.open(str(path)) as file:
        return file.readframes(10**9)


# ---- the script


def test_a_line_with_everything():
    (item,) = script(
        {
            "text": "Hello.",
            "voice": "anna",
            "name": "intro-1",
            "settings": {"temperature": 0.5, "seed": 7, "sample_rate_hz": 16_000, "max_speech_tokens": 50},
        }
    )
    sampling = mynah.Sampling(temperature=0.5, seed=7, max_speech_tokens=50)
    assert item == Item("intro-1", "Hello.", "anna", 16_000, sampling)


def test_a_line_may_have_respellings_and_pauses_of_its_own():
    of_all = mynah.TextSettings(dictionary=(mynah.DictionaryEntry("b", "bee"),))
    own = {"text": "b", "settings": {"paragraph_pause_s": 0.5, "dictionary": {"nginx": "engine ex"}}}
    item, other = read_script([json.dumps(own), '{"text": "b"}'], of_all)
    assert item.text_settings.paragraph_pause_s == 0.5
    assert item.text_settings.dictionary == (*of_all.dictionary, mynah.DictionaryEntry("nginx", "engine ex"))
    assert other.text_settings == of_all


def test_names_and_seeds_are_made_up_and_stay_the_same():
    first, blank_between, again = (
        script({"text": "a"}, {"text": "b"}),
        script({"text": "a"}, "", {"text": "b"}),
        items(2),
    )
    assert [item.name for item in first] == ["000001", "000002"]
    assert [item.name for item in blank_between] == ["000001", "000003"]
    assert again == items(2)
    assert first[0].sampling.seed is not None
    assert len({item.sampling.seed for item in items()}) == len(TEXTS)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "Line 2 is not JSON"),
        ("[]", "a JSON object"),
        ({"txt": "a"}, "unknown key 'txt'; the known keys are text, voice, settings, name."),
        ({"text": "  "}, "text is '  '"),
        ({"text": 5}, "text is 5; it must be a string that is not blank."),
        ({"text": "a", "voice": 1}, "voice is 1"),
        ({"text": "a", "name": "../etc/passwd"}, "name is '../etc/passwd'"),
        ({"text": "a", "name": ".hidden"}, "name is '.hidden'"),
        ({"text": "a", "name": "FIRST"}, "name is 'FIRST'; it is already the name of line 1"),
        ({"text": "a", "settings": {"volume": 3}}, "settings has the unknown key 'volume'"),
        ({"text": "a", "settings": {"seed": "7"}}, "settings.seed is '7'; it must be a number."),
        ({"text": "a", "settings": {"top_k": True}}, "settings.top_k is True"),
        (
            {"text": "a", "settings": {"markup": "drop"}},
            'it must be "refuse" or "strip" or "literal" or "ssml" or "ssml_lenient".',
        ),
        ({"text": "a", "settings": {"drop_thinking": 1}}, "settings.drop_thinking is 1; it must be false or true."),
        (
            {"text": "a", "settings": {"paragraph_pause_s": "1"}},
            "settings.paragraph_pause_s is '1'; it must be a number.",
        ),
        ({"text": "a", "settings": {"dictionary": ["b"]}}, "it must be an object of words and their respellings."),
    ],
)
def test_a_bad_line_is_named_before_anything_is_spoken(line: object, expected: str):
    with pytest.raises(mynah.InvalidArgument) as raised:
        script({"text": "fine", "name": "first"}, line)
    assert "Line 2" in str(raised.value)
    assert expected in str(raised.value)
    assert raised.value.reason == "SCRIPT_INVALID"


def test_a_line_that_is_nested_too_deeply_is_named_too():
    with pytest.raises(mynah.InvalidArgument, match="Line 2 is not JSON") as raised:
        read_script(['{"text": "fine"}', "[" * 100_000])
    assert raised.value.reason == "SCRIPT_INVALID"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_script_is_read_as_editors_write_it(encoding: str, end: str):
    """Windows' editors begin with a byte order mark; a text may hold what Python takes for the end of a line."""
    texts = ["One.", "Two\u2028lines.", "Form\u000bfeed\x85.", "Ünïcødé 🎉."]
    lines = [json.dumps({"text": text}, ensure_ascii=False).replace("\\u000b", "\u000b") for text in texts]
    lines[2] = json.dumps({"text": texts[2]})
    data = end.join([*lines, ""]).encode(encoding)
    assert [item.text for item in read_script(lines_of(data, "lines.jsonl"))] == texts


@pytest.mark.parametrize(
    "data", [bytes(100), '{"text": "a"}'.encode("utf-16-le"), "привет мир " * 3, b"\x89PNG\r\n\x1a\n\0"]
)
def test_a_script_that_is_no_text_is_named(data: bytes | str):
    with pytest.raises(
        mynah.InvalidArgument, match=r"^Lines\.jsonl is not text: it has .*Send text in UTF-8"
    ) as raised:
        lines_of(data if isinstance(data, bytes) else data.encode("cp1251"), "lines.jsonl")
    assert raised.value.reason == "TEXT_NOT_DECODABLE"


@pytest.mark.parametrize("field", ["text", "voice"])
def test_half_of_a_surrogate_pair_is_a_bad_line(field: str):
    with pytest.raises(mynah.InvalidArgument, match=rf"Line 2: {field} is .* valid Unicode"):
        script({"text": "a"}, json.dumps({"text": "a", field: "x\ud800"}))


def test_a_script_without_lines_is_an_error():
    with pytest.raises(mynah.InvalidArgument, match="no lines"):
        read_script(["", "  "])


# ---- the folder


def put(output_dir: OutputDir, item: Item) -> None:
    output_dir.put(item, b"\1\0" * 240, 24_000, {"audio_s": 0.01})


class Cut(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("cut_at", ["os.fsync 1", "os.fsync 2", "os.replace 1"])
def test_a_crash_at_any_moment_leaves_only_whole_files(cut_at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The process ends just before `cut_at`."""
    one, other = items(2)
    call, number = cut_at.split()
    calls = Counter[str]()
    real = {name: getattr(os, name.removeprefix("os.")) for name in ("os.fsync", "os.replace")}

    def counted(name: str):
        def run(*arguments: object) -> object:
            calls[name] += 1
            if (name, calls[name]) == (call, int(number)):
                raise Cut
            return real[name](*arguments)

        return run

    with OutputDir(tmp_path) as output_dir:
        put(output_dir, other)
        with monkeypatch.context() as patched:
            for name in real:
                patched.setattr(f"mynah.batch.output_dir.{name}", counted(name))
            with pytest.raises(Cut):
                put(output_dir, one)
    with OutputDir(tmp_path) as output_dir:
        missing = output_dir.missing([one, other])
        assert other not in missing
        # once the manifest has it the audio is there, too
        assert (missing == []) == (cut_at in ("os.fsync 2", "os.replace 1"))
        for item in missing:
            put(output_dir, item)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "000001.wav", "000002.wav", MANIFEST]
    assert Counter(record["name"] for record in records(tmp_path)) == {"000001": 1, "000002": 1}
    assert pcm_of(tmp_path / "000001.wav") == b"\1\0" * 240


def test_a_manifest_line_that_was_cut_off_is_skipped(tmp_path: Path):
    one, other = items(2)
    with OutputDir(tmp_path) as output_dir:
        put(output_dir, one)
        put(output_dir, other)
    manifest = tmp_path / MANIFEST
    manifest.write_bytes(manifest.read_bytes()[:-20])
    (tmp_path / "000002.wav").unlink()
    with OutputDir(tmp_path) as output_dir:
        assert output_dir.missing([one, other]) == [other]
        put(output_dir, other)
    with OutputDir(tmp_path) as output_dir:
        assert output_dir.missing([one, other]) == []


def test_a_changed_line_is_spoken_again_and_a_foreign_file_is_left_alone(tmp_path: Path):
    (item,) = items(1)
    with OutputDir(tmp_path) as output_dir:
        put(output_dir, item)
        (changed,) = script({"text": "Something else."})
        assert output_dir.missing([changed]) == [changed]
    (tmp_path / "mine.wav").write_bytes(b"precious")
    (stranger,) = script({"text": "a", "name": "mine"})
    with OutputDir(tmp_path) as output_dir, pytest.raises(mynah.AlreadyExists, match=r"mine\.wav"):
        output_dir.missing([stranger])
    assert (tmp_path / "mine.wav").read_bytes() == b"precious"


def test_two_at_once_in_one_folder_is_an_error(tmp_path: Path):
    with OutputDir(tmp_path), pytest.raises(mynah.WrongState, match="Another process"), OutputDir(tmp_path):
        pass


# ---- the run, on virtual time


class ScriptedSpeaker:
    """Takes 1 s for an item. `errors` are raised first, one for each try; away from `away[0]` until `away[1]`."""

    def __init__(self, errors: list[mynah.MynahError] | None = None, away: tuple[float, float] = (0.0, 0.0)) -> None:
        self.errors: Iterator[mynah.MynahError] = iter(errors or [])
        self.away = away
        self.spoken: list[str] = []
        self.tries = self.running = self.max_running = 0

    async def speak(self, item: Item) -> Spoken:
        clock = asyncio.get_running_loop().time
        self.tries += 1
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        try:
            if (error := next(self.errors, None)) is not None:
                raise error
            self._must_be_there(clock())
            await asyncio.sleep(1.0)
            self._must_be_there(clock())
        finally:
            self.running -= 1
        self.spoken.append(item.name)
        return Spoken(b"\0\0" * 24_000, 24_000, 0.3, 1.0)

    def _must_be_there(self, now_s: float) -> None:
        if self.away[0] <= now_s < self.away[1]:
            raise mynah.Unavailable("connection refused", code="UNAVAILABLE", retry_after_s=1.0)


def run(folder: Path, speaker: ScriptedSpeaker, jobs: int = 4, retry_s: float = 60.0) -> Progress:
    async def running() -> Progress:
        with OutputDir(folder) as output_dir:
            return await run_batch(items(), output_dir, speaker, jobs=jobs, retry_policy=RetryPolicy(retry_s))

    return virtual_time(running())


def check_whole(folder: Path, of: list[Item] | None = None) -> None:
    names = sorted(item.name for item in of or items())
    assert sorted(path.stem for path in folder.glob("*.wav")) == names
    assert Counter(record["name"] for record in records(folder)) == Counter(names)


def test_work_is_bounded_and_recorded(tmp_path: Path):
    speaker = ScriptedSpeaker()
    done = run(tmp_path, speaker, jobs=4)
    assert (done.spoken, done.retries, done.failed, done.audio_s) == (12, 0, {}, 12.0)
    assert speaker.max_running == 4
    check_whole(tmp_path)
    record = records(tmp_path)[0]
    assert (record["audio_s"], record["ttfa_s"], record["wall_s"], record["tries"]) == (1.0, 0.3, 1.0, 1)


def test_a_server_that_dies_and_comes_back_loses_nothing(tmp_path: Path):
    dying = ScriptedSpeaker(away=(1.5, 20.0))
    done = run(tmp_path, dying)
    assert (done.spoken, done.failed) == (12, {})
    assert 0 < done.retries < 40, "retries must back off while the server is away"
    check_whole(tmp_path)


def test_a_permanent_error_is_not_retried_and_the_rest_goes_on(tmp_path: Path):
    wrong = ScriptedSpeaker(errors=[mynah.NotFound("no such voice", reason="VOICE_NOT_FOUND", code="NOT_FOUND")])
    done = run(tmp_path, wrong, jobs=1)
    first = "000001"  # all lines are equally long
    assert {name: error.reason for name, error in done.failed.items()} == {first: "VOICE_NOT_FOUND"}
    assert (done.spoken, done.retries) == (11, 0)
    check_whole(tmp_path, [item for item in items() if item.name != first])


def test_the_longest_lines_are_spoken_first(tmp_path: Path):
    """Lines of a like length share calls, and no long one is left for the end."""
    lengths = [3, 50, 20, 50, 1]
    lines = script(*({"text": "a" * length} for length in lengths))
    speaker = ScriptedSpeaker()
    with OutputDir(tmp_path) as output_dir:
        virtual_time(run_batch(lines, output_dir, speaker, jobs=1))
    assert [record["name"] for record in records(tmp_path)] == ["000002", "000004", "000003", "000001", "000005"]


def test_a_stream_that_breaks_is_spoken_again(tmp_path: Path):
    broken = mynah.ServerError("the call broke down", reason="NO_STATUS", code="INTERNAL")
    done = run(tmp_path, ScriptedSpeaker(errors=[broken] * 3))
    assert (done.spoken, done.retries, done.failed) == (12, 3, {})
    check_whole(tmp_path)


def test_retries_end(tmp_path: Path):
    done = run(tmp_path, ScriptedSpeaker(away=(0.0, 1e9)), retry_s=30.0)
    assert len(done.failed) == 12
    assert not list(tmp_path.glob("*.wav"))


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path):
    first, second = ScriptedSpeaker(), ScriptedSpeaker()

    async def interrupted() -> None:
        with OutputDir(tmp_path) as output_dir:
            async with asyncio.timeout(1.5):
                await run_batch(items(), output_dir, first, jobs=4)

    with pytest.raises(TimeoutError):
        virtual_time(interrupted())
    assert len(first.spoken) == 4
    done = run(tmp_path, second)
    assert (done.already, done.spoken) == (4, 8)
    assert not set(first.spoken) & set(second.spoken), "nothing is spoken twice"
    check_whole(tmp_path)
    assert run(tmp_path, ScriptedSpeaker()).spoken == 0


def test_the_bar_and_the_summary_show_the_progress():
    progress = Progress(total=8, already=2, spoken=2, retries=1, audio_s=20.0)
    assert bar(progress, 10.0) == "[############            ] 4/8, 2.0 s of audio per second, 20 s left"
    assert summary(progress, 10.0) == "2 lines spoken, 20.0 s of audio in 10.0 s, 2 were already spoken, 1 retries"


# ---- the command, on real servers


def write_script(folder: Path, *lines: dict[str, object]) -> Path:
    path = folder / "script.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


async def test_the_command_speaks_through_two_servers(tmp_path: Path):
    lines = [{"text": text, "settings": {"seed": 5}} for text in TEXTS]
    out, source = tmp_path / "out", write_script(tmp_path, *lines)
    async with serving() as one, serving() as other:
        done = await cli(one, "--server", f"{one.address},{other.address}", "batch", str(source), "-o", str(out))
        assert done.status == 0, done.stderr
        assert one.engine.done_segments + other.engine.done_segments == len(TEXTS)
        assert min(one.engine.done_segments, other.engine.done_segments) > 0
        again = await cli(one, "batch", str(source), "-o", str(out))
        assert again.status == 0
        assert f"{len(TEXTS)} were already spoken" in again.stderr
        assert one.engine.done_segments + other.engine.done_segments == len(TEXTS)
    check_whole(out)
    expected = tone(TEXTS[3], fake_voice("default"), 5, len(TEXTS[3]) * 960)
    assert pcm_of(out / "000004.wav") == pcm_s16le(expected)


async def test_failing_and_returning_servers_are_retried_until_all_is_spoken(tmp_path: Path):
    """Two servers: one fails in the middle of its audio and then goes away, the other comes up later."""
    out, source = tmp_path / "out", write_script(tmp_path, *({"text": text} for text in TEXTS))
    failing = Script(token_s=0.001, failure=EngineFailure("the device is gone"), fail_after_chunks=1, failures=2)
    async with AsyncExitStack() as later:
        async with serving(failing, max_streams=2) as dying:
            async with serving() as gone:
                late = gone.address
            addresses = f"{dying.address},{late}"
            running = await start(dying, "--server", addresses, "batch", str(source), "-o", str(out), "--jobs", "3")
            async with asyncio.timeout(30):
                while dying.engine.done_segments < 3:
                    dying.engine.progress.clear()
                    await dying.engine.progress.wait()
        coming = await later.enter_async_context(serving(listen=late))
        done = await ended(running)
        assert done.status == 0, done.stderr
        assert dying.engine.failures == 2
        assert coming.engine.done_segments > 0
    check_whole(out)


async def test_an_idle_server_that_carries_one_listener_speaks_many_lines_at_once(tmp_path: Path):
    out, source = tmp_path / "out", write_script(tmp_path, *({"text": text} for text in TEXTS))
    async with serving(Script(token_s=0.002), max_streams=16) as at:
        at.server.admission.open(1, 16)  # as after measuring the device
        done = await cli(at, "batch", str(source), "-o", str(out), "--jobs", "12")
        assert done.status == 0, done.stderr
        assert "retries" not in done.stderr
    check_whole(out)


async def test_failures_name_settings_as_the_script_does(tmp_path: Path):
    settings = ({"language": "xx"}, {"cfg_weight": 1}, {"top_p": 7}, {"exaggeration": 10**400})
    lines = [{"text": "Hello.", "name": next(iter(each)), "settings": each} for each in settings]
    out, source = tmp_path / "out", write_script(tmp_path, *lines)
    async with serving() as at:
        assert (await cli(at, "batch", str(source), "-o", str(out))).status == 1
    failures = map(json.loads, (out / "failed.jsonl").read_text().splitlines())
    messages = {failure["name"]: failure["message"] for failure in failures}
    assert messages["language"].startswith("settings.language is 'xx'; it must be")
    assert messages["cfg_weight"].startswith("settings.cfg_weight is 1")
    assert messages["top_p"].startswith("settings.top_p is 7; it must be")
    assert messages["exaggeration"].startswith("exaggeration is 1000")


async def test_lines_that_fail_are_reported_and_retried_by_the_next_run(tmp_path: Path):
    good, bad = {"text": "This works."}, {"text": "This does not.", "voice": "nobody", "name": "bad"}
    out, source = tmp_path / "out", write_script(tmp_path, good, bad)
    async with serving() as at:
        done = await cli(at, "batch", str(source), "-o", str(out))
        assert done.status == 1
        assert "1 of 2 lines could not be spoken" in done.stderr
        assert json.loads((out / "failed.jsonl").read_text())["reason"] == "VOICE_NOT_FOUND"
        write_script(tmp_path, good, {**bad, "voice": "default"})
        assert (await cli(at, "batch", str(source), "-o", str(out))).status == 0
        assert at.engine.done_segments == 2
        assert not (out / "failed.jsonl").exists()


async def test_an_interrupt_and_a_second_run(tmp_path: Path):
    out, source = tmp_path / "out", write_script(tmp_path, *({"text": text} for text in TEXTS))
    async with serving(Script(token_s=0.002), max_streams=2) as at:
        running = await start(at, "batch", str(source), "-o", str(out), "--jobs", "2")
        async with asyncio.timeout(30):
            while at.engine.done_segments < 3:
                at.engine.progress.clear()
                await at.engine.progress.wait()
        running.terminate()
        await ended(running)
        await at.settled()
        done = await cli(at, "batch", str(source), "-o", str(out))
        assert done.status == 0, done.stderr
    check_whole(out)


async def test_a_bad_script_is_a_usage_error(tmp_path: Path):
    source = write_script(tmp_path, {"text": ""})
    async with serving() as at:
        done = await cli(at, "batch", str(source), "-o", str(tmp_path / "out"))
        assert done.status == 2
        assert "Line 1: text is ''" in done.stderr
        assert at.engine.opened_streams == 0


async def test_options_say_how_text_is_read_and_a_line_may_differ(tmp_path: Path):
    text = "<think>Nothing of this.</think><speak>Yes.</speak>"
    lines = {"text": text, "name": "as-given"}, {"text": text, "name": "own", "settings": {"drop_thinking": False}}
    out, source = tmp_path / "out", write_script(tmp_path, *lines)
    flags = ("batch", str(source), "-o", str(out), "--markup=strip", "--drop-thinking", "--unspeakable-text=refuse")
    async with serving() as at:
        assert (await cli(at, "batch", str(source), "-o", str(out))).status == 1, "SSML is refused by default"
        done = await cli(at, *flags)
        assert done.status == 0, done.stderr
        assert "2 were already spoken" in (await cli(at, *flags)).stderr
    assert len(pcm_of(out / "as-given.wav")) < len(pcm_of(out / "own.wav"))


def test_how_text_is_read_belongs_to_what_was_spoken():
    line = json.dumps({"text": "Hello.", "name": "a"})
    (plain,), (stripped,) = read_script([line]), read_script([line], mynah.TextSettings(markup="strip"))
    assert plain.digest != stripped.digest
    assert plain.digest == "9fbebf197f3ddc0ae361e3251ee38a02", "folders of earlier versions stay valid"


async def test_subtitles_lie_beside_the_audio_and_are_made_where_they_are_missing(tmp_path: Path):
    lines, out = tmp_path / "lines.jsonl", tmp_path / "out"
    lines.write_text("\n".join(json.dumps({"text": text, "name": f"n{i}"}) for i, text in enumerate(TEXTS[:3])))
    command = ["batch", str(lines), "-o", str(out), "--subtitles", "vtt", "--quiet"]
    async with serving() as at:
        assert (await cli(at, *command)).status == 0
        for number in range(3):
            assert TEXTS[number] in " ".join((out / f"n{number}.vtt").read_text().split("\n"))
        spoken = at.engine.opened_streams
        (out / "n1.vtt").unlink()
        assert (await cli(at, *command)).status == 0
        assert (out / "n1.vtt").exists()
        assert at.engine.opened_streams == spoken + 1


async def test_a_disk_that_takes_nothing_more_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """All workers meet it. What was spoken stays, and the next run goes on."""
    script_path, folder = tmp_path / "lines.jsonl", tmp_path / "spoken"
    script_path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    write, written = output_dir_module.write_wav, []

    def full(file: IO[bytes], pcm: bytes, rate_hz: int) -> None:
        written.append(file.name)
        write(file, pcm, rate_hz)
        if len(written) > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with serving() as at:
        args = parser().parse_args(["--server", at.address, "batch", str(script_path), "-o", str(folder), "--quiet"])
        with monkeypatch.context() as patched:
            patched.setattr(output_dir_module, "write_wav", full)
            with pytest.raises(OSError, match="No space left"):
                await execute(args)
        assert len(list(folder.glob("*.wav"))) == len(records(folder)) == 3
        assert not list(folder.glob(".*.part"))
        await execute(args)
    assert len(list(folder.glob("*.wav"))) == len(TEXTS)


def test_the_speed_is_the_command_s_or_the_line_s():
    lines = [json.dumps({"text": "Hello."}), json.dumps({"text": "Hello.", "settings": {"speed": 0.8}})]
    assert [item.speed for item in read_script(lines, speed=1.5)] == [1.5, 0.8]
    plain, scaled = read_script(lines)
    assert (plain.speed, scaled.speed) == (None, 0.8)
    assert plain.digest != scaled.digest, "a line whose speed has changed is spoken again"
    with pytest.raises(mynah.InvalidArgument, match=r"settings\.speed is 'fast'; it must be a number"):
        script({"text": "Hello.", "settings": {"speed": "fast"}})


async def test_a_line_is_spoken_at_its_speed(tmp_path: Path):
    source = write_script(tmp_path, {"text": "Hello there.", "name": "one"})
    async with serving() as at:
        for folder, options in (("plain", ()), ("fast", ("--speed", "2"))):
            done = await cli(at, "batch", str(source), "-o", str(tmp_path / folder), *options)
            assert done.status == 0, done.stderr
    plain, fast = (pcm_of(tmp_path / folder / "one.wav") for folder in ("plain", "fast"))
    assert len(plain) == 2 * len(fast) > 0
