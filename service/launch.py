"""The installed commands of a server: each runs its program, or says in one line what it lacks.

This module imports little, because the programs' imports take seconds in which Ctrl-C may come.
"""

from __future__ import annotations

import importlib
import signal
import sys

_OURS = {"engines", "mynah", "service"}
_SERVER = (
    "A server needs an extra: pip install 'mynah-speech-server[cpu]', or [gpu] for an NVIDIA GPU; in a clone of "
    "Mynah's repository: pip install ./protos '.[cpu]'."
)
_LOAD = (
    "The load generator needs an extra: pip install 'mynah-speech-server[load]'; in a clone of Mynah's repository: "
    "pip install ./protos '.[load]'."
)


def main() -> int | None:
    """Run `mynah-serve`. Returns 2 if a package is missing that an extra of Mynah installs."""
    return _run("mynah-serve", "service.__main__", _SERVER)


def engine_tools() -> int | None:
    """Run `mynah-engines`. Returns its exit status."""
    return _run("mynah-engines", "engines.tools.cli", _SERVER)


def load() -> int | None:
    """Run `mynah-load`. Returns its exit status."""
    return _run("mynah-load", "service.load.__main__", _LOAD)


def _run(command: str, module: str, extras: str) -> int | None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the program handles it: Python would print a traceback
    try:
        program = importlib.import_module(module).main
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in _OURS:
            raise
        print(
            f"{command}: the package {error.name.partition('.')[0]!r} is not installed. {extras}",
            file=sys.stderr,
        )
        return 2
    status: int | None = program()
    return status


if __name__ == "__main__":
    sys.exit(main())
