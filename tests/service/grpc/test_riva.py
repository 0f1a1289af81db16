"""Riva's own client gets the same audio from this server as the contract's client."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from riva.client import AudioEncoding
from riva.client.proto import riva_tts_pb2, riva_tts_pb2_grpc

import mynah
from engines.fake import MULTILINGUAL, Script
from mynah.client.errors import MynahError, from_status
from service.access.keys import ApiKey, digest, write_keys
from service.audio.formats import SAMPLE_RATES_HZ
from service.grpc import riva as surface
from service.telemetry.logs import fields_of
from tests.service.access.tls_files import Authority
from tests.service.grpc.riva_client import RivaClient, RivaError, riva_client
from tests.service.serving import REFERENCE, Serving, serving

SEED = {"seed": "7"}
TEXT = "This is said once. And this as well."


@pytest.fixture(scope="module")
def riva() -> Iterator[RivaClient]:
    with riva_client() as client:
        yield client


async def ours(at: Serving, text: str = TEXT, **settings: Any) -> bytes:
    sampling = mynah.Sampling(seed=7)
    return b"".join([chunk.data async for chunk in at.client.synthesize(text, sampling=sampling, **settings)])


@pytest.mark.parametrize("rate_hz", SAMPLE_RATES_HZ)
async def test_a_whole_text_is_the_audio_that_our_client_gets(rate_hz: int, riva: RivaClient):
    async with serving() as at:
        answer = await riva(at.address, "synthesize", TEXT, sample_rate_hz=rate_hz, custom_configuration=SEED)
        assert answer.audio == await ours(at, sample_rate_hz=rate_hz)
        assert answer.meta.text == TEXT


async def test_an_answer_says_what_was_spoken(riva: RivaClient):
    async with serving() as at:
        text, spoken = "It costs $5. Come by 10:30!", "It costs five dollars. Come by ten thirty!"
        assert (await riva(at.address, "synthesize", text)).meta.processed_text == spoken
        answers = await riva(at.address, "synthesize_online", [text])
        assert {answer.meta.processed_text for answer in answers} == set(spoken.replace(". ", ".|").split("|"))


async def test_texts_are_spoken_as_they_come(riva: RivaClient):
    async with serving(Script(token_s=0.001)) as at:
        texts = ["One. ", "And no stop ", "then two."]
        say = {"sample_rate_hz": 24_000, "custom_configuration": SEED}
        answers = await riva(at.address, "synthesize_online", texts, **say)
        assert len(answers) >= 3
        assert answers[0].meta.text == "One."
        async with at.client.stream(sampling=mynah.Sampling(seed=7)) as stream:
            for text in texts:
                await stream.send(text)
                await stream.flush()
            await stream.end()
            received = [chunk.data async for chunk in stream]
        assert [answer.audio for answer in answers] == received
        await at.settled()


async def test_audio_comes_before_the_last_text_is_sent(riva: RivaClient):
    request = riva_tts_pb2.SynthesizeSpeechRequest(text="This comes first.", sample_rate_hz=24_000)
    async with serving() as at:
        answers = await riva(at.address, "turns", [request, request])
        assert sum(len(answer.audio) for answer in answers) == 2 * 17 * 1920


@pytest.mark.parametrize(
    ("encoding", "codec"), [(AudioEncoding.OGGOPUS, "opus"), (AudioEncoding.FLAC, "flac")], ids=["opus", "flac"]
)
async def test_compressed_audio_is_one_file_over_all_chunks(encoding: int, codec: str, riva: RivaClient):
    async with serving() as at:
        answers = await riva(at.address, "synthesize_online", TEXT, encoding=encoding, sample_rate_hz=48_000)
        with av.open(io.BytesIO(b"".join(answer.audio for answer in answers))) as file:
            assert file.streams.audio[0].codec_context.name == codec
            samples = sum(frame.samples for frame in file.decode(audio=0))
        assert abs(samples - (len(TEXT) - 1) * 960 * 2) <= 48_000 * 0.05  # the space between is not spoken


@pytest.mark.parametrize("encoding", [AudioEncoding.MULAW, AudioEncoding.ALAW])
async def test_telephone_audio(encoding: int, riva: RivaClient):
    async with serving() as at:
        answer = await riva(at.address, "synthesize", "Hi.", encoding=encoding, sample_rate_hz=8_000)
        assert len(answer.audio) == 3 * 320


async def test_voices_are_found_by_the_names_that_are_listed(riva: RivaClient):
    async with serving() as at:
        await at.client.voices.create("Anna", REFERENCE, consent=True, voice_id="anna")
        request = riva_tts_pb2.RivaSynthesisConfigRequest()
        (model,) = (await riva(at.address, "GetRivaSynthesisConfig", request)).model_config
        about = model.parameters
        assert (model.model_name, about["language_code"], about["sample_rate"]) == ("fake", "en-US", "24000")
        listed = [f"{about['voice_name']}.{each.split(':')[0]}" for each in about["subvoices"].split(",")]
        assert listed == ["mynah.anna", "mynah.default"]
        expected = await ours(at, "Hi.", voice="anna")
        for name in ("mynah.anna", "Mynah.anna", "anna"):
            say = {"voice_name": name, "sample_rate_hz": 24_000, "custom_configuration": SEED}
            assert (await riva(at.address, "synthesize", "Hi.", **say)).audio == expected
        assert expected != await ours(at, "Hi.")
        other = riva_tts_pb2.RivaSynthesisConfigRequest(model_name="fastpitch")
        assert (await refusal(at, riva, "GetRivaSynthesisConfig", other)).reason == "MODEL_NOT_FOUND"


async def test_a_prompt_is_a_voice_for_one_call_if_its_speaker_agreed(
    tmp_path: Path, riva: RivaClient, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", "mynah.service")
    prompt = tmp_path / "prompt.wav"
    prompt.write_bytes(REFERENCE)
    async with serving() as at:
        await at.client.voices.create("Anna", REFERENCE, consent=True, voice_id="anna")
        expected = await ours(at, "Hi.", voice="anna")
        say = {"zero_shot_audio_prompt_file": prompt, "sample_rate_hz": 24_000}
        agreed = {**SEED, "consent": "true"}
        answer = await riva(at.address, "synthesize", "Hi.", custom_configuration=agreed, **say)
        assert answer.audio == expected
        streamed = await riva(at.address, "synthesize_online", "Hi.", custom_configuration=agreed, **say)
        assert b"".join(chunk.audio for chunk in streamed) == expected
        refused = await refusal(at, riva, "synthesize", "Hi.", **say)
        assert (refused.reason, refused.field) == ("CONSENT_REQUIRED", "custom_configuration[consent]")
        prompt.write_bytes(b"broken" + REFERENCE)
        refused = await refusal(at, riva, "synthesize", "Hi.", custom_configuration=agreed, **say)
        assert (refused.reason, refused.field) == ("AUDIO_NOT_DECODABLE", "zero_shot_data.audio_prompt")
        assert [voice.voice_id for voice in await at.client.voices.list()] == ["anna", "default"]
    audited = [fields_of(each) for each in caplog.records if each.message == "voice made for one call"]
    assert [(each["surface"], each["consent"]) for each in audited] == [("riva", "given by the uploader")] * 2


async def refusal(at: Serving, riva: RivaClient, method: str, *args: Any, **kwargs: Any) -> MynahError:
    """The error of a call; afterwards the server serves and holds nothing."""
    with pytest.raises(RivaError) as raised:
        await riva(at.address, method, *args, **kwargs)
    await at.check_serves()
    return from_status(*raised.value.status)


@pytest.mark.parametrize(
    ("asked", "reason", "field"),
    [
        ({"language_code": "de-DE"}, "LANGUAGE_UNSUPPORTED", "language_code"),
        ({"sample_rate_hz": 11_111}, "SAMPLE_RATE_UNSUPPORTED", "sample_rate_hz"),
        ({"sample_rate_hz": 2**31 - 1}, "SAMPLE_RATE_UNSUPPORTED", "sample_rate_hz"),
        ({"sample_rate_hz": -1}, "SAMPLE_RATE_UNSUPPORTED", "sample_rate_hz"),
        ({"voice_name": "x" * 100_000}, "VOICE_ID_INVALID", "voice_name"),
        ({"voice_name": "😀" * 20_000}, "VOICE_ID_INVALID", "voice_name"),
        ({"custom_configuration": {"seed": "9" * 4000}}, "SAMPLING_OUT_OF_RANGE", None),
        ({"voice_name": "Magpie-Multilingual.EN-US.Aria"}, "VOICE_ID_INVALID", "voice_name"),
        ({"voice_name": "nobody"}, "VOICE_NOT_FOUND", "voice_name"),
        ({"voice_name": "mynah-large.default"}, "MODEL_NOT_FOUND", "voice_name"),
        ({"custom_configuration": {"model": "large"}}, "MODEL_NOT_FOUND", "custom_configuration[model]"),
        ({"encoding": 17}, "AUDIO_FORMAT_UNKNOWN", "encoding"),
        ({"custom_dictionary": {"NVIDIA": "ɛnˈvɪdiə"}}, "DICTIONARY_IPA_UNSUPPORTED", "custom_dictionary"),
        (
            {"custom_configuration": {"exaggeration_factor": "1"}},
            "EXAGGERATION_UNSUPPORTED",
            "custom_configuration[exaggeration_factor]",
        ),
        ({"custom_configuration": {"cfg_weight": "much"}}, "CFG_WEIGHT_OUT_OF_RANGE", None),
        ({"custom_configuration": {"emotion": "1"}}, "CONFIGURATION_UNKNOWN", None),
        ({"custom_configuration": {"word_guard": "yes"}}, "WORD_GUARD_UNKNOWN", None),
        ({"custom_configuration": {"schedule": "fast"}}, "SCHEDULE_UNKNOWN", None),
        ({"custom_configuration": {"top_k": "many"}}, "SAMPLING_OUT_OF_RANGE", None),
        ({"custom_configuration": {"temperature": "9"}}, "SAMPLING_OUT_OF_RANGE", "custom_configuration[temperature]"),
        ({"text": "..."}, "TEXT_EMPTY", "text"),
        ({"text": ""}, "TEXT_EMPTY", "text"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_name(
    asked: dict[str, Any], reason: str, field: str | None, riva: RivaClient
):
    async with serving() as at:
        wanted = {"text": TEXT, **asked}
        error = await refusal(at, riva, "synthesize", **wanted)
        assert error.reason == reason
        assert field in (None, error.field)
        if "text" not in asked:
            error = await refusal(at, riva, "synthesize_online", **wanted)
            assert error.reason == reason


@pytest.mark.parametrize("code", ["en", "en-US", "en_GB", "EN-AU", ""])
async def test_an_english_model_takes_english_by_any_of_its_codes(code: str, riva: RivaClient):
    async with serving() as at:
        assert (await riva(at.address, "synthesize", "Hi.", language_code=code)).audio
        config = await riva(at.address, "GetRivaSynthesisConfig", riva_tts_pb2.RivaSynthesisConfigRequest())
        assert config.model_config[0].parameters["language_code"] == "en-US"


async def test_a_multilingual_model_takes_its_languages_and_nims_exaggeration(riva: RivaClient):
    async with serving(Script(abilities=MULTILINGUAL)) as at:
        asked = {"exaggeration_factor": "0.7", "cfg_weight": "0.3", "min_p": "0.1"}
        await riva(at.address, "synthesize", "Guten Tag.", language_code="de-DE", custom_configuration=asked)
        sampling = at.engine.last_sampling
        assert sampling is not None
        assert (sampling.exaggeration, sampling.cfg_weight, sampling.min_p) == (0.7, 0.3, 0.1)
        assert at.engine.spoken_languages == ["de"]
        config = await riva(at.address, "GetRivaSynthesisConfig", riva_tts_pb2.RivaSynthesisConfigRequest())
        assert config.model_config[0].parameters["language_code"] == ",".join(MULTILINGUAL.languages)
        refused = await refusal(at, riva, "synthesize", "Hi.", language_code="xx-XX")
        assert (refused.reason, refused.field) == ("LANGUAGE_UNSUPPORTED", "language_code")


async def test_settings_hold_for_the_whole_stream_and_a_text_is_required(riva: RivaClient):
    requests = [riva_tts_pb2.SynthesizeSpeechRequest(text="Hi.", sample_rate_hz=rate) for rate in (24_000, 8_000)]
    async with serving() as at:
        error = await refusal(at, riva, "SynthesizeOnline", requests)
        assert (error.reason, error.field) == ("SETTINGS_CHANGED", "settings")
        assert (await refusal(at, riva, "SynthesizeOnline", [])).reason == "TEXT_EMPTY"


def test_bare_samples_become_a_file():
    samples = np.arange(1000, dtype="<i2").tobytes()
    prompt = riva_tts_pb2.ZeroShotData(audio_prompt=samples, encoding=AudioEncoding.LINEAR_PCM, sample_rate_hz=22_050)
    with av.open(io.BytesIO(surface._as_file(prompt))) as file:
        frames = [frame.to_ndarray() for frame in file.decode(audio=0)]
        assert file.streams.audio[0].rate == 22_050
    assert np.concatenate(frames, axis=1).tobytes() == samples
    prompt.audio_prompt = b"RIFF" + samples
    assert surface._as_file(prompt) == b"RIFF" + samples


async def test_rivas_clients_bring_keys_and_certificates_as_others_do(tmp_path: Path, riva: RivaClient):
    authority = Authority(tmp_path)
    own = authority.issue()
    write_keys(tmp_path / "keys.json", [ApiKey("anna", digest("secret"))])
    flags = {"tls_certificate": own.certificate, "tls_key": own.key, "api_keys": tmp_path / "keys.json"}
    async with serving(**flags) as at:
        trusted = {"use_ssl": True, "ssl_root_cert": str(authority.certificate)}
        known = {**trusted, "metadata_args": [["authorization", "Bearer secret"]]}
        answer = await riva(at.address, "synthesize", "Hi.", sample_rate_hz=24_000, auth=known)
        assert len(answer.audio) == 3 * 1920
        with pytest.raises(RivaError) as raised:
            await riva(at.address, "synthesize", "Hi.", auth=trusted)
        assert raised.value.status[0] == "UNAUTHENTICATED"


async def test_a_text_too_long_for_one_answer_is_refused_before_any_work(riva: RivaClient):
    async with serving() as at:
        error = await refusal(at, riva, "synthesize", "word " * 500, sample_rate_hz=24_000)
        assert (error.reason, error.field) == ("TEXT_TOO_LONG", "text")
        assert "SynthesizeOnline" in str(error)
        assert at.engine.opened_streams == 1, "of check_serves"


async def test_an_answer_that_grows_too_long_ends_while_it_is_made(riva: RivaClient):
    text = "These are short words. " * 9  # under the limit if it were said quickly
    slow_speech = Script(tokens_per_char=3.0, token_s=0.0001)
    spoken = (len(text) - 9) * 3 * 960  # the spaces between sentences are not
    async with serving(slow_speech, max_unary_answer_bytes=2 * spoken) as at:
        assert len((await riva(at.address, "synthesize", text, sample_rate_hz=24_000)).audio) == 2 * spoken
    async with serving(slow_speech, max_unary_answer_bytes=spoken) as at:
        with pytest.raises(RivaError) as raised:
            await riva(at.address, "synthesize", text, sample_rate_hz=24_000)
        error = from_status(*raised.value.status)
        assert (error.reason, error.field, "SynthesizeOnline" in str(error)) == ("TEXT_TOO_LONG", "text", True)
        await at.settled()
        assert at.engine.made_samples < spoken


@pytest.mark.parametrize("method", ["Synthesize", "SynthesizeOnline"])
async def test_a_cancelled_call_frees_everything_at_once(method: str):
    request = riva_tts_pb2.SynthesizeSpeechRequest(text="This is a sentence. " * 20, sample_rate_hz=24_000)
    async with serving(Script(token_s=0.01)) as at:
        stub = riva_tts_pb2_grpc.RivaSpeechSynthesisStub(at.channel)
        call = stub.SynthesizeOnline(iter([request])) if method == "SynthesizeOnline" else stub.Synthesize(request)
        async with asyncio.timeout(30):
            await at.engine.progress.wait()
        call.cancel()
        await at.settled()
        assert at.engine.made_samples < 400 * 960, "most of the text was never spoken"
        await at.check_serves()
