"""Constant folding: weights that a graph reshapes -> weights stored in that shape.

The nets keep upstream's layouts and transpose them at run time, which is a view in torch. A graph would do it at every
call, or every runtime at every start, and tools that look for weights would not find them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Array = npt.NDArray[np.generic]


def _flatten(values: Array, node: NodeProto) -> Array:
    axis = _attribute(node, "axis", 1)
    return values.reshape(math.prod(values.shape[:axis]), -1)


def _transpose(values: Array, node: NodeProto) -> Array:
    return values.transpose(_attribute(node, "perm", None))


_FOLDABLE: dict[str, Callable[[Array, NodeProto], Array]] = {
    "Identity": lambda values, _: values,
    "Flatten": _flatten,
    "Transpose": _transpose,
}


def fold_weights(model: ModelProto) -> None:
    """Replace chains of Identity, Flatten and Transpose on initializers by initializers, in place.

    A value that several nodes make from one weight in the same way is stored once.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    aliases: dict[str, str] = {}  # folded value -> initializer
    folded: dict[tuple[str, bytes], str] = {}
    kept = []
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = aliases.get(name, name)
        if node.op_type not in _FOLDABLE or node.input[0] not in weights:
            kept.append(node)
            continue
        source, output = node.input[0], node.output[0]
        attributes = b"".join(a.SerializeToString() for a in node.attribute)
        key = (source, node.op_type.encode() + attributes)
        if node.op_type == "Identity":
            aliases[output] = source
        elif key in folded:
            aliases[output] = folded[key]
        else:
            weights[output] = _folded(weights[source], node)
            aliases[output] = folded[key] = output
    del graph.node[:]
    graph.node.extend(kept)
    _keep_used(model, weights)


def _folded(weight: TensorProto, node: NodeProto) -> TensorProto:
    values = _FOLDABLE[node.op_type](numpy_helper.to_array(weight), node)
    return numpy_helper.from_array(np.ascontiguousarray(values), node.output[0])


def _keep_used(model: ModelProto, weights: dict[str, TensorProto]) -> None:
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for name, tensor in weights.items() if name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)
