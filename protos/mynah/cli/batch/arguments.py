"""The arguments of `mynah batch`. Imports no connection, so that --help is quick."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_batch_arguments(parser: argparse.ArgumentParser) -> None:
    lines = 'JSON lines: {"text": ..., "voice": ..., "settings": {...}, "name": ...}; all but text may be left out'
    parser.add_argument("script", type=Path, help=lines)
    where = "where audio, manifest.jsonl and failed.jsonl go (default %(default)s)"
    parser.add_argument("-o", "--output", type=Path, default=Path("spoken"), metavar="FOLDER", help=where)
    parser.add_argument("--jobs", type=int, default=4, help="streams at a time, over all servers (default %(default)s)")
    retry = "how long a line is tried again that may yet succeed (default %(default)g)"
    parser.add_argument("--retry-s", type=float, default=300.0, metavar="S", help=retry)
    parser.add_argument("--quiet", action="store_true", help="no progress and no summary")
