"""The tensors of upstream's `t3_cfg.safetensors` and `t3_mtl23ls_*.safetensors` that speech needs: names and shapes.

The file also holds `text_head.weight` and `tfmr.embed_tokens.weight`, which only training uses.
"""

from __future__ import annotations

from engines.checkpoints.tensor_file import Shape
from engines.model_spec import SPEAKER_EMBEDDING_DIM, LlamaSpec, ModelSpec

PERCEIVER = "cond_enc.perceiver."


def spec_of(spec: ModelSpec) -> LlamaSpec:
    """The dimensions of T3, for a model of this family."""
    assert isinstance(spec.t3, LlamaSpec), f"{spec.name} is of another family"
    return spec.t3


def expected_tensors(spec: ModelSpec) -> dict[str, Shape]:
    """All tensors that inference needs. Matrices are (out, in)."""
    t3 = spec_of(spec)
    blocks = {
        block_prefix(layer) + name: shape for layer in range(t3.layers) for name, shape in block_tensors(t3).items()
    }
    return outer_tensors(t3) | blocks


def conditioning_tensors(spec: LlamaSpec) -> dict[str, Shape]:
    """Those of `outer_tensors` that a voice's rows and an exaggeration are computed from."""
    of_prompt = ("speech_emb.weight", "speech_pos_emb.emb.weight")
    return {
        name: shape for name, shape in outer_tensors(spec).items() if name.startswith("cond_enc.") or name in of_prompt
    }


def block_prefix(layer: int) -> str:
    """Of the names of a block's tensors."""
    return f"tfmr.layers.{layer}."


def outer_tensors(spec: LlamaSpec) -> dict[str, Shape]:
    """All tensors except the blocks'."""
    width = spec.width
    return {
        "cond_enc.spkr_enc.weight": (width, SPEAKER_EMBEDDING_DIM),
        "cond_enc.spkr_enc.bias": (width,),
        "cond_enc.emotion_adv_fc.weight": (width, 1),
        PERCEIVER + "pre_attention_query": (1, spec.perceiver_rows, width),
        PERCEIVER + "attn.norm.weight": (width,),
        PERCEIVER + "attn.norm.bias": (width,),
        **{
            f"{PERCEIVER}attn.{name}.{kind}": (width, width) if kind == "weight" else (width,)
            for name in ("to_q", "to_k", "to_v", "proj_out")
            for kind in ("weight", "bias")
        },
        "text_emb.weight": (spec.text_vocab, width),
        "speech_emb.weight": (spec.speech_vocab, width),
        "text_pos_emb.emb.weight": (spec.text_positions, width),
        "speech_pos_emb.emb.weight": (spec.speech_positions, width),
        "tfmr.norm.weight": (width,),
        "speech_head.weight": (spec.speech_vocab, width),
    }


def block_tensors(spec: LlamaSpec) -> dict[str, Shape]:
    """One transformer block."""
    width, wide = spec.width, spec.feed_forward
    return {
        "input_layernorm.weight": (width,),
        "self_attn.q_proj.weight": (width, width),
        "self_attn.k_proj.weight": (width, width),
        "self_attn.v_proj.weight": (width, width),
        "self_attn.o_proj.weight": (width, width),
        "post_attention_layernorm.weight": (width,),
        "mlp.gate_proj.weight": (wide, width),
        "mlp.up_proj.weight": (wide, width),
        "mlp.down_proj.weight": (width, wide),
    }
