"""T3's blocks and head as ONNX graphs in float32.

One graph reads a chunk of a prompt and a single step alike: attention writes new keys and values in place behind the
existing ones (ONNX Runtime's GroupQueryAttention with past and present in the same memory), so that no step copies the
cache.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from engines.model_spec import SPEECH_VOCAB, T3Spec

F32 = npt.NDArray[np.float32]
OPSET = 18
_MICROSOFT = "com.microsoft"
_IR_VERSION = 10
_LAYER_NORM_EPS = 1e-5


def past_names(layer: int) -> tuple[str, str]:
    """Inputs that hold a layer's keys and values, (1, heads, capacity, head dim) each."""
    return f"past_key_{layer}", f"past_value_{layer}"


def present_names(layer: int) -> tuple[str, str]:
    """Outputs that must be bound to the memory of `past_names`."""
    return f"present_key_{layer}", f"present_value_{layer}"


def blocks_graph(spec: T3Spec, tensors: Mapping[str, F32]) -> ModelProto:
    """All blocks. `tensors` has upstream's names, `tfmr.h.N.` first; matrices are (in, out).

    hidden (n, width), positions added; last_position (1,) int32, that of the last row; total_positions int32, one
    more -> output (n, width) before the final norm. Rows are a plain matrix because ONNX Runtime fuses a product with
    its bias only there; only attention has an axis of sequences.
    """
    build = _Builder(tensors)
    width = spec.width
    inputs = [
        _value("hidden", ("rows", width)),
        _value("last_position", (1,), TensorProto.INT32),
        _value("total_positions", (), TensorProto.INT32),
    ]
    outputs = [_value("output", ("rows", width))]
    x = "hidden"
    for layer in range(spec.layers):
        x = _block(build, spec, layer, x)
        cache = (1, spec.heads, "capacity", width // spec.heads)
        inputs += [_value(name, cache) for name in past_names(layer)]
        outputs += [_value(name, cache) for name in present_names(layer)]
    build.node("Identity", [x], "output")
    return build.model("t3_blocks", inputs, outputs)


def head_graph(spec: T3Spec, tensors: Mapping[str, F32]) -> ModelProto:
    """Final norm and speech head: hidden (n, width) -> logits (n, 6563)."""
    head = dict(tensors)
    head["speech_head.weight"] = np.ascontiguousarray(tensors["speech_head.weight"].T)  # (out, in) in the file
    build = _Builder(head)
    build.linear(build.norm("hidden", "tfmr.ln_f"), "speech_head", "logits")
    inputs, outputs = [_value("hidden", ("rows", spec.width))], [_value("logits", ("rows", SPEECH_VOCAB))]
    return build.model("t3_head", inputs, outputs)


def _block(build: _Builder, spec: T3Spec, layer: int, x: str) -> str:
    """x + attention(ln_1 x), then x + mlp(ln_2 x)."""
    at = f"tfmr.h.{layer}"
    rows = build.linear(build.norm(x, f"{at}.ln_1"), f"{at}.attn.c_attn", f"{at}.rows")
    qkv = build.shaped(rows, (1, -1, 3 * spec.width), f"{at}.qkv")
    attended, present = f"{at}.attended", present_names(layer)
    build.nodes.append(
        helper.make_node(
            "GroupQueryAttention",
            [qkv, "", "", *past_names(layer), "last_position", "total_positions"],
            [attended, *present],
            name=f"{at}.attention",
            domain=_MICROSOFT,
            num_heads=spec.heads,
            kv_num_heads=spec.heads,
        )
    )
    mixed = build.shaped(attended, (-1, spec.width), f"{at}.mixed")
    x = build.node("Add", [x, build.linear(mixed, f"{at}.attn.c_proj", f"{at}.projected")], f"{at}.after_attention")
    wide = build.linear(build.norm(x, f"{at}.ln_2"), f"{at}.mlp.c_fc", f"{at}.wide")
    active = build.node("FastGelu", [wide], f"{at}.active", domain=_MICROSOFT)
    return build.node("Add", [x, build.linear(active, f"{at}.mlp.c_proj", f"{at}.narrow")], f"{at}.output")


class _Builder:
    """Collects the nodes of a graph and the weights that they refer to."""

    def __init__(self, tensors: Mapping[str, F32]) -> None:
        self.nodes: list[NodeProto] = []
        self._tensors, self._used = tensors, dict[str, TensorProto]()

    def weight(self, name: str) -> str:
        self._used[name] = numpy_helper.from_array(self._tensors[name], name)
        return name

    def node(self, operator: str, inputs: list[str], output: str, domain: str = "", **attributes: object) -> str:
        made = helper.make_node(operator, inputs, [output], name=output, domain=domain, **attributes)  # type: ignore[arg-type]
        self.nodes.append(made)
        return output

    def shaped(self, x: str, shape: tuple[int, ...], output: str) -> str:
        name = f"shape {shape}"
        self._used[name] = numpy_helper.from_array(np.array(shape, np.int64), name)
        return self.node("Reshape", [x, name], output)

    def norm(self, x: str, name: str) -> str:
        inputs = [x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")]
        return self.node("LayerNormalization", inputs, f"{name}.normed", epsilon=_LAYER_NORM_EPS)

    def linear(self, x: str, name: str, output: str) -> str:
        product = self.node("MatMul", [x, self.weight(f"{name}.weight")], f"{output}.product")
        return self.node("Add", [product, self.weight(f"{name}.bias")], output)

    def model(self, name: str, inputs: list[ValueInfoProto], outputs: list[ValueInfoProto]) -> ModelProto:
        graph = helper.make_graph(self.nodes, name, inputs, outputs, list(self._used.values()))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(_MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)


def _value(name: str, shape: tuple[int | str, ...], kind: int = TensorProto.FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)
