"""Riva's own client in its own process: gRPC's blocking client does not work well beside an asyncio server."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import riva.client
from google.protobuf.message import Message
from riva.client.proto import riva_tts_pb2

Status = tuple[str, str, list[tuple[str, str | bytes]]]  # code, details, trailing metadata


class RivaError(Exception):
    """The status that a call ended with."""

    def __init__(self, status: Status) -> None:
        super().__init__(status)
        self.status = status


class RivaClient:
    """Calls one method of the client or of its stub. Returns the answer; a stream as a list."""

    def __init__(self, process: ProcessPoolExecutor) -> None:
        self._process = process

    async def __call__(self, address: str, method: str, *args: Any, auth: dict[str, Any] | None = None, **kwargs: Any):
        """Raises RivaError."""
        loop = asyncio.get_running_loop()
        work = (address, auth or {}, method, [_packed(arg) for arg in args], kwargs)
        status, answers = await loop.run_in_executor(self._process, _call, *work)
        if status is not None:
            raise RivaError(status)
        found = [_unpacked(answer) for answer in answers]
        return found if _streams(method) else found[0]


@contextmanager
def riva_client() -> Iterator[RivaClient]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        yield RivaClient(process)


def _streams(method: str) -> bool:
    return method.lower().replace("_", "") in ("synthesizeonline", "turns")


def _packed(value: Any) -> Any:
    """A message's name and bytes, as messages do not pickle."""
    if isinstance(value, list):
        return [_packed(each) for each in value]
    return (value.DESCRIPTOR.name, value.SerializeToString()) if isinstance(value, Message) else value


def _unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpacked(each) for each in value]
    return getattr(riva_tts_pb2, value[0]).FromString(value[1]) if isinstance(value, tuple) else value


def _call(address: str, auth: dict[str, Any], method: str, args: Any, kwargs: Any) -> tuple[Status | None, Any]:
    service = riva.client.SpeechSynthesisService(riva.client.Auth(uri=address, **auth))
    try:
        return None, _packed(_answers(service, method, _unpacked(args), kwargs))
    except grpc.RpcError as error:
        call: Any = error
        trailing = [(str(key), value) for key, value in call.trailing_metadata() or ()]
        return (call.code().name, call.details() or "", trailing), []
    finally:
        service.auth.channel.close()


def _answers(service: Any, method: str, args: Any, kwargs: Any) -> list[Any]:
    if method == "turns":
        return list(_turns(service, *args))
    if method == "SynthesizeOnline":  # of the stub
        return list(service.stub.SynthesizeOnline(iter(args[0])))
    if method[0].isupper():
        return [getattr(service.stub, method)(*args)]
    answer = getattr(service, method)(*args, **kwargs)
    return list(answer) if _streams(method) else [answer]


def _turns(service: Any, requests: list[Any]) -> Iterator[Any]:
    """Send each request only after the first audio of the one before."""
    received = threading.Semaphore(1)

    def say() -> Iterator[Any]:
        for request in requests:
            assert received.acquire(timeout=10), "no audio was received"
            yield request

    for answer in service.stub.SynthesizeOnline(say()):
        received.release()
        yield answer
