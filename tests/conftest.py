"""What holds for every test process."""

import ctypes
import gc
import os
import signal
from collections import defaultdict
from collections.abc import Iterator

import pytest

from tests import slow_tests

# Read once, when torch loads: its workers sleep while they wait instead of spinning on cores that others need.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A server that a test starts keeps no voices in the home of the person who runs the test.
os.environ["MYNAH_VOICES_DIR"] = "memory"
# Nor does it measure itself at its start: what it would choose depends on how busy the machine is.
os.environ["MYNAH_STRICT_REFERENCE"] = "on"

# A script starts its background jobs with SIGINT ignored, and all that they start inherits that. Tests interrupt what
# they start, so `pytest &` has the handler of `pytest`, which no child inherits.
signal.signal(signal.SIGINT, signal.default_int_handler)

# glibc raises its threshold for mapped blocks with every large block that is freed, up to 32 MB, and keeps an arena per
# thread: the weights of nets that are gone then stay as holes in the heap. Fixed limits return them to the system.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
if hasattr(_libc := ctypes.CDLL(None), "mallopt"):
    _libc.mallopt(_M_MMAP_THRESHOLD, 1 << 20)
    _libc.mallopt(_M_ARENA_MAX, 2)

_FULL_SIZE = ("tests/reference", "tests/speech")
_ONE_WORKER = ("tests/speech",)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="leave out the tests that tests/slow.txt lists")
    parser.addoption("--record-slow", action="store_true", help="write tests/slow.txt anew from this run")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("record_slow") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(slow_tests.Recorder(), "slow-tests-recorder")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    slow = slow_tests.read()
    if config.getoption("fast"):
        config.hook.pytest_deselected(items=[item for item in items if slow_tests.is_slow(item.nodeid, slow)])
        items[:] = [item for item in items if not slow_tests.is_slow(item.nodeid, slow)]
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item.nodeid)))
    seconds: defaultdict[str, float] = defaultdict(float)
    for name, taken_s in slow.items():
        seconds[_group(name)] += taken_s
    items.sort(key=lambda item: -seconds[_group(item.nodeid)])


def _group(nodeid: str) -> str:
    """What one worker runs: a file, or a folder whose files share what takes long to make."""
    file = nodeid.partition("::")[0]
    return next((folder for folder in _ONE_WORKER if file.startswith(folder)), file)


@pytest.fixture(autouse=True, scope="module")
def _memory_of_full_size_nets_is_returned(request: pytest.FixtureRequest) -> Iterator[None]:
    """They would otherwise stay, as cycles and as holes in the heap, beside those of the next module."""
    yield
    if request.node.nodeid.startswith(_FULL_SIZE):
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
