"""The `mynah` command: arguments, exit statuses and error messages."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mynah.cli.batch.arguments import add_batch_arguments
from mynah.cli.interrupts import SignalHandler
from mynah.client.errors import InvalidArgument, MynahError, NotAllowed, NotFound, ServerBusy, Unavailable, WrongState

EXIT_OK = 0
EXIT_FAILED = 1  # the server or this side failed
EXIT_USAGE = 2  # the request can never succeed
EXIT_TRY_LATER = 3  # no server, or no room
EXIT_BROKEN_PIPE = 141  # standard output was closed; after a signal the status is 128 plus its number


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point of the console script; exits with one of the statuses above."""
    signals = SignalHandler()
    status = run(parser().parse_args(arguments), signals)
    signals.exit_if_signalled()
    sys.exit(status)


def run(args: argparse.Namespace, signals: SignalHandler) -> int:
    """Run one command and return its exit status."""
    import asyncio

    from mynah.cli import commands  # imports gRPC, which --help does not need

    try:
        asyncio.run(signals.run(commands.execute(args)))
        sys.stdout.flush()
    except MynahError as error:
        print(f"mynah: {_error_line(error, args.server)}", file=sys.stderr)
        return _status(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's flush at exit
        return EXIT_BROKEN_PIPE
    except (OSError, ValueError) as error:
        print(f"mynah: {error}", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_OK


def _error_line(error: MynahError, server: str) -> str:
    if isinstance(error, Unavailable) and error.reason == "UNAVAILABLE":  # from gRPC, not from a Mynah server
        return f"No Mynah server answers at {server}: {error}"
    message = str(error)
    if error.retryable and not any(word in message for word in ("again", "retry", "Retry")):
        message = f"{message.removesuffix('.')}. Try again later."
    return f"{message} [{error.reason}]"


def _status(error: MynahError) -> int:
    if isinstance(error, InvalidArgument | NotAllowed | NotFound | WrongState):
        return EXIT_USAGE
    if isinstance(error, Unavailable | ServerBusy) and error.retryable:
        return EXIT_TRY_LATER
    return EXIT_FAILED


def parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands."""
    top = argparse.ArgumentParser(prog="mynah", description="Speak text with a Mynah server.", allow_abbrev=False)
    server = "the server (default %(default)s); for batch also several, separated by commas"
    top.add_argument("--server", default="127.0.0.1:50051", metavar="HOST:PORT", help=server)
    top.add_argument("--tls", action="store_true", help="use TLS and trust the system's certificates")
    top.add_argument("--ca", type=Path, metavar="FILE", help="use TLS and trust the certificates in this PEM file")
    top.add_argument(
        "--cert", type=Path, metavar="FILE", help="this client's certificate (PEM) for mutual TLS; needs --cert-key"
    )
    top.add_argument("--cert-key", type=Path, metavar="FILE", help="the private key (PEM) of --cert")
    key_help = "file with the API key (default: the environment variable MYNAH_API_KEY)"
    top.add_argument("--api-key-file", type=Path, metavar="FILE", help=key_help)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_say(commands.add_parser("say", help="speak text into an audio file", allow_abbrev=False))
    add_batch_arguments(
        commands.add_parser("batch", help="speak many lines into a folder of audio files", allow_abbrev=False)
    )
    _add_voices(commands.add_parser("voices", help="create, list and delete voices", allow_abbrev=False))
    health = commands.add_parser(
        "health", help="check whether the server accepts streams; exit status 0 or 3", allow_abbrev=False
    )
    health.add_argument("--service", default="", help='"liveness" checks only whether the process works')
    commands.add_parser("info", help="show the server's model, formats and limits", allow_abbrev=False)
    return top


def _add_say(say: argparse.ArgumentParser) -> None:
    say.add_argument("text", help='the text; "-" reads standard input and speaks it as it arrives')
    where = (
        "output file: .wav, .mp3, .opus, .ogg, .webm, .flac, .aac, .ulaw, .alaw or .pcm; "
        '"-" writes WAV to standard output (default %(default)s)'
    )
    say.add_argument("-o", "--output", default="mynah.wav", metavar="FILE", help=where)
    say.add_argument("--voice", metavar="ID", help="voice id; see `mynah voices list` (default: the server's)")
    say.add_argument("--rate", type=int, metavar="HZ", help="sample rate (default: 24000, or 8000 for .ulaw and .alaw)")
    say.add_argument("--temperature", type=float, help="variation of the speech, 0 to 5 (default 0.8)")
    say.add_argument("--top-k", type=int, help="sample from the K likeliest speech tokens (default 1000; 0: all)")
    say.add_argument("--top-p", type=float, help="sample from this share of the probability (default 0.95; 1: all)")
    say.add_argument("--repetition-penalty", type=float, help="above 1: fewer repetitions (default 1.2; 1: off)")
    say.add_argument("--seed", type=int, help="the same seed, text and settings give the same speech (default: random)")
    say.add_argument("--quiet", action="store_true", help="print no progress and no summary")


def _add_voices(voices: argparse.ArgumentParser) -> None:
    actions = voices.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="create a voice from a recording", allow_abbrev=False)
    create.add_argument("audio", type=Path, help="audio file with more than 5 s of one speaker's voice")
    create.add_argument("--name", required=True, help="display name of the voice")
    create.add_argument("--id", help="id of the voice (default: chosen by the server)")
    create.add_argument(
        "--keep-loudness",
        action="store_true",
        help="use the recording as loud as it is (default: brought to -27 LUFS, as the model was trained)",
    )
    create.add_argument("--consent", action="store_true", help="confirm that the speaker agreed to this voice")
    actions.add_parser("list", help="list all voices", allow_abbrev=False)
    delete = actions.add_parser("delete", help="delete a voice", allow_abbrev=False)
    delete.add_argument("id", help="id of the voice")
