"""The end and the log line of a failed call, without a server."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest

from engines.errors import EngineFailure
from service.errors import ClientGone, ResourceExhausted
from service.grpc.status import grpc_errors
from service.handlers.failures import Code


class Context:
    """A call's context that records how it was ended; a `broken` one belongs to a disconnected client."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken
        self.ended: list[tuple[grpc.StatusCode, str]] = []

    async def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: object) -> None:
        if self.broken:
            raise grpc.aio.InternalError("the call is closed")
        self.ended.append((code, details))
        raise grpc.aio.AbortError


async def end(context: Context, error: Exception) -> None:
    async with grpc_errors(context, "stream 1"):  # type: ignore[arg-type]
        raise error


def test_codes_are_grpcs_by_name_and_number():
    assert {code.name: code.value for code in Code}.items() <= {
        each.name: each.value[0] for each in grpc.StatusCode
    }.items()


async def test_a_refusal_ends_the_call_and_is_logged_without_its_words(caplog: pytest.LogCaptureFixture):
    caplog.set_level("DEBUG")
    context = Context()
    with pytest.raises(grpc.aio.AbortError):
        await end(context, ResourceExhausted("TEXT_BACKLOG_FULL", "secret words", field="text"))
    assert context.ended == [(grpc.StatusCode.RESOURCE_EXHAUSTED, "secret words")]
    assert "TEXT_BACKLOG_FULL text" in caplog.text
    assert "secret" not in caplog.text


async def test_of_several_tasks_the_first_failure_counts():
    context = Context()
    failures = ExceptionGroup("tasks", [ExceptionGroup("inner", [ResourceExhausted("FIRST", "first")]), ValueError()])
    with pytest.raises(grpc.aio.AbortError):
        await end(context, failures)
    assert context.ended == [(grpc.StatusCode.RESOURCE_EXHAUSTED, "first")]


@pytest.mark.parametrize(
    ("broken", "error"),
    [(True, ResourceExhausted("R", "secret")), (True, EngineFailure("secret")), (False, ClientGone())],
)
async def test_a_disconnected_client_gets_no_status(broken: bool, error: Exception, caplog: pytest.LogCaptureFixture):
    context = Context(broken=broken)
    await end(context, error)
    assert context.ended == []
    assert "secret" not in caplog.text


async def test_a_failure_is_logged_with_its_causes_tracebacks(caplog: pytest.LogCaptureFixture):
    def inner() -> None:
        raise KeyError("secret")

    def outer() -> None:
        try:
            inner()
        except KeyError as error:
            raise EngineFailure("secret too") from error

    try:
        outer()
    except EngineFailure as failure:
        with pytest.raises(grpc.aio.AbortError):
            await end(Context(), failure)
    for words in ("ENGINE_FAILURE", "EngineFailure", "in outer", "because of KeyError", "in inner"):
        assert words in caplog.text
    assert "secret" not in caplog.text.replace('("secret', "")  # the source lines quote this test
