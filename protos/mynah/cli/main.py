"""The `mynah` command: arguments, exit statuses and error messages."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

from mynah.cli.batch.arguments import add_batch_arguments
from mynah.cli.interrupts import SignalHandler
from mynah.cli.text_settings import add_text_settings
from mynah.client.errors import InvalidArgument, MynahError, NotAllowed, NotFound, ServerBusy, Unavailable, WrongState
from mynah.client.settings import Schedule

_DASH_HINT = 'A text that begins with "-" goes behind "--": mynah say -- -Hello'

# of the contract's fields that an error may name
_OPTIONS = {
    f"{message}.{name}": f"--{name.replace('_', '-')}"
    for message, names in {
        "settings": ("cfg_weight", "exaggeration", "model", "speed", "schedule", "word_guard", "continuity"),
        "sampling": ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed"),
    }.items()
    for name in names
} | {"settings.language_code": "--language", "settings.sample_rate_hz": "--rate"}

EXIT_OK = 0
EXIT_FAILED = 1  # the server or this side failed
EXIT_USAGE = 2  # the request can never succeed
EXIT_TRY_LATER = 3  # no server, or no room
EXIT_BROKEN_PIPE = 141  # standard output was closed; after a signal the status is 128 plus its number


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point of the console script; exits with one of the statuses above."""
    _open_closed_streams()
    signals = SignalHandler()
    status = run(parser().parse_args(arguments), signals)
    signals.exit_if_signalled()
    sys.exit(status)


def _open_closed_streams() -> None:
    """Gives a process that was started with closed standard streams (`<&-`, or by a daemon) the null device for them.

    Python has None for such a stream, and the next file or socket would get its number.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


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
        print(f"mynah: {_local_error_line(error)}", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_OK


def _error_line(error: MynahError, server: str) -> str:
    if isinstance(error, Unavailable) and error.reason == "UNAVAILABLE":  # from gRPC, not from a Mynah server
        return f"No Mynah server answers at {server}: {error}"
    message = _with_option(error)
    if error.reason == "CONSENT_REQUIRED":
        message = "A voice may only be made if its speaker agreed: confirm that with --consent."
    if error.retryable and not any(word in message for word in ("again", "retry", "Retry")):
        message = f"{message.removesuffix('.')}. Try again later."
    return f"{message} [{error.reason}]"


def _with_option(error: MynahError) -> str:
    """The message with the option in place of the contract's field."""
    option = _OPTIONS.get(error.field)
    return str(error) if option is None else str(error).replace(error.field, option, 1)


def _local_error_line(error: OSError | ValueError) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk or the quota is full ({error}). Free some space, then run the same command again."
    if number == errno.EFBIG:
        return f"The file would be larger than this system allows ({error}). Raise the limit (ulimit -f)."
    if number == errno.EROFS:
        return f"The file system is read-only ({error}). Write to another folder."
    if number in (errno.EACCES, errno.EPERM):
        return f"This user may not use that file or folder ({error}). Choose another one, or change its permissions."
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename!r} cannot be used: {error.strerror}. Name a file that this command can open."
    return str(error)


def _status(error: MynahError) -> int:
    if isinstance(error, InvalidArgument | NotAllowed | NotFound | WrongState):
        return EXIT_USAGE
    if isinstance(error, Unavailable | ServerBusy) and error.retryable:
        return EXIT_TRY_LATER
    return EXIT_FAILED


def parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands."""
    top = argparse.ArgumentParser(prog="mynah", description="Speak text with a Mynah server.", allow_abbrev=False)
    _add_connection(top)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Command)
    _add_say(_command(commands, "say", "speak text into an audio file, or aloud", epilog=_DASH_HINT))
    batch = _command(commands, "batch", "speak many lines into a folder of audio files")
    add_batch_arguments(batch)
    _add_speed(batch)
    _add_model_settings(batch)
    add_text_settings(batch)
    _add_word_guard(batch)
    _add_continuity(batch)
    _add_voices(commands.add_parser("voices", help="create, list and delete voices", allow_abbrev=False))
    health = _command(commands, "health", "check whether the server accepts streams; exit status 0 or 3")
    health.add_argument("--service", default="", help='"liveness" checks only whether the process works')
    _command(commands, "info", "show the server's model, formats and limits")
    return top


class _Command(argparse.ArgumentParser):
    """The parser of a subcommand. An error about a text that looks like an option says how to write it."""

    def error(self, message: str) -> NoReturn:
        hint = f" {_DASH_HINT}" if self.prog.endswith(" say") else ""
        super().error(f"{message}.{hint}" if hint else message)


class _Joined(argparse.Action):
    """Words become one text, as `echo` joins them."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        setattr(namespace, self.dest, " ".join(values))


