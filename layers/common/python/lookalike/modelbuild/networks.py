"""The two networks as graphs: EfficientNet-Lite and ResNet-50, both up to the last feature map."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lookalike.core.encoder import INPUT_NAME
from lookalike.core.encoders import EncoderRecord
from lookalike.modelbuild.checkpoint import Tensors
from lookalike.modelbuild.graph import GraphWriter, Pads, same_padding

if TYPE_CHECKING:
    import onnx

# (repeats, kernel, stride, expansion) of the seven stages of EfficientNet-B0, which Lite scales:
# Tan and Le, https://arxiv.org/abs/1905.11946, table 1; widths are read from the weights.
_LITE_STAGES = (
    (1, 3, 1, 1),
    (2, 3, 2, 6),
    (2, 5, 2, 6),
    (3, 3, 2, 6),
    (3, 5, 1, 6),
    (4, 5, 2, 6),
    (1, 3, 1, 6),
)
_LITE_BN_EPSILON = 1e-3

# (blocks, stride) of the four stages: He et al., https://arxiv.org/abs/1512.03385, table 1.
_RESNET50_STAGES = ((3, 1), (4, 2), (6, 2), (3, 2))
_RESNET_BN_EPSILON = 1e-5


def build_graph(record: EncoderRecord, tensors: Tensors) -> onnx.ModelProto:
    """The ONNX graph of an encoder with the weights of a checkpoint.

    Raises
    ------
    InvalidRequest
        The checkpoint is of another network; the message names the missing tensor.
    """
    if record.architecture == "efficientnet-lite":
        return _efficientnet_lite(record, tensors)
    return _resnet50(record, tensors)


def _efficientnet_lite(record: EncoderRecord, tensors: Tensors) -> onnx.ModelProto:
    """MBConv blocks without squeeze-and-excitation, ReLU6, stem and head never scaled."""
    graph = GraphWriter(tensors, _LITE_BN_EPSILON)
    pads, size = same_padding(record.input_size, 3, 2)
    x = graph.relu6(graph.conv(INPUT_NAME, "_conv_stem", "_bn0", stride=2, pads=pads))
    block = 0
    last = len(_LITE_STAGES) - 1
    for stage, (repeats, kernel, stage_stride, expansion) in enumerate(_LITE_STAGES):
        scaled = repeats if stage in {0, last} else math.ceil(record.depth * repeats)
        for repeat in range(scaled):
            stride = stage_stride if repeat == 0 else 1
            pads, size = same_padding(size, kernel, stride)
            skip = x if repeat > 0 else None
            x = _mbconv(graph, x, f"_blocks.{block}", stride, pads, expansion)
            if skip is not None:
                x = graph.add(x, skip)
            block += 1
    return graph.model(graph.relu6(graph.conv(x, "_conv_head", "_bn1")), record)


def _mbconv(graph: GraphWriter, x: str, block: str, stride: int, pads: Pads, expansion: int) -> str:
    if expansion != 1:
        x = graph.relu6(graph.conv(x, f"{block}._expand_conv", f"{block}._bn0"))
    x = graph.conv(x, f"{block}._depthwise_conv", f"{block}._bn1", stride=stride, pads=pads)
    return graph.conv(graph.relu6(x), f"{block}._project_conv", f"{block}._bn2")


def _resnet50(record: EncoderRecord, tensors: Tensors) -> onnx.ModelProto:
    """Bottleneck blocks with the stride in the 3x3 convolution, as torchvision has them."""
    graph = GraphWriter(tensors, _RESNET_BN_EPSILON)
    x = graph.relu(graph.conv(INPUT_NAME, "conv1", "bn1", stride=2, pads=(3, 3, 3, 3)))
    x = graph.max_pool(x, kernel=3, stride=2, padding=1)
    for stage, (blocks, stage_stride) in enumerate(_RESNET50_STAGES, start=1):
        for block in range(blocks):
            stride = stage_stride if block == 0 else 1
            name = f"layer{stage}.{block}"
            skip = x
            if block == 0:
                skip = graph.conv(x, f"{name}.downsample.0", f"{name}.downsample.1", stride=stride)
            x = graph.relu(graph.conv(x, f"{name}.conv1", f"{name}.bn1"))
            pads = (1, 1, 1, 1)
            x = graph.relu(graph.conv(x, f"{name}.conv2", f"{name}.bn2", stride=stride, pads=pads))
            x = graph.add(graph.conv(x, f"{name}.conv3", f"{name}.bn3"), skip)
            x = graph.relu(x)
    return graph.model(x, record)
