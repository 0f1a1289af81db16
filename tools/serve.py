"""`make serve`: a server and its page, started and ended as one."""

from __future__ import annotations

import argparse
import asyncio
import errno
import socket
import sys

from tools import children

_VARIABLES = {"LISTEN": "gRPC", "HTTP": "HTTP", "PAGE": "the page"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="auto", help="see mynah-serve (default: auto)")
    parser.add_argument("--page-python", required=True, help="the Python interpreter of the page")
    for name, use in _VARIABLES.items():
        parser.add_argument(f"--{name.lower()}", required=True, metavar="HOST:PORT", help=f"address of {use}")
    arguments = parser.parse_args()
    addresses = {name: getattr(arguments, name.lower()) for name in _VARIABLES}
    if taken := [name for name, address in addresses.items() if not is_free(address)]:
        sys.exit(_taken_message(addresses, taken))
    sys.exit(children.run(serve(arguments)))


async def serve(arguments: argparse.Namespace) -> int:
    """Keep both up until a signal, or until one of them ends. Returns the status of the one that ended."""
    page = (arguments.page_python, "-m", "ui", "--server", arguments.listen, "--listen", arguments.page)
    addresses = ("--listen", arguments.listen, "--http-listen", arguments.http)
    server = (sys.executable, "-m", "service.launch", "--model", arguments.model, *addresses)
    async with children.child(*server) as serving, children.child(*page) as showing:
        ends = [asyncio.ensure_future(process.wait()) for process in (serving, showing)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not ends[0].done():
            print("make serve: the page has ended, so the server is stopped.", file=sys.stderr)
        return next(end.result() for end in ends if end.done())


def is_free(address: str) -> bool:
    """Whether no program listens on HOST:PORT. What else is wrong with an address its own program says better."""
    host, _, port = address.rpartition(":")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host.strip("[]"), int(port)))
    except OSError as error:
        return error.errno != errno.EADDRINUSE
    except ValueError:
        return True
    return True


def _taken_message(addresses: dict[str, str], taken: list[str]) -> str:
    several = len(taken) > 1
    named = ", ".join(f"{addresses[name]} ({_VARIABLES[name]})" for name in taken)
    others = " ".join(f"{name}={_next_free(addresses[name])}" for name in taken)
    return (
        f"make serve: {named} {'are' if several else 'is'} in use, perhaps by another make serve. Stop that, or choose "
        f"{'other addresses' if several else 'another address'}: make serve {others}"
    )


def _next_free(address: str) -> str:
    host, _, port = address.rpartition(":")
    return next(other for number in range(int(port) + 1, 65536) if is_free(other := f"{host}:{number}"))


if __name__ == "__main__":
    main()