def _command(commands: Any, name: str, description: str, **options: Any) -> argparse.ArgumentParser:
    """Adds a subcommand that takes the connection's options, too."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=description, allow_abbrev=False, **options)
    _add_connection(parser, default=argparse.SUPPRESS)  # what stands before the subcommand stays
    return parser


def _add_connection(parser: argparse.ArgumentParser, **overrides: Any) -> None:
    group = parser.add_argument_group("connection, before or after the command")

    def add(name: str, text: str, **options: Any) -> None:
        group.add_argument(name, help=text, **{**options, **overrides})

    server = "the server (default 127.0.0.1:50051); for batch also several, separated by commas"
    add("--server", server, default="127.0.0.1:50051", metavar="HOST:PORT")
    add("--tls", "use TLS and trust the system's certificates", action="store_true")
    add("--ca", "use TLS and trust the certificates in this PEM file", type=Path, metavar="FILE")
    name_help = (
        "use TLS; the name in the server's certificate, if it is not the address's (a forwarded port, a pod's IP)"
    )
    add("--server-name", name_help, metavar="HOST")
    add("--cert", "this client's certificate (PEM) for mutual TLS; needs --cert-key", type=Path, metavar="FILE")
    add("--cert-key", "the private key (PEM) of --cert", type=Path, metavar="FILE")
    key_help = "file with the API key (default: the environment variable MYNAH_API_KEY)"
    add("--api-key-file", key_help, type=Path, metavar="FILE")


def _add_say(say: argparse.ArgumentParser) -> None:
    text = 'the text, in one argument or several; "-" reads standard input and speaks it as it arrives'
    say.add_argument("text", nargs="+", action=_Joined, help=text)
    where = (
        "output file: .wav, .mp3, .opus, .ogg, .webm, .flac, .aac, .ulaw, .alaw or .pcm; "
        '"-" writes WAV to standard output (default: mynah.wav, or the next free of mynah-2.wav, mynah-3.wav, ...)'
    )
    say.add_argument("-o", "--output", metavar="FILE", help=where)
    say.add_argument("--play", action="store_true", help="play the speech while it is made; without -o, write no file")
    say.add_argument(
        "--voice", metavar="VOICE", help="id or name of a voice; see `mynah voices list` (default: the server's)"
    )
    say.add_argument("--rate", type=int, metavar="HZ", help="sample rate (default: 24000, or 8000 for .ulaw and .alaw)")
    _add_speed(say)
    first = "where the first sentence may be cut while standard input is still being written (default: auto)"
    say.add_argument("--first-segment", choices=("sentence", "clause", "auto"), help=first)
    _add_model_settings(say)
    say.add_argument("--temperature", type=float, help="variation of the speech, 0 to 5 (default: the model's)")
    say.add_argument("--top-k", type=int, help="sample from the K likeliest speech tokens (0: all)")
    say.add_argument("--top-p", type=float, help="sample from this share of the probability (1: all)")
    min_p = "drop speech tokens below this share of the likeliest one, 0 to 1; for models that have it"
    say.add_argument("--min-p", type=float, help=min_p)
    say.add_argument("--repetition-penalty", type=float, help="above 1: fewer repetitions (1: off)")
    say.add_argument("--seed", type=int, help="the same seed, text and settings give the same speech (default: random)")
    schedule = "how the audio is cut; with the seed it repeats every byte (default: the server's choice, by its load)"
    say.add_argument("--schedule", choices=get_args(Schedule), help=schedule)
    add_text_settings(say)
    subtitles = "file for subtitles, .srt or .vtt, with the times of the words"
    say.add_argument("--subtitles", metavar="FILE", help=subtitles)
    _add_word_guard(say)
    _add_continuity(say)
    say.add_argument("--quiet", action="store_true", help="print no progress and no summary")


def _add_speed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--speed", type=float, help="how fast the voice speaks, 0.5 to 2, at its pitch (default 1)")


def _add_model_settings(parser: argparse.ArgumentParser) -> None:
    language = "language of the text, e.g. de or pt-BR; `mynah info` lists those of the model (default: the server's)"
    parser.add_argument("--language", metavar="CODE", help=language)
    guidance = "how strongly the text guides the speech, 0 to 2; for models with guidance"
    parser.add_argument("--cfg-weight", type=float, help=guidance)
    exaggeration = "how lively the speech is, 0.25 to 2; for models that have it"
    parser.add_argument("--exaggeration", type=float, help=exaggeration)
    model = "model that speaks; `mynah info` lists those of the server (default: the first)"
    parser.add_argument("--model", metavar="NAME", help=model)


def _add_word_guard(parser: argparse.ArgumentParser) -> None:
    guard = "watch that the speech says its text, each word once (default: the server's choice)"
    parser.add_argument("--word-guard", action=argparse.BooleanOptionalAction, help=guard)


def _add_continuity(parser: argparse.ArgumentParser) -> None:
    continuity = "have each sentence's speech go on from that of the sentence before (default: it begins anew)"
    parser.add_argument("--continuity", action="store_const", const=True, help=continuity)


def _add_voices(voices: argparse.ArgumentParser) -> None:
    actions = voices.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = _command(actions, "create", "create a voice from a recording")
    create.add_argument("audio", type=Path, help="audio file with more than 5 s of one speaker's voice")
    create.add_argument("--name", required=True, help="display name of the voice")
    create.add_argument("--id", help="id of the voice, in lower case (default: chosen by the server)")
    create.add_argument(
        "--keep-loudness",
        action="store_true",
        help="use the recording as loud as it is (default: brought to -27 LUFS, as the model was trained)",
    )
    keep = "have the server keep the recording, so that the voice can be made again from it for another model"
    create.add_argument("--keep-recording", action="store_true", help=keep)
    model = "model that the voice is made for; `mynah info` lists those of the server (default: the first)"
    create.add_argument("--model", metavar="NAME", help=model)
    create.add_argument("--consent", action="store_true", help="confirm that the speaker agreed to this voice")
    listing = _command(actions, "list", "list all voices")
    listing.add_argument("--no-header", action="store_true", help="leave out the line with the columns' names")
    delete = _command(actions, "delete", "delete a voice")
    delete.add_argument("voice", metavar="VOICE", help="id or name of the voice")
