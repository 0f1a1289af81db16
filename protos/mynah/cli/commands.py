"""The commands `mynah say`, `voices`, `health` and `info`. Audio and lists go to files and standard output, messages
to standard error."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

from mynah.cli.audio_sinks import STDOUT, format_of, free_name, open_sink
from mynah.cli.batch.command import batch
from mynah.cli.info import info_lines
from mynah.cli.player import find_player, make_player
from mynah.cli.reporter import NullReporter, ProgressReporter, print_note
from mynah.cli.stdin import fragments
from mynah.cli.text_settings import text_settings
from mynah.cli.voice_report import described
from mynah.client.client import Client
from mynah.client.errors import InvalidArgument, Unavailable
from mynah.client.events import AudioChunk, Voice
from mynah.client.settings import Sampling, Tls
from mynah.client.stream import SpeechStream
from mynah.client.stream_stats import StreamStats
from mynah.client.subtitles import Subtitles, subtitle_format

STDIN = "-"  # as the text


async def execute(args: argparse.Namespace) -> None:
    """Run one command. Raises MynahError, OSError, ValueError."""
    has_details = args.ca or args.cert or args.server_name
    details = Tls(args.ca, args.server_name, certificate=args.cert, key=args.cert_key)
    tls = details if has_details else args.tls
    connect = partial(Client, tls=tls, api_key=_api_key(args.api_key_file))
    if args.command == "batch":
        await batch(args, connect)
        return
    if args.command == "say":
        _check_say(args)
    async with connect(args.server) as client:
        if args.command == "say":
            await _say(client, args)
        elif args.command == "health":
            await _health(client, args.service)
        elif args.command == "info":
            await _info(client)
        else:
            await _voices(client, args)


def _api_key(file: Path | None) -> str | None:
    return file.read_text().strip() if file else os.environ.get("MYNAH_API_KEY")


def _check_say(args: argparse.Namespace) -> None:
    """Raises InvalidArgument for what cannot work, before anything is connected or written."""
    if args.text != STDIN and not args.text.strip():
        raise _nothing_to_speak()
    if format_of(args.output) != "pcm_s16le" and args.play:
        message = f"--play works without -o and with a .wav or .pcm file, not with {args.output}."
        raise InvalidArgument(message, reason="OUTPUT_NAME_INVALID", field="output", value=args.output)
    if args.subtitles is not None:
        subtitle_format(args.subtitles)


async def _say(client: Client, args: argparse.Namespace) -> None:
    player_name = find_player() if args.play else None
    output = args.output or (None if args.play else free_name(Path()))
    sampling = Sampling(
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        repetition_penalty=args.repetition_penalty,
        min_p=args.min_p,
        seed=args.seed,
    )
    stream = client.stream(
        voice=args.voice,
        sample_rate_hz=args.rate,
        audio_format=format_of(output),
        sampling=sampling,
        text_settings=text_settings(args),
        speed=args.speed,
        first_segment=args.first_segment,
        schedule=args.schedule,
        word_times=True if args.subtitles is not None else None,
        word_guard=args.word_guard,
        continuity=args.continuity,
        language=args.language,
        cfg_weight=args.cfg_weight,
        exaggeration=args.exaggeration,
        model=args.model,
    )
    reporter = NullReporter() if args.quiet else ProgressReporter()
    async with stream:
        rate_hz = stream.opened.settings.sample_rate_hz
        assert rate_hz is not None
        reporter.opened(stream)
        stats, subtitles = StreamStats(rate_hz), Subtitles(rate_hz)
        with open_sink(output, rate_hz) as sink:
            async with make_player(player_name, rate_hz) as player:

                def write(chunk: AudioChunk) -> None:
                    sink.write(chunk)
                    player.write(chunk.data)

                await _speak(stream, args.text, write, stats, reporter, subtitles)
    if args.subtitles is not None:
        _write_subtitles(subtitles, args.subtitles)
    reporter.finished(stats, "standard output" if output == STDOUT else output or f"played with {player_name}")


def _write_subtitles(subtitles: Subtitles, path: str) -> None:
    Path(path).write_text(subtitles.in_format(subtitle_format(path)), encoding="utf-8")


async def _speak(
    stream: SpeechStream,
    text: str,
    write: Callable[[AudioChunk], None],
    stats: StreamStats,
    reporter: NullReporter,
    subtitles: Subtitles,
) -> None:
    """Send and receive at the same time. If one fails, the other is cancelled."""
    try:
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(_send(stream, text, stats))
            async for event in stream.events():
                subtitles.add(event)
                if isinstance(event, AudioChunk):
                    stats.chunk_received(event, time.monotonic())
                    write(event)
                    reporter.progress(stats)
            sending.cancel()  # the server has ended the stream
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    if not stats.samples:
        raise _nothing_to_speak()


def _nothing_to_speak() -> InvalidArgument:
    return InvalidArgument("The text contains nothing to speak; send some words.", reason="TEXT_EMPTY", field="text")


async def _send(stream: SpeechStream, text: str, stats: StreamStats) -> None:
    async for fragment in fragments() if text == STDIN else _single(text):
        if fragment.strip():
            stats.text_sent(time.monotonic())
        await stream.send_long(fragment)
    await stream.end()


async def _single(text: str) -> AsyncIterator[str]:
    yield text


async def _health(client: Client, service: str) -> None:
    if not await client.health(service):
        message = "The server answers, but it accepts no streams now."
        raise Unavailable(message, reason="NOT_SERVING", retry_after_s=1.0)
    print("SERVING")


async def _info(client: Client) -> None:
    for line in info_lines(await client.info()):
        print(line)


async def _voices(client: Client, args: argparse.Namespace) -> None:
    if args.action == "create":
        audio = Path(args.audio)
        voice = await client.voices.create(
            args.name,
            audio,
            consent=args.consent,
            voice_id=args.id,
            normalize_loudness=not args.keep_loudness,
            keep_recording=args.keep_recording,
            model=args.model,
        )
        print(voice.voice_id)
        for line in described(voice, audio):
            print_note(line)
    elif args.action == "list":
        for line in table(await client.voices.list(), header=not args.no_header):
            print(line)
    else:
        await client.voices.delete(args.voice)
        print_note(f"deleted voice {args.voice}")


def table(voices: list[Voice], *, header: bool) -> list[str]:
    """Returns lines of three columns. The name comes last, because it may contain spaces."""
    rows = [("ID", "CREATED", "NAME")] if header else []
    rows += [
        (voice.voice_id, voice.created.isoformat() if voice.created else "built-in", voice.name) for voice in voices
    ]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return [f"{voice_id:{widths[0]}}  {created:{widths[1]}}  {name}" for voice_id, created, name in rows]
