"""The server's log lines: what a client sent neither forges a line nor fills a disk."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from service.telemetry.logs import Lines, SafeHandler, escaped, write_event

FORGED = "x\n2026-01-01T00:00:00.000Z INFO mynah.service all is well\x1b[2J\r\u202e\x00\x85\u2028é"


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def output(clock: Clock) -> Iterator[io.StringIO]:
    """What is written by the loggers below "mynah.test" and "grpc.test"."""
    written = io.StringIO()
    handler = SafeHandler(written, clock)
    loggers = [logging.getLogger(name) for name in ("mynah.test", "grpc.test")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel("DEBUG")
        logger.propagate = False
    yield written
    for logger in loggers:
        logger.removeHandler(handler)
        logger.propagate = True


log, foreign = logging.getLogger("mynah.test"), logging.getLogger("grpc.test")


@pytest.mark.parametrize("arguments", [("%s", FORGED), ("%r", FORGED), (FORGED,), ("%(a)s", {"a": FORGED})])
def test_an_argument_stays_in_its_line(output: io.StringIO, arguments: tuple[object, ...]):
    log.info(*arguments)
    (line,) = output.getvalue().splitlines()
    assert line.isascii()
    assert line.isprintable()
    assert "\\n2026" in line


def test_objects_are_escaped_and_numbers_are_formatted(output: io.StringIO):
    log.info("%s %d %.1f %s", ValueError(FORGED), 3, 0.25, None)
    (line,) = output.getvalue().splitlines()
    assert line.endswith(" 3 0.2 None")
    assert line.isprintable()


def test_a_traceback_is_indented_so_that_it_forges_no_line(output: io.StringIO):
    try:
        raise ValueError(FORGED)
    except ValueError:
        log.exception("failed")
    log.error("stack:%s", Lines(FORGED))
    lines = output.getvalue().splitlines()
    own = [line for line in lines if not line.startswith("    ")]
    assert len(own) == 2
    assert len(lines) > 5
    assert all(line.isascii() and line.isprintable() for line in lines)


def test_bytes_in_the_lines_of_libraries_are_left_out(output: io.StringIO):
    """gRPC logs metadata that is not UTF-8, and that may be a key."""
    foreign.error("Invalid encoding on %s", b"Bearer secret\xff")
    assert "secret" not in output.getvalue()
    assert "<14 bytes>" in output.getvalue()


def test_messages_of_exceptions_in_the_lines_of_libraries_are_left_out(output: io.StringIO):
    try:
        try:
            raise ValueError("invalid header: Bearer secret")
        except ValueError as error:
            raise RuntimeError("secret") from error
    except RuntimeError:
        foreign.exception("failed")
    assert "secret" not in output.getvalue().replace('"invalid header: Bearer secret"', "").replace('"secret"', "")
    assert "ValueError" in output.getvalue()
    assert "RuntimeError" in output.getvalue()


def test_long_arguments_are_cut():
    assert len(escaped("x" * 100_000)) < 400
    assert len(escaped("\U0001f600" * 100_000)) < 400


def test_a_kind_of_line_is_written_at_a_bounded_rate(output: io.StringIO, clock: Clock):
    for _ in range(10_000):
        log.info("refused: %s", "x")
    log.info("something else")
    lines = output.getvalue().splitlines()
    assert len(lines) == 102
    assert lines[-2].endswith(" WARNING mynah.service 9900 log lines were left out: too many of a kind, or too long")
    assert lines[-1].endswith("something else")
    clock.now_s += 1.0
    for _ in range(100):
        log.info("refused: %s", "x")
    assert len(output.getvalue().splitlines()) == 102 + 10


def test_a_flood_of_all_kinds_stays_below_a_megabyte_a_minute(clock: Clock):
    written = io.StringIO()
    handler = SafeHandler(written, clock)
    for number in range(6000):
        clock.now_s += 0.01
        for level in (logging.INFO, logging.ERROR):
            text = (f"kind {number} %s", ("\U0001f600" * 1000,))
            handler.handle(logging.LogRecord("mynah.test", level, __file__, 1, *text, None))
    assert 300_000 < len(written.getvalue()) < 1_000_000


def test_a_flood_of_infos_does_not_hide_an_error(output: io.StringIO):
    for number in range(5000):
        log.info(f"kind {number} %s", "x" * 300)
    log.error("the engine failed")
    assert output.getvalue().splitlines()[-1].endswith("the engine failed")


@pytest.fixture
def json_output(output: io.StringIO, clock: Clock) -> io.StringIO:
    """What is written as JSON by the same loggers."""
    written = io.StringIO()
    for logger in (log, foreign):
        logger.handlers = [SafeHandler(written, clock, log_format="json")]
    return written


def test_json_lines_are_objects_whose_strings_are_safe_when_decoded(json_output: io.StringIO):
    try:
        raise ValueError(FORGED)
    except ValueError:
        log.exception("failed on %s", FORGED)
        foreign.exception(FORGED)
    log.error("stack:%s", Lines(FORGED))
    write_event(log, "stream ended", {"peer": FORGED, "audio_s": float("nan"), "voice_id": None, "count": 3})
    lines = json_output.getvalue().splitlines()
    assert len(lines) == 4
    assert all(line.isascii() and line.isprintable() for line in lines)
    decoded = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    for each in decoded:
        assert each["message"].isprintable()
        assert each["message"].isascii()
        assert all(part.isascii() and part.isprintable() for part in each.get("detail", "").splitlines())
    assert "ValueError" in decoded[0]["detail"]
    assert "forged" not in decoded[1]["detail"]
    assert decoded[2]["message"] == "stack:"
    event = decoded[3]
    assert (event["audio_s"], event["count"]) == ("nan", 3)
    assert "voice_id" not in event
    assert event["peer"] == escaped(FORGED)


def test_the_values_of_an_event_forge_neither_a_line_nor_another_value(output: io.StringIO):
    write_event(log, "voice created", {"voice_id": 'a key="b', "peer": FORGED, "key": "", "audio_s": 0.5})
    (line,) = output.getvalue().splitlines()
    assert line.isprintable()
    assert 'voice created voice_id="a key=\\"b" peer="x' in line
    assert line.endswith(' key="" audio_s=0.5')


def test_json_lines_are_limited_as_text_is_and_those_of_an_audit_are_whole(json_output: io.StringIO):
    for number in range(500):
        log.info("refused: %s", "x")
        write_event(log, "stream opened", {"stream_id": str(number)})
        write_event(log, "voice created", {"voice_id": str(number)}, audit=True)
    written = [json.loads(line)["message"] for line in json_output.getvalue().splitlines()]
    assert written.count("refused: x") == written.count("stream opened") == 100
    assert written.count("voice created") == 500
    assert "2 log lines were left out: too many of a kind, or too long" in written


def test_an_audit_is_whole_when_the_bytes_of_other_lines_are_used_up(clock: Clock):
    written = io.StringIO()
    handler = SafeHandler(written, clock, burst_bytes=1000, bytes_per_s=0)
    log.handlers = [handler]
    try:
        for number in range(100):
            log.info("kind %d %s" % (number, "x" * 100))  # noqa: UP031 - each a kind of its own
            write_event(log, "voice deleted", {"voice_id": str(number)}, audit=True)
    finally:
        log.handlers = []
    assert written.getvalue().count("voice deleted") == 100
    assert written.getvalue().count("kind ") < 10
