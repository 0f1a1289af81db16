"""Tests of random:tiny: complete for every net, and the same bytes on every machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.checkpoints import random_checkpoint
from engines.checkpoints.checkpoint import Checkpoint, open_checkpoint, verify
from engines.checkpoints.random_checkpoint import NetGenerator
from engines.checkpoints.random_tokenizer import TAGS
from engines.checkpoints.tensor_file import read_header
from engines.conditioning.builtin import load_builtin
from engines.errors import CheckpointError
from engines.factory import tensor_tables
from engines.text.tokenizer import TextTokenizer
from engines.voice import Voice


def open_tiny(cache: Path, seed: int = 0) -> Checkpoint:
    return open_checkpoint("random:tiny", cache_dir=cache, seed=seed, device="cpu")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def contents(checkpoint: Checkpoint) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in checkpoint.folder.iterdir() if path.name != "random.json"}


def test_it_has_every_tensor_of_every_net(cache: Path) -> None:
    checkpoint = open_tiny(cache)
    tables = tensor_tables(checkpoint)
    verify(checkpoint, tables)
    assert all(read_header(path) for path in tables)


def test_a_missing_net_is_named(cache: Path) -> None:
    checkpoint = open_tiny(cache)
    tables = tensor_tables(checkpoint)
    tables[checkpoint.s3gen_path].append(("flow.", {"no.such.tensor": (1, 2)}))
    with pytest.raises(CheckpointError, match=r"s3gen_meanflow\.safetensors: flow\.no\.such\.tensor is missing"):
        verify(checkpoint, tables)


def test_its_tokenizer_fills_t3s_vocabulary(cache: Path) -> None:
    checkpoint = open_tiny(cache)
    tokenizer = TextTokenizer(checkpoint.folder, checkpoint.spec.t3.text_vocab)
    assert tokenizer.tags == TAGS
    assert max(tokenizer.encode(TAGS[-1])) == checkpoint.spec.t3.text_vocab - 1


def test_it_has_a_voice(cache: Path) -> None:
    checkpoint = open_tiny(cache)
    assert checkpoint.conds_path is not None
    assert isinstance(load_builtin(checkpoint.conds_path), Voice)


def test_a_seed_determines_the_bytes(cache: Path, tmp_path: Path) -> None:
    first, elsewhere, other = open_tiny(cache), open_tiny(tmp_path), open_tiny(tmp_path, seed=1)
    weights = [name for name in contents(first) if name.endswith((".safetensors", ".pt"))]
    same, different = contents(elsewhere), contents(other)
    assert len(weights) == 4
    for name in weights:
        assert contents(first)[name] == same[name]
        assert contents(first)[name] != different[name]


def test_the_fingerprint_covers_the_code_that_draws() -> None:
    package = Path(random_checkpoint.__file__).parents[1]
    covered = {str(path.relative_to(package)) for path in random_checkpoint.sources()}
    drawing = {f"{stage}/random_weights.py" for stage in ("t3", "s3gen", "conditioning")}
    assert (
        covered
        >= {
            "checkpoints/random_checkpoint.py",
            "config.py",
            "conditioning/builtin.py",
            "t3/model.py",
            "s3gen/nets/flow.py",
        }
        | drawing
    )
    assert "t3/local_backend.py" not in covered
    assert NetGenerator().fingerprint() == NetGenerator().fingerprint()
