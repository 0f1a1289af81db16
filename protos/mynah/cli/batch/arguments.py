"""The arguments of `mynah batch`, apart from its code so that --help does not import gRPC."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_batch_arguments(parser: argparse.ArgumentParser) -> None:
    script = 'JSON lines: {"text": ..., "voice": ..., "settings": {...}, "name": ...}; only "text" is required'
    parser.add_argument("script", type=Path, help=script)
    output = "folder for the audio, manifest.jsonl and failed.jsonl (default %(default)s)"
    parser.add_argument("-o", "--output", type=Path, default=Path("spoken"), metavar="FOLDER", help=output)
    subtitles = "write subtitles beside each audio file"
    parser.add_argument("--subtitles", choices=("srt", "vtt"), help=subtitles)
    jobs = "number of simultaneous streams, over all servers (default %(default)s)"
    parser.add_argument("--jobs", type=int, default=4, help=jobs)
    retry = "how long a line is retried after errors that may pass, in seconds (default %(default)g)"
    parser.add_argument("--retry-s", type=float, default=300.0, metavar="S", help=retry)
    parser.add_argument("--quiet", action="store_true", help="print no progress and no summary")
