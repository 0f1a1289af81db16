"""The limit on open files: raised at start, and shared among the ports."""

from __future__ import annotations

import subprocess
import sys

import pytest

from service.access.descriptors import connections


@pytest.mark.parametrize("limit", [512, 1024, 20_000, 1_048_576])
def test_the_ports_together_stay_below_the_limit(limit: int):
    shares = connections(limit)
    assert shares.http + shares.grpc + shares.admin < limit
    assert min(shares.http, shares.grpc, shares.admin) >= 32


def test_the_limit_is_raised_to_the_hard_one():
    code = "from service.access.descriptors import raise_limit; import resource; print(raise_limit()); "
    code += "print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    shell = 'ulimit -Sn 300; ulimit -Hn 600; exec "$@"'
    command = ["sh", "-c", shell, "sh", sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["600", "600", "600"]
