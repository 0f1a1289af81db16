"""`mynah-engines`: exports, builds, prepares, checks, profiles and measures what an engine runs on."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from engines.errors import EngineError

# command: its module in this package, which is imported when the command runs, and its function there
COMMANDS = {
    "export": ("export", "export"),
    "build": ("export", "build"),
    "prepare": ("prepare", "prepare"),
    "check": ("measure", "check"),
    "profile": ("measure", "profile"),
    "bench": ("measure", "bench"),
    "plan": ("plan", "plan"),
    "validate": ("measure", "checklist"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status: 0, 1 for a failed check or an error, 2 for wrong arguments."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    if not args or args[0] not in COMMANDS:
        asked = args[:1] in (["-h"], ["--help"])
        print(f"usage: mynah-engines {{{' | '.join(COMMANDS)}}} [--help]", file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    module, function = COMMANDS[args[0]]
    try:
        return getattr(importlib.import_module(f"engines.tools.{module}"), function)(args[1:]) or 0
    except EngineError as error:
        print(f"mynah-engines {args[0]}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        what = f"{error.filename or 'a file'} cannot be read or written: {error.strerror or error}."
        print(f"mynah-engines {args[0]}: {what} Name folders that can be written and have room.", file=sys.stderr)
        return 1
