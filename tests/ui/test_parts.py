"""The page's parts that need no browser: errors in words, takes that are kept, flags."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mynah
from mynah import InvalidArgument, NotFound, ServerBusy, Unavailable
from ui.config import ConfigError, PageConfig, read_config
from ui.page import Page
from ui.takes import Takes
from ui.words import explain


def test_errors_name_their_field_and_say_whether_to_retry():
    about = {"reason": "SAMPLING_OUT_OF_RANGE", "field": "sampling.top_p", "value": "7", "allowed": "(0, 1]"}
    told = explain(InvalidArgument("", **about))
    assert told["message"] == "Top p cannot be 7; allowed: (0, 1]."
    assert (told["field"], told["retryable"]) == ("top_p", False)
    busy = explain(ServerBusy("", reason="STREAMS_EXHAUSTED", retry_after_s=1.0))
    assert busy["message"] == "All of the speech server's streams are taken. Try again in a moment."
    assert busy["field"] == ""
    assert explain(NotFound("", reason="VOICE_NOT_FOUND"))["field"] == "voice"
    assert explain(InvalidArgument("", reason="AUDIO_SILENT", field="audio"))["field"] == "clip"


def test_an_error_without_words_of_ours_is_told_in_the_server_s():
    assert explain(Unavailable("the lights went out", reason="SOMETHING_NEW"))["message"] == (
        "The speech server says: the lights went out"
    )


def test_no_event_goes_through_gradio_s_queue_which_may_lose_its_answer():
    events = Page(mynah.Client("127.0.0.1:1"), Takes(), "").blocks.get_config_file()["dependencies"]
    assert len(events) > 10
    assert [event["targets"] for event in events if event["queue"]] == []


def test_takes_are_kept_up_to_a_limit_and_cannot_be_guessed():
    takes = Takes(max_bytes=100)
    first, second = takes.keep(24_000, bytes(60)), takes.keep(24_000, b"\1\0" * 20)
    assert takes.get(first) is not None
    third = takes.keep(8_000, bytes(40))
    assert takes.get(first) is None
    kept, eight = takes.get(second), takes.get(third)
    assert kept is not None
    assert eight is not None
    assert (kept[0], eight[0]) == (24_000, 8_000)
    assert np.array_equal(kept[1], np.ones(20, np.int16))
    assert takes.get("") is None
    assert len({len(name) for name in (first, second, third)}) == 1
    assert len(first) > 20


def test_flags_become_one_value():
    config = read_config(["--server", "[::1]:5", "--listen", "[::]:80", "--root-path", "/a/b", "--server-ca", "ca.pem"])
    assert (config.host, config.port, config.root_path) == ("::", 80, "/a/b")
    assert config.tls == PageConfig(server_ca=Path("ca.pem")).tls
    assert PageConfig().tls is False


def test_the_api_key_comes_from_a_file_or_the_environment(tmp_path: Path):
    file = tmp_path / "key"
    file.write_text("secret\n")
    assert PageConfig(api_key_file=file).api_key({"MYNAH_API_KEY": "other"}) == "secret"
    assert PageConfig().api_key({"MYNAH_API_KEY": "other"}) == "other"
    assert PageConfig().api_key({}) is None
    with pytest.raises(ConfigError, match="api-key-file"):
        PageConfig(api_key_file=tmp_path / "none").api_key({})


@pytest.mark.parametrize(
    "flags",
    [["--server", "nowhere"], ["--listen", "host:99999"], ["--root-path", "a"], ["--tls-key", "k"], ["--hue", "red"]],
)
def test_a_bad_flag_is_refused(flags: list[str]):
    with pytest.raises(ConfigError):
        read_config(flags)
