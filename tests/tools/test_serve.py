"""`make demo` and `make serve`: addresses that are taken, and what Ctrl-C does to the processes behind them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "protos")])}
# a child that reports the signals it gets and ends at the second one, and a parent that waits for it
CHILD = """
import signal, sys
signals = []
def report(number, _):
    signals.append(number)
    print(f"signal {len(signals)}", flush=True)
    if len(signals) == 2:
        sys.exit(0)
signal.signal(signal.SIGINT, report)
signal.signal(signal.SIGTERM, report)
print("ready", flush=True)
while True:
    signal.pause()
"""
PARENT = f"""
import sys
from tools import children

async def wait():
    async with children.child(sys.executable, "-c", {CHILD!r}) as process:
        await process.wait()

sys.exit(children.run(wait()))
"""


def test_a_taken_address_is_named_with_the_variable_to_set():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        addresses = ("--listen", address, "--http", "127.0.0.1:0", "--page", "127.0.0.1:0")
        command = [sys.executable, "-m", "tools.serve", "--page-python", "none", *addresses]
        ended = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False)
    assert ended.returncode == 1
    expected = rf"make serve: {re.escape(address)} \(gRPC\) is in use, .* make serve LISTEN=127\.0\.0\.1:\d+\n"
    assert re.fullmatch(expected, ended.stderr), ended.stderr
    assert not ended.stdout


def test_ctrl_c_reaches_a_child_once_and_a_second_one_again():
    command = [sys.executable, "-c", PARENT]
    pipe = subprocess.PIPE
    parent = subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=ENVIRONMENT, cwd=ROOT, start_new_session=True
    )
    with parent:
        assert parent.stdout is not None
        assert parent.stderr is not None
        for number in ("ready", "signal 1", "signal 2"):
            assert parent.stdout.readline() == f"{number}\n"
            if number != "signal 2":
                os.killpg(parent.pid, signal.SIGINT)  # what a terminal does
        assert parent.wait(timeout=60) == -signal.SIGINT
        assert parent.stderr.read() == ""


def test_an_error_of_the_work_is_not_swallowed():
    program = "from tools import children\nasync def fail(): raise SystemExit('It ended.')\nchildren.run(fail())"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (1, "It ended.\n")
