"""Language, guidance, exaggeration and continuity from the command line, and what `mynah info` shows of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engines.api import Segment
from engines.fake import MULTILINGUAL, FakeEngine, FakeStream, Script
from mynah.batch.script import ModelSettings, read_script
from mynah.client.errors import InvalidArgument
from tests.mynah.cli.test_cli import cli
from tests.service.serving import serving

MULTI = Script(abilities=MULTILINGUAL)
OPTIONS = ["--language", "de-AT", "--cfg-weight", "0.3", "--exaggeration", "0.7"]


async def test_say_sends_what_is_chosen(tmp_path: Path):
    async with serving(MULTI) as at:
        done = await cli(at, "say", "Guten Tag.", "-o", str(tmp_path / "out.wav"), *OPTIONS, "--min-p", "0.1")
        assert (done.status, done.stderr.count("Traceback")) == (0, 0)
        sampling = at.engine.last_sampling
        assert sampling is not None
        assert (sampling.cfg_weight, sampling.exaggeration, sampling.min_p) == (0.3, 0.7, 0.1)
        assert at.engine.spoken_languages == ["de"]


async def test_say_shows_why_a_model_refuses(tmp_path: Path):
    async with serving() as at:
        done = await cli(at, "say", "Hi.", "-o", str(tmp_path / "out.wav"), "--cfg-weight", "0.5")
        assert done.status == 2
        assert "fake has no cfg_weight: leave the field out. [CFG_WEIGHT_UNSUPPORTED]" in done.stderr


@pytest.mark.parametrize("script", [Script(), MULTI], ids=["turbo", "multilingual"])
async def test_info_shows_languages_and_defaults_of_what_the_model_has(script: Script):
    async with serving(script) as at:
        shown = (await cli(at, "info")).out.decode()
        lines = dict(line.split(":", 1) for line in shown.splitlines())
        info = at.engine.info
        assert lines["languages"].strip() == ", ".join(info.languages or ("en",))
        defaults = f"temperature 0.8, top-k {info.sampling.top_k}, top-p {info.sampling.top_p:g}, "
        assert lines["defaults"].strip().startswith(defaults)
        assert ("cfg-weight 0.5, exaggeration 0.5" in lines["defaults"]) == info.guidance
        assert ("min-p 0.05" in lines["defaults"]) == info.has_min_p
        for name in ("tags", "SSML", "numbers read", "segment", "flushes", "upload", "time limits"):
            assert lines[name].strip()


async def test_a_batch_is_in_its_languages(tmp_path: Path):
    script = tmp_path / "lines.jsonl"
    lines = [
        {"text": "Guten Tag."},
        {"text": "Bonjour.", "settings": {"language": "fr", "cfg_weight": 1, "min_p": 0.2}},
    ]
    script.write_text("\n".join(map(json.dumps, lines)))
    async with serving(MULTI) as at:
        done = await cli(at, "batch", str(script), "-o", str(tmp_path / "out"), "--jobs", "1", *OPTIONS)
        assert done.status == 0
        assert sorted(at.engine.spoken_languages) == ["de", "fr"]


@pytest.fixture
def segments(monkeypatch: pytest.MonkeyPatch) -> list[Segment]:
    """The segments that the engine is asked to speak."""
    asked: list[Segment] = []
    speak = FakeStream.speak

    def noted(stream: FakeStream, segment: Segment):
        asked.append(segment)
        return speak(stream, segment)

    monkeypatch.setattr(FakeStream, "speak", noted)
    return asked


@pytest.mark.parametrize("options", [[], ["--continuity"]], ids=["default", "asked"])
async def test_a_batch_has_sentences_go_on_from_each_other(segments: list[Segment], options: list[str], tmp_path: Path):
    script = tmp_path / "lines.jsonl"
    lines = [
        {"text": "One."},
        *({"text": text, "settings": {"continuity": text == "Two."}} for text in ("Two.", "Three.")),
    ]
    script.write_text("\n".join(map(json.dumps, lines)))
    async with serving() as at:
        done = await cli(at, "batch", str(script), "-o", str(tmp_path / "out"), "--jobs", "1", *options)
    assert done.status == 0
    spoken = {segment.text: segment.continuity for segment in segments}
    assert spoken == {"One.": bool(options), "Two.": True, "Three.": False}


@pytest.mark.parametrize("has", [True, False])
async def test_info_shows_whether_sentences_can_go_on_from_each_other(has: bool):
    async with serving(Script(continuity=has)) as at:
        shown = (await cli(at, "info")).out.decode()
    assert dict(line.split(":", 1) for line in shown.splitlines())["continuity"].strip() == ("yes" if has else "no")


def test_continuity_makes_other_audio_than_the_same_line_without():
    line = {"text": "Hello.", "settings": {"seed": 1}}
    digests = [
        read_script([json.dumps(line)], model_settings=ModelSettings(continuity=chosen))[0].digest
        for chosen in (None, True, False)
    ]
    assert len(set(digests)) == 3


async def test_say_and_batch_name_their_model(tmp_path: Path):
    script, second = tmp_path / "lines.jsonl", FakeEngine(MULTI, model="multi")
    script.write_text("\n".join(map(json.dumps, [{"text": "One."}, {"text": "Two.", "settings": {"model": "fake"}}])))
    async with serving(others=[second]) as at:
        of_server, of_second = (await cli(at, "info")).out.decode().split("\n\n")
        shown = dict(line.split(":", 1) for line in of_server.splitlines())
        assert (shown["models"].strip(), "languages" in shown) == ("fake, multi", True)
        shown = dict(line.split(":", 1) for line in of_second.splitlines())
        assert shown["model"].strip() == "multi (random weights)"
        assert "cfg-weight 0.5" in shown["defaults"]
        assert " de, " in shown["languages"]
        said = await cli(at, "say", "Hi.", "-o", str(tmp_path / "out.wav"), "--model", "multi", "--cfg-weight", "0.3")
        assert (said.status, second.opened_streams, at.engine.opened_streams) == (0, 1, 0)
        done = await cli(at, "batch", str(script), "-o", str(tmp_path / "out"), "--jobs", "1", "--model", "multi")
        assert (done.status, second.opened_streams, at.engine.opened_streams) == (0, 2, 1)
        wrong = await cli(at, "say", "Hi.", "-o", str(tmp_path / "no.wav"), "--model", "turbo")
        assert "There is no model 'turbo' on this server; allowed names are fake, multi." in wrong.stderr


def test_a_line_has_its_own_settings_before_the_commands():
    lines = [json.dumps({"text": "A."}), json.dumps({"text": "B.", "settings": {"language": "fr", "exaggeration": 1}})]
    plain, own = read_script(lines, model_settings=ModelSettings("de", 0.3))
    assert plain.model_settings == ModelSettings("de", 0.3)
    assert own.model_settings == ModelSettings("fr", 0.3, 1)
    assert len({plain.digest, own.digest, read_script(lines)[0].digest}) == 3


@pytest.mark.parametrize(
    ("settings", "digest"),
    [({}, "f61aaeb03e3f5ddd0daa55a7d85b6c09"), ({"language": "de"}, "d9f24e65bc37424af9b71a765a59d42c")],
)
def test_lines_without_these_settings_keep_their_digest(settings: dict[str, str], digest: str):
    """Folders that were made before the settings existed stay valid."""
    (item,) = read_script([json.dumps({"text": "Hello.", "settings": {"seed": 1, **settings}})])
    assert item.digest == digest


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"language": 1}, "settings.language"),
        ({"cfg_weight": "1"}, "cfg_weight"),
        ({"exaggeration": True}, "exaggeration"),
        ({"continuity": 1}, "settings.continuity"),
    ],
)
def test_a_wrong_setting_names_its_line(settings: dict[str, object], field: str):
    with pytest.raises(InvalidArgument, match=f"Line 1: .*{field}"):
        read_script([json.dumps({"text": "A.", "settings": settings})])
