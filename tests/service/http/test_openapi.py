"""The OpenAPI document is correct: the server responds to allowed and forbidden requests as it says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from tests.service.serving import Serving, serving

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


@pytest.fixture(scope="module")
def at() -> Iterator[Serving]:
    """A server on an event loop of its own, for blocking clients."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    manager = serving(http=True, max_pending_text_chars=1000, max_voices=20)

    def run(coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(30)

    try:
        yield run(manager.__aenter__())
        run(manager.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def document(at: Serving) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"http://{at.http}/openapi.json")


OPERATIONS = [
    ("/v1/audio/models", "GET"),
    ("/dev/captioned_speech", "POST"),
    ("/v1/audio/speech", "POST"),
    ("/v1/audio/voices", "GET"),
    ("/v1/info", "GET"),
    ("/v1/models", "GET"),
    ("/v1/models/{model}", "GET"),
    ("/v1/voices", "GET"),
    ("/v1/voices", "POST"),
    ("/v1/voices/{voice_id}", "GET"),
    ("/v1/voices/{voice_id}", "DELETE"),
    ("/healthz", "GET"),
    ("/readyz", "GET"),
    ("/openapi.json", "GET"),
]


def test_the_document_has_every_operation(document: schemathesis.BaseSchema):
    operations = [result.ok() for result in document.get_all_operations()]
    listed = {(each.path, each.method.upper()) for each in operations} | {
        ("/openapi.json", "GET")
    }  # not in its own list
    assert listed == set(OPERATIONS)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_the_server_responds_as_the_document_says(
    document: schemathesis.BaseSchema, path: str, method: str, mode: GenerationMode
):
    """Positive: what the document allows; negative: what it forbids."""

    @given(case=document[path][method].as_strategy(generation_mode=mode))
    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS)

    try:
        check()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE, "only this mode may have no examples"
