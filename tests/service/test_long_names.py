"""Names that a client gives are repeated in errors, however long they are, in a part that leaves the rest readable."""

from __future__ import annotations

from typing import Any

import pytest

from engines.errors import InvalidInput, quoted, shown
from engines.fake import MULTILINGUAL, Script
from service.errors import NotFound
from tests.service.http.clients import HELLO, SPEECH, http_serving, socket
from tests.service.serving import opening, refused, serving, text

LONG = "x" * 5000
MULTI = Script(abilities=MULTILINGUAL)


def test_a_name_is_repeated_whole_if_it_is_short_and_cut_if_it_is_not() -> None:
    assert (shown("abc"), quoted("it's")) == ("abc", '"it\'s"')
    assert (len(shown(LONG)), len(quoted(LONG)), shown(quoted(LONG))) == (80, 80, quoted(LONG))
    assert quoted(LONG).endswith("...'")
    assert (InvalidInput(LONG, "m", value=LONG).field, NotFound("R", "m", value=LONG).value) == (shown(LONG),) * 2


@pytest.mark.parametrize(
    ("settings", "reason", "allowed"),
    [
        ({"model": LONG}, "MODEL_NOT_FOUND", "allowed names are fake"),
        ({"voice_id": LONG}, "VOICE_ID_INVALID", "the server has default"),
        ({"voice_id": "😀" * 5000}, "VOICE_ID_INVALID", "the server has default"),
        ({"language_code": LONG}, "LANGUAGE_UNSUPPORTED", "which fake speaks"),
        ({"schedule": LONG}, "SCHEDULE_UNKNOWN", "one of lowest_latency"),
    ],
)
async def test_over_grpc(settings: dict[str, Any], reason: str, allowed: str):
    async with serving(MULTI) as at:
        error = await refused(at, opening(**settings), text("Hello."))
        assert error.reason == reason
        assert allowed in str(error)
        assert " ... " not in str(error), "the message is whole"
        assert max(map(len, (error.value, error.field))) <= 84
        await at.settled()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"model": LONG}, "MODEL_NOT_FOUND"),
        ({"voice": LONG}, "VOICE_ID_INVALID"),
        ({"language": LONG}, "LANGUAGE_UNSUPPORTED"),
        ({"schedule": LONG}, "SCHEDULE_UNKNOWN"),
        ({"response_format": LONG}, "AUDIO_FORMAT_UNKNOWN"),
        ({LONG: 1}, "FIELD_UNKNOWN"),
    ],
)
async def test_over_http(fields: dict[str, Any], reason: str):
    async with http_serving(MULTI) as (at, client):
        answer = await client.post(SPEECH, json=HELLO | fields)
        error = answer.json()["error"]
        assert error["code"] == reason
        assert "x" * 81 not in answer.text
        assert " ... " not in error["message"] or reason == "FIELD_UNKNOWN", "its fields are many"
        await at.settled()


async def test_a_websocket_names_a_field_as_it_was_written():
    async with http_serving(MULTI) as (at, _), socket(at) as connection:
        await connection.send(open={"settings": {"languageCode": "de", "cfgWeight": "much"}})
        message = str(await connection.connection.recv())
        assert "open.settings.cfgWeight is 'much'; it must be a number." in message
