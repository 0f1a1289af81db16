"""fp32 graph -> mixed fp16 graph with casts, by a short list of rules.

Strongly typed TensorRT takes the precision from the graph. Unlike a calibrating tool's, these rules are the same for
every checkpoint, need no data, and can be checked by a reader: matrix products and convolutions, which are almost all
of the work, run in fp16 with weights stored in fp16; everything between them stays in fp32. That keeps layer norms,
softmax, attention bias, residual sums and activations exact, and a compiler fuses the casts into its kernels.
"""

from __future__ import annotations

import re

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

_FP16_OPERATORS = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose"})
# Products that stay in fp32, by the path of their layer: times (a sinusoid of 1000 t), f0 (an error of 1 Hz is
# audible), the source's merge of harmonics, and the Fourier transform, whose three convolutions are called as functions
# and therefore have no layer's path.
_FP32_LAYERS = re.compile(r"time_mlp|time_embed_mixer|f0_predictor|m_source|spk_embed_affine|^/[^/]+$")
_MAX_FP16 = 65504.0


def to_mixed_fp16(model: ModelProto, name: str) -> ModelProto:
    """A copy of `model` whose heavy products run in fp16; inputs and outputs stay fp32.

    Raises ValueError if a weight does not fit into fp16, naming it and the graph `name`.
    """
    mixed = onnx.ModelProto()
    mixed.CopyFrom(model)
    _Rewriter(mixed, name).run()
    return mixed


def runs_in_fp16(node: NodeProto) -> bool:
    return node.op_type in _FP16_OPERATORS and not _FP32_LAYERS.search(node.name)


class _Rewriter:
    def __init__(self, model: ModelProto, name: str) -> None:
        self._graph, self._name = model.graph, name
        self._weights = {tensor.name: tensor for tensor in self._graph.initializer}
        self._halved: dict[str, str] = {}  # fp32 name -> fp16 name
        self._nodes: list[NodeProto] = []

    def run(self) -> None:
        for node in self._graph.node:
            if runs_in_fp16(node):
                self._rewrite(node)
            else:
                self._nodes.append(node)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        self._drop_unused()
        del self._graph.value_info[:]  # its types are no longer true; shape inference makes new ones

    def _rewrite(self, node: NodeProto) -> None:
        for index, source in enumerate(node.input):
            if source:
                node.input[index] = self._half(source)
        wide = node.output[0]
        node.output[0] = f"{wide}_fp16"
        self._nodes += [node, _cast(node.output[0], wide, TensorProto.FLOAT)]

    def _half(self, source: str) -> str:
        """The fp16 copy of a value: stored for weights, one cast for every other value."""
        if source not in self._halved:
            twin = f"{source}_fp16_in"
            if source in self._weights:
                self._graph.initializer.append(self._half_weight(self._weights[source], twin))
            else:
                self._nodes.append(_cast(source, twin, TensorProto.FLOAT16))
            self._halved[source] = twin
        return self._halved[source]

    def _half_weight(self, tensor: TensorProto, twin: str) -> TensorProto:
        values = numpy_helper.to_array(tensor)
        if not np.abs(values).max(initial=0.0) <= _MAX_FP16:
            raise ValueError(f"graph {self._name}: weight {tensor.name} does not fit into fp16")
        return numpy_helper.from_array(values.astype(np.float16), twin)

    def _drop_unused(self) -> None:
        used = {name for node in self._graph.node for name in node.input}
        kept = [tensor for tensor in self._graph.initializer if tensor.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)


def _cast(source: str, target: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"cast_{target}", to=to)
