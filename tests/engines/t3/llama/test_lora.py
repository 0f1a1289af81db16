"""Adapters of PEFT's layout: merged as PEFT merges them, or refused with names and shapes."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from engines.errors import CheckpointError
from engines.model_spec import STANDARD_TINY
from engines.t3.decoder import T3Decoder
from engines.t3.llama.lora import Lora
from engines.t3.llama.net import LlamaNet
from tests.engines.t3.llama.setting import checkpoint, net, request
from tests.engines.t3.setting import CPU, limits, run

WIDTH, WIDE, RANK = 128, 256, 4
FILE = "adapter_model.safetensors"
QUERY, DOWN = "layers.1.self_attn.q_proj", "layers.3.mlp.down_proj"


def adapter(
    folder: Path, modules: dict[str, tuple[int, int]], prefix: str = "base_model.model.", **config: Any
) -> Path:
    """An adapter for modules of these (outputs, inputs)."""
    folder.mkdir(exist_ok=True)
    draw, tensors = np.random.default_rng(1), {}
    for name, (outputs, inputs) in modules.items():
        tensors[f"{prefix}{name}.lora_A.weight"] = draw.standard_normal((RANK, inputs), np.float32)
        tensors[f"{prefix}{name}.lora_B.weight"] = draw.standard_normal((outputs, RANK), np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    content = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2, "bias": "none", **config}
    (folder / "adapter_config.json").write_text(json.dumps(content))
    return folder


def product(folder: Path, module: str, scale: float) -> np.ndarray:
    tensors = load_file(folder / "adapter_model.safetensors")
    pair = {name.split(".")[-2]: values for name, values in tensors.items() if module in name}
    return scale * pair["lora_B"] @ pair["lora_A"]


def tokens(of: LlamaNet) -> list[int]:
    return run(T3Decoder(of, limits()), request(1, max_speech_tokens=20))[0]


def load(path: Path, *folders: Path) -> LlamaNet:
    return LlamaNet.load(path, STANDARD_TINY, CPU, loras=[Lora(folder) for folder in folders])


@pytest.mark.parametrize("prefix", ["base_model.model.", "base_model.model.tfmr.", ""])
def test_an_adapter_equals_weights_with_its_product_added(tmp_path: Path, prefix: str) -> None:
    folder = adapter(tmp_path / "a", {QUERY: (WIDTH, WIDTH), DOWN: (WIDTH, WIDE)}, prefix)
    weights = load_file(checkpoint().t3_path)
    for module in (QUERY, DOWN):
        weights[f"tfmr.{module}.weight"] += product(folder, module, 2 / RANK)
    save_file(weights, tmp_path / "merged.safetensors")
    merged = tokens(load(checkpoint().t3_path, folder))
    assert merged == tokens(load(tmp_path / "merged.safetensors"))
    assert merged != tokens(net()), "an adapter without effect would prove nothing"


def test_several_adapters_add_up_with_scales_of_their_own(tmp_path: Path) -> None:
    first = adapter(tmp_path / "a", {QUERY: (WIDTH, WIDTH)}, use_rslora=True)
    second = adapter(tmp_path / "b", {"text_emb": (704, WIDTH)}, alpha_pattern={"text_emb": 8})
    weights = load_file(checkpoint().t3_path)
    weights[f"tfmr.{QUERY}.weight"] += product(first, QUERY, 2 / RANK**0.5)
    weights["text_emb.weight"] += product(second, "text_emb", 8 / RANK)
    save_file(weights, tmp_path / "merged.safetensors")
    assert tokens(load(checkpoint().t3_path, first, second)) == tokens(load(tmp_path / "merged.safetensors"))


def test_modules_that_do_not_fit_are_named_with_their_shapes(tmp_path: Path) -> None:
    shapes = {QUERY: (WIDTH, WIDE), "layers.9.mlp.up_proj": (WIDE, WIDTH), DOWN: (WIDTH, WIDE)}
    folder = adapter(tmp_path / "a", shapes)
    with pytest.raises(CheckpointError) as error:
        load(checkpoint().t3_path, folder)
    assert "layers.9.mlp.up_proj.weight is no weight of T3" in str(error.value)
    assert "lora_B (128, 4) times lora_A (4, 256) does not fit" in str(error.value)
    assert "tfmr.layers.1.self_attn.q_proj.weight (128, 128)" in str(error.value)
    assert DOWN not in str(error.value)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"use_dora": True}, "use_dora is True"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"modules_to_save": ["text_emb"]}, "modules_to_save is"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan; it must be a finite number"),
        ({"lora_alpha": True}, "lora_alpha is True"),
        ({"lora_alpha": 10**400}, "lora_alpha is 1000"),
        ({"alpha_pattern": [1]}, r"alpha_pattern is \[1\]"),
        ({"alpha_pattern": {"(": 3}}, "alpha_pattern is"),
        ({"alpha_pattern": {"q_proj": "x"}}, "alpha_pattern is"),
        ({"alpha_pattern": {"q_proj": None}}, "alpha_pattern is"),
        ({"rank_pattern": {"q_proj": float("inf")}}, "rank_pattern is"),
        ({"use_rslora": "false"}, "use_rslora is 'false'; it must be true or false"),
        ({"layer_replication": [[0, 2]]}, "layer_replication is"),
        ({"lora_bias": True}, "lora_bias is True"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4'"),
    ],
)
def test_adapters_that_need_more_than_a_sum_are_refused(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        Lora(adapter(tmp_path / "a", {QUERY: (WIDTH, WIDTH)}, **config))


def test_missing_and_unknown_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"adapter_config\.json is missing"):
        Lora(tmp_path)
    folder = adapter(tmp_path / "a", {QUERY: (WIDTH, WIDTH)})
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({**tensors, "text_emb.weight": np.zeros((2, 2), np.float32)}, folder / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"no lora_A or lora_B.*text_emb\.weight \(2, 2\)"):
        Lora(folder)
    half = {name: values for name, values in tensors.items() if "lora_A" in name}
    save_file(half, folder / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=f"lacks lora_A or lora_B: {QUERY}"):
        Lora(folder)


def test_an_adapter_in_bfloat16_is_merged(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", {QUERY: (WIDTH, WIDTH)})
    halves = {name: torch.tensor(values).bfloat16() for name, values in load_file(folder / FILE).items()}
    save_torch(halves, folder / FILE)
    whole = adapter(tmp_path / "b", {QUERY: (WIDTH, WIDTH)})
    save_torch({name: values.float() for name, values in halves.items()}, whole / FILE)
    assert tokens(load(checkpoint().t3_path, folder)) == tokens(load(checkpoint().t3_path, whole))


def test_patterns_are_whole_ends_of_names_and_may_be_zero(tmp_path: Path) -> None:
    for pattern in ("q_proj", "v_proj|q_proj", r"layers\.[01]\.self_attn\.q_proj"):
        folder = adapter(tmp_path / "a", {QUERY: (WIDTH, WIDTH)}, alpha_pattern={pattern: 0})
        assert tokens(load(checkpoint().t3_path, folder)) == tokens(net()), pattern
    other = adapter(tmp_path / "a", {QUERY: (WIDTH, WIDTH)}, alpha_pattern={"proj": 0})
    assert tokens(load(checkpoint().t3_path, other)) != tokens(net())


def test_another_rank_than_the_configurations_is_refused(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", {QUERY: (WIDTH, WIDTH)}, r=8)
    with pytest.raises(CheckpointError, match=r"has rank 4, adapter_config\.json says 8"):
        load(checkpoint().t3_path, folder)
    load(checkpoint().t3_path, adapter(tmp_path / "a", {QUERY: (WIDTH, WIDTH)}, r=8, rank_pattern={"q_proj": RANK}))


def test_an_empty_product_is_refused(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", {QUERY: (WIDTH, WIDTH)})
    empty = {f"{QUERY}.lora_A.weight": np.zeros((0, WIDTH)), f"{QUERY}.lora_B.weight": np.zeros((WIDTH, 0))}
    save_file({name: values.astype(np.float32) for name, values in empty.items()}, folder / FILE)
    with pytest.raises(CheckpointError, match=r"lora_A \(0, 128\) is empty"):
        load(checkpoint().t3_path, folder)


@pytest.mark.parametrize("second", ["tfmr.", "base_model.model.", "base_model.model.tfmr."])
def test_two_products_for_one_weight_are_refused(tmp_path: Path, second: str) -> None:
    tensors = load_file(adapter(tmp_path / "a", {QUERY: (WIDTH, WIDTH)}, "") / FILE)
    others = load_file(adapter(tmp_path / "b", {QUERY: (WIDTH, WIDTH)}, second) / FILE)
    save_file(tensors | others, tmp_path / "a" / FILE)
    with pytest.raises(CheckpointError, match="for the same weight"):
        Lora(tmp_path / "a")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int32])
def test_quantised_adapters_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = adapter(tmp_path / "a", {QUERY: (WIDTH, WIDTH)})
    save_torch(
        {name: torch.tensor(values).to(dtype) for name, values in load_file(folder / FILE).items()}, folder / FILE
    )
    with pytest.raises(CheckpointError, match="of dtype"):
        Lora(folder)


def test_a_scale_that_makes_infinities_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"not finite: {QUERY}"):
        load(checkpoint().t3_path, adapter(tmp_path / "a", {QUERY: (WIDTH, WIDTH)}, lora_alpha=1e300))


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    class Touches:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "opened",)

    folder = adapter(tmp_path / "a", {QUERY: (WIDTH, WIDTH)})
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Touches()))
    load(checkpoint().t3_path, folder)
    (folder / FILE).write_bytes(pickle.dumps(Touches()))
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        Lora(folder)
    (folder / FILE).unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        Lora(folder)
    assert not (tmp_path / "opened").exists()
