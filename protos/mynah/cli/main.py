"""The `mynah` command: its arguments, its exit statuses and its words for errors."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mynah.cli.batch.arguments import add_batch_arguments
from mynah.cli.interrupts import Interrupts
from mynah.client.errors import InvalidArgument, MynahError, NotAllowed, NotFound, ServerBusy, Unavailable, WrongState

EXIT_OK = 0
EXIT_FAILED = 1  # the server failed, or something on this side did
EXIT_USAGE = 2  # what was asked for can never work
EXIT_TRY_LATER = 3  # no server there, or no room
EXIT_NOBODY_READS = 141  # standard output was closed; a signal leaves in the same way with 128 + its number


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script; leaves with one of the exit statuses above."""
    interrupts = Interrupts()
    status = run(parser().parse_args(arguments), interrupts)
    interrupts.leave()
    sys.exit(status)


def run(chosen: argparse.Namespace, interrupts: Interrupts) -> int:
    """One command; returns its exit status."""
    import asyncio

    from mynah.cli import commands  # gRPC comes with it; --help does not wait for that

    try:
        asyncio.run(interrupts.ending(commands.execute(chosen)))
        sys.stdout.flush()
    except MynahError as error:
        print(f"mynah: {_told(error, chosen.server)}", file=sys.stderr)
        return _status(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still wants to write there
        return EXIT_NOBODY_READS
    except (OSError, ValueError) as error:
        print(f"mynah: {error}", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_OK


def _told(error: MynahError, server: str) -> str:
    if isinstance(error, Unavailable) and error.reason == "UNAVAILABLE":  # gRPC's own: nobody answered
        return f"no Mynah server answers at {server}: {error}"
    again = "; trying again later may help" if error.retryable else ""
    return f"{error} [{error.reason}]{again}"


def _status(error: MynahError) -> int:
    if isinstance(error, InvalidArgument | NotAllowed | NotFound | WrongState):
        return EXIT_USAGE
    if isinstance(error, Unavailable | ServerBusy) and error.retryable:
        return EXIT_TRY_LATER
    return EXIT_FAILED


def parser() -> argparse.ArgumentParser:
    """All commands and their arguments."""
    top = argparse.ArgumentParser(prog="mynah", description="Speak through a Mynah server.", allow_abbrev=False)
    server = "default %(default)s; for batch perhaps several, with commas between"
    top.add_argument("--server", default="127.0.0.1:50051", metavar="HOST:PORT", help=server)
    top.add_argument("--tls", action="store_true", help="encrypt, trusting the system's certificates")
    top.add_argument("--ca", type=Path, metavar="FILE", help="encrypt, trusting the certificates in this PEM file")
    top.add_argument("--cert", type=Path, metavar="FILE", help="PEM certificate of this client, with --cert-key")
    top.add_argument("--cert-key", type=Path, metavar="FILE", help="its private key")
    key_help = "file that holds an API key; without it, the key is that of the variable MYNAH_API_KEY, if set"
    top.add_argument("--api-key-file", type=Path, metavar="FILE", help=key_help)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_say(commands.add_parser("say", help="speak a text into an audio file", allow_abbrev=False))
    add_batch_arguments(commands.add_parser("batch", help="speak a file of lines into a folder", allow_abbrev=False))
    _add_voices(commands.add_parser("voices", help="make, list and delete voices", allow_abbrev=False))
    health = commands.add_parser(
        "health", help="whether the server takes streams: exit status 0 or 3", allow_abbrev=False
    )
    health.add_argument("--service", default="", help='"liveness": whether the process works at all')
    commands.add_parser("info", help="show who speaks there, and its limits", allow_abbrev=False)
    return top


def _add_say(say: argparse.ArgumentParser) -> None:
    say.add_argument("text", help='what to say; "-" reads standard input and speaks while it is written')
    where = (
        'file to write: .wav, .mp3, .opus, .ogg, .webm, .flac, .aac, .ulaw, .alaw or .pcm; "-": WAV on standard output '
        "(default %(default)s)"
    )
    say.add_argument("-o", "--output", default="mynah.wav", metavar="FILE", help=where)
    say.add_argument("--voice", metavar="ID", help="a voice of `mynah voices list`")
    say.add_argument("--rate", type=int, metavar="HZ", help="sample rate, default 24000")
    say.add_argument("--temperature", type=float)
    say.add_argument("--top-k", type=int)
    say.add_argument("--top-p", type=float)
    say.add_argument("--repetition-penalty", type=float)
    say.add_argument("--seed", type=int, help="the same seed and text give the same speech")
    say.add_argument("--quiet", action="store_true", help="no progress and no summary")


def _add_voices(voices: argparse.ArgumentParser) -> None:
    actions = voices.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="make a voice from a recording", allow_abbrev=False)
    create.add_argument("audio", type=Path, help="audio file with more than 5 s of one speaker")
    create.add_argument("--name", required=True, help="the voice's name for people")
    create.add_argument("--id", help="the voice's id; default: made by the server")
    create.add_argument("--consent", action="store_true", help="the speaker agreed to having this voice made")
    actions.add_parser("list", help="list all voices", allow_abbrev=False)
    delete = actions.add_parser("delete", help="forget a voice", allow_abbrev=False)
    delete.add_argument("id", help="its id")
