"""`python -m k8s.dashboards`: writes the Grafana dashboards as JSON into the monitoring component.

docs/metrics.md describes the metrics and has a picture of each board.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from k8s.dashboards.boards.callers import callers
from k8s.dashboards.boards.capacity import capacity
from k8s.dashboards.boards.engine import engine
from k8s.dashboards.boards.fleet import fleet
from k8s.dashboards.boards.gpu import gpu
from k8s.dashboards.boards.latency import latency
from k8s.dashboards.boards.slo import slo
from k8s.dashboards.boards.voices import voices

FOLDER = Path(__file__).parents[1] / "components" / "monitoring" / "dashboards"
DASHBOARDS = {
    "slo": slo, "latency": latency, "capacity": capacity, "callers": callers, "voices": voices, "engine": engine,
    "gpu": gpu, "fleet": fleet,
}  # fmt: skip


def write(folder: Path) -> None:
    """Writes all dashboards as FOLDER/NAME.json."""
    for name, make in DASHBOARDS.items():
        (folder / f"{name}.json").write_text(json.dumps(make(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
