"""A server's error arrives at the client as the right class with all its details, also through proxies."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from engines.errors import CheckpointError, EngineBusy, EngineFailure, InvalidInput
from mynah.client import errors
from mynah.client.errors import DETAILS_KEY, MynahError, StreamCancelled, Unavailable, from_status
from service import errors as request_errors
from service.grpc.status import details as details_of
from service.handlers.failures import failure_of

DETAILS = {"field": "text", "value": "7 chars", "allowed": "at most 5 chars"}


def over_the_wire(error: Exception) -> MynahError:
    failure = failure_of(error)
    return from_status(failure.code.name, failure.message, [("x", "y"), (DETAILS_KEY, details_of(failure))])


@pytest.mark.parametrize(
    ("sent", "kind", "code"),
    [
        (request_errors.NotFound("R", "m", **DETAILS), errors.NotFound, "NOT_FOUND"),
        (request_errors.AlreadyExists("R", "m", **DETAILS), errors.AlreadyExists, "ALREADY_EXISTS"),
        (request_errors.FailedPrecondition("R", "m", **DETAILS), errors.WrongState, "FAILED_PRECONDITION"),
        (request_errors.ResourceExhausted("R", "m", **DETAILS), errors.ServerBusy, "RESOURCE_EXHAUSTED"),
        (request_errors.Unavailable("R", "m", **DETAILS), errors.Unavailable, "UNAVAILABLE"),
        (request_errors.DeadlineExceeded("R", "m", **DETAILS), errors.TimedOut, "DEADLINE_EXCEEDED"),
    ],
)
def test_every_request_error_has_its_class_and_keeps_its_details(
    sent: request_errors.RequestError, kind: type[MynahError], code: str
):
    got = over_the_wire(sent)
    assert type(got) is kind
    assert (str(got), got.reason, got.code) == ("m", "R", code)
    assert (got.field, got.value, got.allowed) == ("text", "7 chars", "at most 5 chars")
    assert (got.retryable, got.retry_after_s) == (False, None)


@pytest.mark.parametrize(
    ("sent", "kind", "reason", "retryable"),
    [
        (InvalidInput("text", "text is too long.", "TEXT_TOO_LONG"), errors.InvalidArgument, "TEXT_TOO_LONG", False),
        (EngineBusy("full"), errors.ServerBusy, "ENGINE_BUSY", True),
        (EngineFailure("gone"), errors.ServerError, "ENGINE_FAILURE", True),
        (CheckpointError("bad"), errors.WrongState, "CHECKPOINT_INVALID", False),
        (ZeroDivisionError("secret"), errors.ServerError, "INTERNAL", False),
    ],
)
def test_every_error_of_an_engine_has_its_class(sent: Exception, kind: type[MynahError], reason: str, retryable: bool):
    got = over_the_wire(sent)
    assert type(got) is kind
    assert (got.reason, got.retryable) == (reason, retryable)
    assert "secret" not in str(got)


def test_the_retry_delay_arrives():
    got = over_the_wire(request_errors.ResourceExhausted("R", "m", retry_after_s=2.5))
    assert (got.retryable, got.retry_after_s) == (True, 2.5)


def test_a_wrong_field_is_a_bad_request_for_other_clients():
    failure = failure_of(
        InvalidInput("sampling.top_p", "sampling.top_p is 7; it must be in (0, 1].", "SAMPLING_OUT_OF_RANGE")
    )
    status = status_pb2.Status.FromString(details_of(failure))
    assert (status.code, status.message) == (3, failure.message)
    request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(request) for detail in status.details)
    assert request.field_violations[0].field == "sampling.top_p"


@pytest.mark.parametrize("details", [None, b"", b"\xff\xff", status_pb2.Status(code=3).SerializeToString()])
def test_a_status_without_our_details_keeps_its_code(details: bytes | None):
    metadata = [] if details is None else [(DETAILS_KEY, details)]
    got = from_status("RESOURCE_EXHAUSTED", "a proxy said so", metadata)
    assert type(got) is errors.ServerBusy
    assert (got.reason, got.retryable, str(got)) == ("RESOURCE_EXHAUSTED", False, "a proxy said so")
    assert from_status("UNAVAILABLE", "no route", metadata).retryable


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_code_becomes_an_error(code: grpc.StatusCode):
    got = from_status(code.name, "m")
    assert isinstance(got, MynahError)
    assert got.code == code.name


@pytest.mark.parametrize("code", ["UNKNOWN", "INTERNAL"])
def test_a_stream_that_a_proxy_cut_off_may_be_tried_again(code: str):
    error = from_status(code, "Stream removed (RST_STREAM (Received RST_STREAM with error code 2))")
    assert isinstance(error, errors.Unavailable)
    assert (error.reason, error.retryable) == ("CONNECTION_LOST", True)
    assert not from_status(code, "a bug").retryable


def test_a_bare_cancelled_is_a_lost_connection_unless_this_client_cancelled() -> None:
    lost = from_status("CANCELLED", "CANCELLED")
    assert isinstance(lost, Unavailable)
    assert lost.retryable
    own = from_status("CANCELLED", "Locally cancelled by application!")
    assert isinstance(own, StreamCancelled)
    assert not own.retryable
