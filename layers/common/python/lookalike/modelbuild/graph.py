"""Writes an ONNX graph layer by layer from a checkpoint, folding batch norms into convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from lookalike.core.encoder import INPUT_NAME, OUTPUT_NAME
from lookalike.core.encoders import EncoderRecord
from lookalike.core.errors import InvalidRequest
from lookalike.modelbuild.checkpoint import Tensors

OPSET = 17
IR_VERSION = 8

Pads = tuple[int, int, int, int]


def same_padding(size: int, kernel: int, stride: int) -> tuple[Pads, int]:
    """TensorFlow's SAME padding of a square: ((top, left, bottom, right), size of the output).

    The output has ceil(size/stride) cells; an odd total pads one more at the bottom and right.
    """
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    before, after = total // 2, total - total // 2
    return (before, before, after, after), out


class GraphWriter:
    """Collects nodes and weights; every method appends one layer and gives its output's name.

    Parameters
    ----------
    tensors
        The checkpoint, by parameter name.
    bn_epsilon
        Epsilon of every batch norm.
    """

    def __init__(self, tensors: Tensors, bn_epsilon: float) -> None:
        self._tensors = tensors
        self._bn_epsilon = bn_epsilon
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._relu6_bounds: list[str] | None = None

    def conv(
        self, x: str, conv: str, norm: str, *, stride: int = 1, pads: Pads = (0, 0, 0, 0)
    ) -> str:
        """Convolution followed by batch norm, as one convolution with a bias.

        With s = γ/√(σ²+ε): weight s·W, bias β − s·μ (in float64, then rounded once).
        """
        weight = self._tensor(f"{conv}.weight").astype(np.float64)
        scale = self._tensor(f"{norm}.weight") / np.sqrt(
            self._tensor(f"{norm}.running_var").astype(np.float64) + self._bn_epsilon
        )
        bias = self._tensor(f"{norm}.bias") - scale * self._tensor(f"{norm}.running_mean")
        depthwise = weight.shape[1] == 1
        kernel = weight.shape[2]
        return self._node(
            "Conv",
            [
                x,
                self._weight(f"{conv}.weight", weight * scale[:, None, None, None]),
                self._weight(f"{conv}.bias", bias),
            ],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=list(pads),
            group=weight.shape[0] if depthwise else 1,
        )

    def relu6(self, x: str) -> str:
        """min(max(x, 0), 6)."""
        if self._relu6_bounds is None:
            self._relu6_bounds = [
                self._weight("zero", np.array(0.0)),
                self._weight("six", np.array(6.0)),
            ]
        return self._node("Clip", [x, *self._relu6_bounds])

    def relu(self, x: str) -> str:
        """max(x, 0)."""
        return self._node("Relu", [x])

    def add(self, x: str, y: str) -> str:
        """X + y."""
        return self._node("Add", [x, y])

    def max_pool(self, x: str, *, kernel: int, stride: int, padding: int) -> str:
        """Maximum over a square window."""
        return self._node(
            "MaxPool",
            [x],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[padding] * 4,
        )

    def model(self, output: str, record: EncoderRecord) -> onnx.ModelProto:
        """The finished graph, checked: ``images`` (n, 3, S, S) → ``feature_map`` (n, C, h, w)."""
        self._nodes[-1].output[0] = OUTPUT_NAME
        if output != self._nodes[-1].name:
            raise ValueError(f"{output} is not the last layer")
        size, side = record.input_size, record.map_side
        graph = helper.make_graph(
            self._nodes,
            record.name,
            [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, ["n", 3, size, size])],
            [
                helper.make_tensor_value_info(
                    OUTPUT_NAME, TensorProto.FLOAT, ["n", record.dim, side, side]
                )
            ],
            self._weights,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="lookalike",
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def _node(self, op: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{op.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def _weight(self, name: str, values: npt.NDArray[Any]) -> str:
        self._weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def _tensor(self, name: str) -> npt.NDArray[Any]:
        try:
            return self._tensors[name]
        except KeyError:
            raise InvalidRequest(
                f"The checkpoint has no tensor {name}; it is of another network.",
                parameter="weights",
            ) from None
