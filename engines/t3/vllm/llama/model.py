"""Standard's and Multilingual's T3 as a vLLM 0.9.2 model: every token is two rows, with its text and without.

ids (n,) -> rows (n, 2, width), which norms and matrices read as (2n, width). The attention has twice the heads: (2n,
heads x dim) is (n, 2 x heads x dim), so that lane 0 is the first heads and lane 1 the others, and no lane sees the
other's keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from vllm.attention import Attention
from vllm.compilation.decorators import support_torch_compile
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.linear import QKVParallelLinear, RowParallelLinear
from vllm.model_executor.layers.rotary_embedding import Llama3RotaryEmbedding
from vllm.model_executor.models.llama import LlamaMLP

from engines.model_spec import LlamaSpec
from engines.t3.llama.conditioning import Conditioning
from engines.t3.llama.lora import Lora
from engines.t3.llama.net import NORM_EPS, ROPE_FACTOR, ROPE_HIGH, ROPE_LOW, ROPE_ORIGINAL, ROPE_THETA, LlamaNet
from engines.t3.llama.weights import conditioning_tensors
from engines.t3.vllm.llama.config import LANES, LORAS, ids_of
from engines.t3.vllm.llama.embedding import LaneEmbedding
from engines.t3.vllm.llama.vocab import LaneIds, exaggerations
from engines.voice import Voice

_BLOCKS = "tfmr."
_EMOTION = "cond_enc.emotion_adv_fc.weight"
# upstream's matrix -> the one that it is a part of, and which part
_JOINED: dict[str, tuple[str, str | int]] = {
    "q_proj": ("qkv_proj", "q"),
    "k_proj": ("qkv_proj", "k"),
    "v_proj": ("qkv_proj", "v"),
    "gate_proj": ("gate_up_proj", 0),
    "up_proj": ("gate_up_proj", 1),
}


def _rotary(spec: LlamaSpec, positions: int) -> Llama3RotaryEmbedding:
    """A table as long as sequences can be: the scaling does not depend on it.

    Not vLLM's `get_rope`, which shares one table among all models of a process: the first engine's end would free it.
    """
    dim, dtype = spec.width // spec.heads, torch.get_default_dtype()
    return Llama3RotaryEmbedding(
        dim, dim, positions, ROPE_THETA, True, dtype, ROPE_FACTOR, ROPE_LOW, ROPE_HIGH, ROPE_ORIGINAL
    )


class _Attention(nn.Module):
    def __init__(self, spec: LlamaSpec, rotary: nn.Module, vllm_config: Any, prefix: str) -> None:
        super().__init__()
        dim, lane_heads = spec.width // spec.heads, LANES * spec.heads
        self._width, self._lanes_width = spec.width, LANES * spec.width
        self.qkv_proj = QKVParallelLinear(
            spec.width, dim, spec.heads, spec.heads, bias=False, prefix=f"{prefix}.qkv_proj"
        )
        self.o_proj = RowParallelLinear(spec.width, spec.width, bias=False, prefix=f"{prefix}.o_proj")
        self.rotary_emb = rotary
        self.attn = Attention(
            lane_heads, dim, dim**-0.5, num_kv_heads=lane_heads, cache_config=vllm_config.cache_config,
            prefix=f"{prefix}.attn",
        )  # fmt: skip

    def forward(self, positions: Tensor, hidden: Tensor) -> Tensor:
        """positions (n,), hidden (2n, width) -> (2n, width)"""
        qkv, _ = self.qkv_proj(hidden)
        # lanes are joined behind the split: a row of the product is q, k and v of one lane
        q, k, v = (part.reshape(-1, self._lanes_width) for part in qkv.chunk(3, dim=-1))
        q, k = self.rotary_emb(positions, q, k)  # both lanes of a position turn alike
        out: Tensor
        out, _ = self.o_proj(self.attn(q, k, v).view(-1, self._width))
        return out


class _Block(nn.Module):
    def __init__(self, spec: LlamaSpec, rotary: nn.Module, vllm_config: Any, prefix: str) -> None:
        super().__init__()
        self.self_attn = _Attention(spec, rotary, vllm_config, f"{prefix}.self_attn")
        self.mlp = LlamaMLP(spec.width, spec.feed_forward, "silu", prefix=f"{prefix}.mlp")
        self.input_layernorm = RMSNorm(spec.width, eps=NORM_EPS)
        self.post_attention_layernorm = RMSNorm(spec.width, eps=NORM_EPS)

    def forward(self, positions: Tensor, hidden: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        if residual is None:
            residual, hidden = hidden, self.input_layernorm(hidden)
        else:
            hidden, residual = self.input_layernorm(hidden, residual)
        hidden = self.self_attn(positions, hidden)
        hidden, residual = self.post_attention_layernorm(hidden, residual)
        return self.mlp(hidden), residual


@support_torch_compile(dynamic_arg_dims={"input_ids": 0, "positions": 0})
class LaneModel(nn.Module):
    """What is compiled: from ids to the last norm."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__()
        ids = ids_of(vllm_config.model_config.hf_config)
        self._width = ids.spec.width
        self.embedding = LaneEmbedding(ids)
        rotary = _rotary(ids.spec, vllm_config.model_config.max_model_len)
        self.layers = nn.ModuleList(
            _Block(ids.spec, rotary, vllm_config, f"{prefix}.layers.{layer}") for layer in range(ids.spec.layers)
        )
        self.norm = RMSNorm(ids.spec.width, eps=NORM_EPS)

    def forward(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        """(n,), (n,) -> (n, 2 x width)"""
        hidden = self.embedding(input_ids).view(-1, self._width)
        residual = None
        for layer in self.layers:
            hidden, residual = layer(positions, hidden, residual)
        hidden, _ = self.norm(hidden, residual)
        rows: Tensor = hidden.view(-1, LANES * self._width)
        return rows


class LlamaT3ForVllm(nn.Module):
    """The model that vLLM calls. Its dimensions come from config.json (config.py)."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__()
        config = vllm_config.model_config.hf_config
        self._loras = [Lora(Path(folder)) for folder in getattr(config, LORAS)]
        self.model = LaneModel(vllm_config=vllm_config, prefix="model")
        spec = self.ids.spec
        self.head = nn.Linear(spec.width, spec.speech_vocab, bias=False)
        # float32 for every dtype of the model: used once per voice; buffers, so that they are freed with the model
        self._buffers_of: dict[str, Tensor] = {}
        for name, shape in conditioning_tensors(spec).items():
            self._buffers_of[name] = torch.empty(shape, dtype=torch.float32)
            self.register_buffer(name.replace(".", "_"), self._buffers_of[name], persistent=False)
        device = self._buffers_of[_EMOTION].device
        self._conditioning = Conditioning(self._buffers_of, spec, device)

    @property
    def ids(self) -> LaneIds:
        return self.model.embedding.ids

    @property
    def compiled(self) -> nn.Module:
        """The part that vLLM compiles."""
        return self.model

    def get_input_embeddings(self, input_ids: Tensor) -> Tensor:
        """ids (n,) -> (n, 2, width)"""
        embedded: Tensor = self.model.embedding(input_ids)
        return embedded

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        intermediate_tensors: None = None,
        inputs_embeds: None = None,
    ) -> Tensor:
        """ids and positions (n,) of all rows, in any mix of prefill and decode -> both lanes (n, 2 x width)."""
        rows: Tensor = self.model(input_ids, positions)
        return rows

    def compute_logits(self, hidden_states: Tensor, sampling_metadata: object) -> Tensor:
        """(rows, 2 x width) as they are: the sampler knows the weights by which `guided_logits` mixes them."""
        return hidden_states

    def guided_logits(self, lanes: Tensor, weights: Tensor) -> Tensor:
        """(rows, 2 x width), weights (rows, 1) -> (rows, 8194) float32: with + weight x (with - without).

        The head has no bias, so it is run once, behind the guidance.
        """
        with_text, without_text = lanes.float().chunk(LANES, dim=-1)
        guided = with_text + weights * (with_text - without_text)
        logits: Tensor = self.head(guided.to(self.head.weight.dtype))
        return logits.float()

    @torch.inference_mode()
    def set_voice(self, slot: int, voice: Voice) -> None:
        """Write a voice's rows into its slot, in place for the CUDA graphs."""
        self.model.embedding.table.data[self.ids.voice_rows_of(slot)].copy_(self._conditioning.compute(voice))

    def net(self, spec: LlamaSpec, layers: int) -> LlamaNet:
        """As T3ForVllm.net. Zeros in place of biases, rotations and the rows of voices are its own."""
        outer = self.model.embedding.tensors()
        outer |= {"tfmr.norm.weight": self.model.norm.weight.data, "speech_head.weight": self.head.weight.data}
        blocks = [{name: each.data for name, each in block.named_parameters()} for block in self.model.layers[:layers]]
        buffers = {name: buffer.detach() for name, buffer in self._buffers_of.items()}
        conditioning = Conditioning(buffers, spec, buffers[_EMOTION].device)
        return LlamaNet.of_tensors(outer, blocks, spec, self.head.weight.dtype, conditioning)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load upstream's file. Names and shapes were checked before vLLM was started (backend.py)."""
        own = self.model.embedding.tensors() | {"speech_head.weight": self.head.weight.data}
        parameters = dict(self.named_parameters())
        loaded, read = {"model.embedding.table", "model.embedding.places", "head.weight"}, set()
        for name, tensor in weights:
            merged = {name: tensor}
            for lora in self._loras:
                lora.merge(merged, "")
            for targets in (own, self._buffers_of):
                if name in targets:
                    targets[name].copy_(merged[name])
                    read.add(name)
            if name.startswith(_BLOCKS):
                loaded |= _load(name.removeprefix(_BLOCKS), merged[name], parameters)
        wanted = own.keys() | self._buffers_of.keys()
        assert wanted <= read, f"not in the file: {wanted - read}"
        emotion = self._buffers_of[_EMOTION]
        levels = torch.tensor(exaggerations(), dtype=torch.float32, device=emotion.device)
        self.model.embedding.exaggerations.copy_(levels.unsqueeze(1) * emotion[:, 0])
        return loaded


def _load(name: str, tensor: Tensor, parameters: dict[str, nn.Parameter]) -> set[str]:
    """Load a tensor of the body; returns the parameter's name, or nothing for the Llama's own embedding."""
    name = f"model.{name}"
    part = name.split(".")[-2]
    if part in _JOINED:
        whole, which = _JOINED[part]
        name = name.replace(part, whole)
        parameters[name].weight_loader(parameters[name], tensor, which)  # type: ignore[attr-defined]
    elif name in parameters:
        parameters[name].data.copy_(tensor)
    else:
        return set()
    return {name}
