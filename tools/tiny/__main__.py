"""python -m tools.tiny RUN [--only NET] [--export FOLDER] [--replace FOLDER]: make the tiny model, from where RUN is"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from tools.tiny import corpus
from tools.tiny.nets import RECIPES, Run, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--only", choices=list(RECIPES), help="train this net alone, on the data that is there")
    parser.add_argument("--steps", type=int, help="train to this step instead of the recipe's last")
    parser.add_argument("--peak", type=float, help="highest learning rate instead of the recipe's")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: a GPU if any"
    )
    parser.add_argument("--export", type=Path, help="write a checkpoint folder")
    parser.add_argument("--replace", type=Path, help="put the vocoder as it is now into this checkpoint folder")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    run = Run(arguments.run)
    if arguments.replace:
        from tools.tiny.export import replace_vocoder

        replace_vocoder(run, arguments.replace)
        return
    if not arguments.only and not arguments.export:
        corpus.build_all(arguments.run / "data", run.wordnet)
    for name in [arguments.only] if arguments.only else [] if arguments.export else RECIPES:
        train(run, name, arguments.device, arguments.steps, arguments.peak)
    if arguments.export or not arguments.only:
        from tools.tiny.export import export

        export(run, arguments.export or arguments.run / "tiny")


if __name__ == "__main__":
    main()
