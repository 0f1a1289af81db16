"""`make first-run`: a newcomer's first ten minutes. Runs the README's own blocks in a clean clone.

As an ordinary user (root becomes `nobody`), with an empty home, in an empty folder. Package caches are kept between
runs in --cache. A comment before a block of a document says what is special about it:

    <!-- first run: stays, until A and B --> runs until it has printed A and B, and stays for the blocks after it
    <!-- first run: skipped, REASON -->      needs what a newcomer's machine may lack
    <!-- first run: file NAME -->            is saved as NAME, and the blocks after it may run it
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/running.md")
_NOBODY = 65534
_NOTE = r"(?:<!-- first run: (?P<note>[^\n]*?) -->\n)?"
_BLOCK = re.compile(_NOTE + r"```(?P<language>sh|python)\n(?P<code>.*?)```", re.DOTALL)
# Words that a newcomer should not meet in what the commands print.
_NOISE = re.compile(r"Traceback|Warning|\bWARN|\bERROR\b|\[notice\]|deprecated|Exception ignored", re.IGNORECASE)
_PASSED_ON = re.compile(r"(PIP_|UV_|SSL_|REQUESTS_|http_proxy|https_proxy|no_proxy).*|LANG|LC_ALL|TZ", re.IGNORECASE)
_TIMEOUT_S = 1800.0  # of a block
_PORTS = (50051, 8080, 7860)  # of `make serve`: gRPC, HTTP and the page


class Failed(Exception):
    """A block did not do what it promises; the message says which one and how."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    code: str
    note: str = ""

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass
class Newcomer:
    """An ordinary user with an empty home, and the clone's folder."""

    home: Path
    clone: Path
    cache: Path
    python: str
    identity: dict[str, Any] = field(default_factory=dict)  # arguments of subprocess.Popen

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)}
        caches = {"PIP_CACHE_DIR": str(self.cache / "pip"), "UV_CACHE_DIR": str(self.cache / "uv")}
        path = os.pathsep.join(["/usr/local/bin", "/usr/bin", "/bin"])
        return {**kept, **caches, "HOME": str(self.home), "PATH": path, "PYTHON": self.python, "OMP_NUM_THREADS": "1"}

    def start(self, command: str, output: Any) -> subprocess.Popen[bytes]:
        """Start a shell command in the clone, in a process group of its own."""
        return subprocess.Popen(
            ["sh", "-e", "-c", command],
            cwd=self.clone, env=self.environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True, **self.identity,
        )  # fmt: skip

    def run(self, command: str) -> tuple[int, str]:
        """Run a shell command. Returns its status and what it printed."""
        with tempfile.TemporaryFile() as output:
            with _ended(self.start(command, output)) as process:
                status = process.wait(_TIMEOUT_S)
            output.seek(0)
            return status, output.read().decode(errors="replace")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path("/var/tmp/mynah-first-run"), help="package caches")
    parser.add_argument("--python", help="the newcomer's Python (default: the first suitable one on the system's path)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    began_s = time.monotonic()
    try:
        check_ports_are_free(_PORTS)
        arguments.cache.mkdir(parents=True, exist_ok=True)
        # beside the caches, on one file system: packages are linked into environments instead of copied
        with tempfile.TemporaryDirectory(prefix="run-", dir=arguments.cache, ignore_cleanup_errors=True) as folder:
            walk(_arrive(Path(folder), arguments.cache, arguments.python or _system_python()))
        check_ports_are_free(_PORTS)
    except Failed as error:
        sys.exit(f"first run: {error}")
    except subprocess.TimeoutExpired as error:
        sys.exit(f"first run: this did not end within {_TIMEOUT_S:g} s: {error.cmd[-1]}")
    used = os.times()
    used_s = used.children_user + used.children_system
    _say(f"took {time.monotonic() - began_s:.0f} s, {used_s:.0f} s of processor time")


def check_ports_are_free(ports: Sequence[int]) -> None:
    """Raises Failed if a program listens on one of this machine's ports, which the documents' commands name."""
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that were closed do not count
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise Failed(f"port {port} of this machine is in use ({error.strerror}); stop what uses it") from None


def check_page(address: str) -> None:
    """Raises Failed unless the page is served there."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # not by way of a proxy
    try:
        with opener.open(address, timeout=60) as answer:
            page = answer.read().decode(errors="replace")
    except OSError as error:
        raise Failed(f"the page at {address} does not answer: {error}") from None
    if "Mynah" not in page or "<script" not in page:
        raise Failed(f"what {address} serves is not the page: {page[:200]!r}")


def walk(newcomer: Newcomer) -> None:
    """Run every block in order, then what a newcomer does next. Raises Failed at the first that fails."""
    ran = 0
    with ExitStack() as staying:
        for block in (block for page in PAGES for block in blocks_of(page, (newcomer.clone / page).read_text())):
            kind, _, detail = block.note.partition(" ")
            began_s = time.monotonic()
            match kind.rstrip(","):
                case "skipped":
                    _say(f"{block.name} skipped: {detail}")
                    continue
                case "stays":
                    staying.enter_context(_staying(newcomer, block, detail.removeprefix("until ")))
                    if "mynah-page: open" in detail:
                        check_page(f"http://127.0.0.1:{_PORTS[-1]}/")
                case "file":
                    (newcomer.clone / detail).write_text(block.code)
                case "":
                    run_block(newcomer, block)
                case _:
                    raise Failed(f"{block.name}: the note {block.note!r} is not one of stays, skipped and file")
            ran += 1
            _say(f"{block.name} ran in {time.monotonic() - began_s:.0f} s")
        again = next(block for block in blocks_of("README.md", (newcomer.clone / "README.md").read_text())
                     if "mynah voices create" in block.code)  # fmt: skip
        run_block(newcomer, again)
        _say(f"{again.name} ran a second time")
        _serve_twice(newcomer)
    _install_the_client_alone(newcomer)
    print(f"{ran} passed", flush=True)


def blocks_of(page: str, text: str) -> Iterator[Block]:
    """The blocks of a document that are commands or Python."""
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("code")) + 1
        yield Block(page, line, found["language"], found["code"], found["note"] or "")


def run_block(newcomer: Newcomer, block: Block) -> None:
    """Run a block and check that it ends well and prints no noise. Raises Failed."""
    if block.language != "sh":
        raise Failed(f"{block.name} is Python without the note `first run: file NAME`")
    status, output = newcomer.run(block.code)
    if status != 0:
        raise Failed(f"{block.name} ended with status {status}:\n{block.code}\n{output}")
    _check_quiet(block, output)


def _check_quiet(block: Block, output: str) -> None:
    if noise := [line for line in output.splitlines() if _NOISE.search(line)]:
        raise Failed(f"{block.name} printed noise:\n" + "\n".join(noise))


@contextmanager
def _staying(newcomer: Newcomer, block: Block, until: str) -> Iterator[None]:
    """Run a block until it has printed `until`; at the end interrupt it as a terminal does. Raises Failed."""
    path = newcomer.home / f"stays-{block.line}.log"
    with path.open("wb") as output, _ended(newcomer.start(block.code, output)) as process:
        deadline_s = time.monotonic() + _TIMEOUT_S
        while not all(text in path.read_text(errors="replace") for text in until.split(" and ")):
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise Failed(f"{block.name} did not print {until!r}:\n{path.read_text(errors='replace')}")
            time.sleep(0.2)
        printed = len(path.read_bytes())
        yield
        os.killpg(process.pid, signal.SIGINT)
        process.wait(_TIMEOUT_S)
        _check_quiet(block, path.read_text(errors="replace"))
        last = path.read_bytes()[printed:].decode(errors="replace").splitlines()
        stopped = [line for line in last if "Interrupt" in line or "stopping" in line]
        if len(stopped) > 1:
            raise Failed(f"{block.name}: Ctrl-C printed more than one line:\n" + "\n".join(stopped))


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """The process, and at the end none of its group."""
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _serve_twice(newcomer: Newcomer) -> None:
    status, output = newcomer.run("make -s serve")
    if status == 0 or "make serve LISTEN=" not in output or "Traceback" in output:
        raise Failed(f"a second `make serve` ended with status {status} and did not name LISTEN=:\n{output}")
    _say("a second make serve named LISTEN=")


def _install_the_client_alone(newcomer: Newcomer) -> None:
    """`pip install ./protos` is the client; a server without an extra names the extra."""
    base = newcomer.home / "base"
    status, output = newcomer.run(
        f"{newcomer.python} -m venv {base} && {base}/bin/python -m pip install --quiet ./protos"
        f" && {base}/bin/mynah --help"
    )
    if status != 0:
        raise Failed(f"pip install ./protos ended with status {status}:\n{output}")
    status, output = newcomer.run(f"{base}/bin/python -m pip install --quiet .")
    if status != 0:
        raise Failed(f"pip install . ended with status {status}:\n{output}")
    for command in ("mynah-serve", "mynah-engines bench"):
        status, output = newcomer.run(f"{base}/bin/{command}")
        if status == 0 or "'mynah-speech-server[cpu]'" not in output or len(output.splitlines()) != 1:
            raise Failed(f"{command} after `pip install .` ended with status {status} and this:\n{output}")
    _say("pip install ./protos installed the client, and mynah-serve without an extra named it")


def _arrive(folder: Path, cache: Path, python: str) -> Newcomer:
    """A newcomer whose home and clone are in the empty `folder`. The clone has what is committed."""
    home, clone = folder / "home", folder / "mynah"
    # a CI's user need not own the checkout
    git = ["git", "-c", f"safe.directory={ROOT}", "-c", f"safe.directory={ROOT}/.git"]
    subprocess.run([*git, "clone", "--quiet", "--no-hardlinks", str(ROOT), str(clone)], check=True)
    for path in (home, cache):
        path.mkdir(parents=True, exist_ok=True)
    (home / ".curlrc").write_text("fail\nsilent\nshow-error\n")
    if os.getuid() != 0:
        return Newcomer(home, clone, cache, python)
    folder.chmod(0o755)
    for path in (home, clone, cache):
        if path.stat().st_uid != _NOBODY:
            subprocess.run(["chown", "-R", f"{_NOBODY}:{_NOBODY}", str(path)], check=True)
    return Newcomer(home, clone, cache, python, {"user": _NOBODY, "group": _NOBODY, "extra_groups": []})


def _system_python() -> str:
    """A Python 3.11 or 3.12 that every user may run."""
    for name in ("python3", "python3.12", "python3.11"):
        if found := shutil.which(name, path="/usr/local/bin:/usr/bin:/bin"):
            version = subprocess.run([found, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True)
            if version.stdout.split() in ([b"3", b"11"], [b"3", b"12"]):
                return found
    raise Failed("no Python 3.11 or 3.12 is in /usr/local/bin or /usr/bin; name one with --python")


def _say(line: str) -> None:
    print(f"first run: {line}", flush=True)


if __name__ == "__main__":
    main()
