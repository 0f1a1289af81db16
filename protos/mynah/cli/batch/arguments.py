"""The arguments of `mynah batch`, apart from its code so that --help does not import gRPC."""

from __future__ import annotations

import argparse


def add_batch_arguments(parser: argparse.ArgumentParser) -> None:
    script = 'JSON lines: {"text": ..., "voice": ..., "settings": {...}, "name": ...}; only "text" is required'
    parser.add_argument("script", help=script + "; a file, or a URL such as s3://bucket/script.jsonl")
    output = "folder for the audio, manifest.jsonl and failed.jsonl (default %(default)s); with --ray also a URL"
    parser.add_argument("-o", "--output", default="spoken", metavar="FOLDER", help=output)
    subtitles = "write subtitles beside each audio file"
    parser.add_argument("--subtitles", choices=("srt", "vtt"), help=subtitles)
    jobs = "number of simultaneous streams, over all servers (default 4); with --ray in each engine (default 16)"
    parser.add_argument("--jobs", type=int, help=jobs)
    retry = "how long a line is retried after errors that may pass, in seconds (default %(default)g)"
    parser.add_argument("--retry-s", type=float, default=300.0, metavar="S", help=retry)
    parser.add_argument("--quiet", action="store_true", help="print no progress and no summary")
    _add_ray(parser.add_argument_group("engines in a Ray cluster instead of servers (docs/bulk.md)"))


def _add_ray(group: argparse._ArgumentGroup) -> None:
    address = (
        "the cluster: local (this machine alone), auto (of which this machine is part), HOST:PORT or ray://HOST:PORT"
    )
    group.add_argument("--ray", metavar="ADDRESS", help=address)
    workers = "number of engines (default: as many as the cluster has room for)"
    group.add_argument("--workers", type=int, metavar="COUNT", help=workers)
    cpus = "CPUs of each engine (default %(default)g)"
    group.add_argument("--worker-cpus", type=float, default=1.0, metavar="COUNT", help=cpus)
    gpus = "GPUs of each engine, 1 or a fraction that several share (default %(default)g)"
    group.add_argument("--worker-gpus", type=float, default=0.0, metavar="COUNT", help=gpus)
    option = "an option of mynah-serve for the engines, such as model=nano; may be repeated"
    group.add_argument("--engine", action="append", default=[], metavar="NAME=VALUE", help=option)
