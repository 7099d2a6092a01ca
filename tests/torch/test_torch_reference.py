"""Every ONNX graph against torch: the feature map of the same weights on the same images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lookalike.core.encoder import Encoder, preprocess
from lookalike.core.encoders import ENCODERS, EncoderRecord
from lookalike.core.errors import InvalidRequest, Unavailable
from lookalike.modelbuild import build_model
from lookalike.modelbuild.calibration import calibration_images
from lookalike.modelbuild.checkpoint import read_checkpoint

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")
nn = torch.nn

pytestmark = pytest.mark.torch

LITES = [record for record in ENCODERS.values() if record.architecture == "efficientnet-lite"]


class SameConv(nn.Conv2d):  # type: ignore[misc,name-defined]
    """Convolution with TensorFlow's SAME padding, computed from the input."""

    def forward(self, x: Any) -> Any:
        kernel, stride = self.kernel_size[0], self.stride[0]
        pads = []
        for size in (x.shape[-1], x.shape[-2]):
            total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(nn.functional.pad(x, pads))


def rounded(width: float) -> int:
    """Channels to a multiple of 8, never more than 10 % below (EfficientNet's rule)."""
    channels = max(8, int(width + 4) // 8 * 8)
    return channels + 8 if channels < 0.9 * width else channels


class Block(nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv = SameConv(inputs, inner, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(inner, eps=1e-3)
        self._depthwise_conv = SameConv(inner, inner, kernel, stride, groups=inner, bias=False)
        self._bn1 = nn.BatchNorm2d(inner, eps=1e-3)
        self._project_conv = SameConv(inner, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=1e-3)
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x: Any) -> Any:
        y = nn.functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = nn.functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.skips else y


class EfficientNetLite(nn.Module):  # type: ignore[misc,name-defined]
    """The published architecture, written from the paper's table and the Lite rules."""

    def __init__(self, width: float, depth: float) -> None:
        super().__init__()
        stages = [  # repeats, kernel, stride, expansion, outputs
            (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
            (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
        ]  # fmt: skip
        self._conv_stem = SameConv(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        blocks, inputs = [], 32
        for index, (repeats, kernel, stride, expansion, base) in enumerate(stages):
            outputs = rounded(base * width)
            count = repeats if index in (0, 6) else math.ceil(repeats * depth)
            for repeat in range(count):
                step = stride if repeat == 0 else 1
                blocks.append(Block(inputs, outputs, kernel, step, expansion))
                inputs = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SameConv(inputs, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=1e-3)
        self._fc = nn.Linear(1280, 1000)

    def features(self, x: Any) -> Any:
        x = nn.functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return nn.functional.relu6(self._bn1(self._conv_head(x)))


def assert_same_features(graph: Path, record: EncoderRecord, reference: Any) -> None:
    batch = preprocess(calibration_images(3, seed=5), record)
    with torch.inference_mode():
        expected = reference(torch.from_numpy(batch)).numpy()

    got = Encoder(graph, record, "gap").feature_maps(batch)

    assert got.shape == expected.shape == (3, record.dim, record.map_side, record.map_side)
    assert expected.std() > 0.01  # a dead network would agree with anything
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * max(1.0, expected.max()))


@pytest.mark.parametrize("record", LITES, ids=lambda record: record.name)
def test_efficientnet_lite(record: EncoderRecord, tmp_path: Path) -> None:
    from importlib import metadata

    weights = metadata.distribution(record.distribution).locate_file(record.weights_file)
    network = EfficientNetLite(record.width, record.depth)
    network.load_state_dict(torch.load(str(weights), weights_only=True), strict=True)
    network.eval()

    assert_same_features(build_model(record.name, "fp32", tmp_path), record, network.features)


@pytest.fixture(scope="module")
def resnet() -> Any:
    """ResNet-50 with random weights and batch norms that do something."""
    torch.manual_seed(3)
    network = torchvision.models.resnet50(weights=None)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.5)
    return network.eval()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_resnet50_from_a_weights_file(resnet: Any, zipped: bool, tmp_path: Path) -> None:
    record = ENCODERS["resnet50"]
    weights = tmp_path / "resnet50.pth"
    torch.save(resnet.state_dict(), weights, _use_new_zipfile_serialization=zipped)

    graph = build_model("resnet50", "fp32", tmp_path / "models", weights=weights)

    features = nn.Sequential(*list(resnet.children())[:-2])
    assert_same_features(graph, record, features)


def test_resnet50_quantized(resnet: Any, tmp_path: Path) -> None:
    record = ENCODERS["resnet50"]
    weights = tmp_path / "resnet50.pth"
    torch.save(resnet.state_dict(), weights)
    images = calibration_images(8)

    exact, quantized = (
        Encoder(
            build_model("resnet50", precision, tmp_path, weights=weights, calibration=images),
            record,
            "gap",
        ).embed(images[:3])
        for precision in ("fp32", "int8")
    )

    assert (exact.embeddings * quantized.embeddings).sum(axis=1).min() > 0.98


def test_resnet50_preprocessing_is_torchvisions() -> None:
    record = ENCODERS["resnet50"]
    transform = torchvision.models.ResNet50_Weights.IMAGENET1K_V2.transforms()
    image = calibration_images(1, seed=9)[0].resize((456, 348))

    got = preprocess([image], record)[0]

    assert transform.crop_size == [record.input_size]
    assert transform.resize_size == [record.resize_side]
    np.testing.assert_allclose(np.array(transform.mean) * 255, record.mean, rtol=1e-6)
    np.testing.assert_allclose(np.array(transform.std) * 255, record.std, rtol=1e-6)
    # One step of 1/255 where torchvision rounds between its passes.
    np.testing.assert_allclose(got, transform(image).numpy(), atol=1.01 / min(record.std))


def test_download_that_fails_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)

    with pytest.raises(Unavailable, match=r"no route to host.*--weights FILE"):
        build_model("resnet50", "fp32", tmp_path)
    assert not list(tmp_path.iterdir())


def test_download_is_checked_and_built(
    resnet: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(url: str, target: str, hash_prefix: str, progress: bool) -> None:
        assert url == torchvision.models.ResNet50_Weights.IMAGENET1K_V2.url
        assert url.endswith(f"-{hash_prefix}.pth")
        torch.save(resnet.state_dict(), target)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)

    with pytest.raises(InvalidRequest, match="expected 11ad3fa6"):
        build_model("resnet50", "fp32", tmp_path)


def test_reader_agrees_with_torch(tmp_path: Path) -> None:
    base = torch.arange(48, dtype=torch.float32).reshape(4, 3, 2, 2)
    state = {
        "plain": base,
        "channels_last": base.to(memory_format=torch.channels_last),
        "view": base[1:, 1],
        "half": base.half(),
        "double": base.double(),
        "count": torch.tensor(7),
        "flags": torch.tensor([True, False]),
        "empty": torch.empty(0, 3),
    }
    for zipped in (True, False):
        path = tmp_path / f"{zipped}.pth"
        torch.save(state, path, _use_new_zipfile_serialization=zipped)

        tensors = read_checkpoint(path)

        assert tensors.keys() == state.keys()
        assert all(np.array_equal(tensors[name], state[name].numpy()) for name in state)


def test_pickled_module_is_refused(resnet: Any, tmp_path: Path) -> None:
    path = tmp_path / "module.pth"
    torch.save(resnet, path)

    with pytest.raises(InvalidRequest, match=r"torchvision\.models\.resnet\.ResNet"):
        build_model("resnet50", "fp32", tmp_path / "models", weights=path)
