"""``lookalike eval --explanations``: deletion and insertion, by an encoder that can be foreseen."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from local.cli import cli
from local.commands.evaluate_explanations import (
    MAPS,
    RANDOM_MAPS,
    Areas,
    Judge,
    explained_pairs,
    summary,
    upsampled,
)
from local.commands.exits import Failed, WrongUse
from lookalike.core.encoder import Encoded
from lookalike.core.encoders import encoder_record

SPACE = "efficientnet-lite0-border-v1"
LEFT = np.tile(np.linspace(1, 0, 7), (7, 1))


class HalvesEncoder:
    """Sees how much detail an image has on the left and on the right."""

    def __init__(self, *_: object) -> None:
        self.record = replace(encoder_record("efficientnet-lite0"), input_size=28, resize_side=32)
        self.min_side = 64
        self.images = 0

    def encode(self, batch: np.ndarray) -> Encoded:
        self.images += len(batch)
        halves = np.stack([batch[..., :14].std((1, 2, 3)), batch[..., 14:].std((1, 2, 3))], axis=1)
        lengths = np.maximum(np.linalg.norm(halves, axis=1, keepdims=True), 1e-9)
        nothing = np.empty((0, 0, 0, 0), np.float32)
        return Encoded((halves / lengths).astype(np.float32), nothing, nothing)

    def embed(self, images: list[Image.Image]) -> Encoded:
        from lookalike.core.encoder import preprocess

        return self.encode(preprocess(images, self.record))


def photo(left: int, right: int) -> Image.Image:
    """Stripes, of so much contrast on the left and on the right."""
    stripes = np.tile(np.repeat([0, 1], 4), 8)[:, None, None]
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, :32], pixels[:, 32:] = stripes * left, stripes * right
    return Image.fromarray(pixels)


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


class FakeApi:
    """Answers with the same results and explanation, and notes what was asked."""

    explanation_url: str | None = "http://api/explanations/q/p"

    def __init__(self, *_: object, results: int = 5) -> None:
        self.results = results
        self.asked: list[str] = []

    def __enter__(self) -> FakeApi:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def search_image(self, image: Path, query: Mapping[str, object]) -> Any:
        results = [
            {
                "product_id": f"shoe/{rank}",
                "image_url": f"http://pictures/{rank}",
                "explanation_url": self.explanation_url,
            }
            for rank in range(1, self.results + 1)
        ]
        return {"query_id": image.stem, "results": results}

    def get(self, path: str) -> Any:
        self.asked.append(path)
        heat = {"gradcam": LEFT.tolist(), "contributions": LEFT[:, ::-1].tolist()}
        trust = {"query": {"better_than_chance": True}, "result": {"better_than_chance": False}}
        return {"encoder": SPACE, "query": heat, "result": heat, "trust": trust}

    def fetch(self, url: str) -> bytes:
        return png(photo(200, 0))


def test_a_map_is_spread_over_the_pixels() -> None:
    heat = np.zeros((7, 7))
    heat[2, 5] = 1

    pixels = upsampled(heat, 224)

    assert pixels.shape == (224, 224)
    row, column = np.unravel_index(pixels.argmax(), pixels.shape)
    assert (row // 32, column // 32) == (2, 5)


def test_the_half_that_matches_falls_first_and_rises_first() -> None:
    encoder = HalvesEncoder()
    judge = Judge(encoder, steps=4, seed=0)
    areas = judge.areas(
        photo(250, 200), photo(250, 0), {"gradcam": LEFT, "contributions": LEFT[:, ::-1]}, True
    )

    assert areas.deletion["gradcam"] < areas.deletion["contributions"]
    assert areas.insertion["gradcam"] > areas.insertion["contributions"]
    assert areas.score == pytest.approx(250 / np.hypot(250, 200), abs=0.03)
    assert areas.badge
    # A map and the same backwards: what the one deletes the other inserts, from the other end.
    assert areas.deletion["gradcam"] == pytest.approx(areas.insertion["contributions"], abs=1e-4)
    assert areas.deletion["random"].shape == (RANDOM_MAPS,)
    # The other image, both ends, and three steps between them for each map.
    assert encoder.images == 3 + 2 * 3 * (len(MAPS) + 1 + RANDOM_MAPS)


def test_ranks_and_sides_take_turns(tmp_path: Path) -> None:
    images = [tmp_path / f"{name}.png" for name in "abc"]
    for image in images:
        image.write_bytes(png(photo(0, 200)))
    api = FakeApi()

    pairs = list(explained_pairs(api, images, {"k": 5}, 8, seed=0))

    assert [pair.badge for pair in pairs] == [True, True, False, False] * 2
    assert [pair.judged == images[0].read_bytes() for pair in pairs] == [
        pair.badge for pair in pairs
    ]
    assert all(pair.judged != pair.other for pair in pairs)
    ranks = [int(path.rpartition("%2F")[2]) for path in api.asked]
    assert ranks[::2] == [1] * 4 and min(ranks[1::2]) > 1
    assert {path.split("/")[2] for path in api.asked} == {"a", "b", "c"}
    np.testing.assert_array_equal(pairs[0].maps["gradcam"], LEFT)


def test_one_result_is_always_the_one(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(photo(0, 200)))
    api = FakeApi(results=1)

    assert len(list(explained_pairs(api, [tmp_path / "a.png"], {}, 3, seed=0))) == 3


def test_nothing_to_explain(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="found nothing"):
        next(explained_pairs(FakeApi(results=0), [tmp_path / "a.png"], {}, 1, seed=0))
    api = FakeApi()
    api.explanation_url = None
    with pytest.raises(WrongUse, match="QUERY_RETENTION_S"):
        next(explained_pairs(api, [tmp_path / "a.png"], {}, 1, seed=0))


def areas_of(gradcam: float, random: tuple[float, float], badge: bool) -> Areas:
    """Deletion areas as given, insertion areas 1 − those."""
    deletion = {
        "gradcam": np.float64(gradcam),
        "contributions": np.float64(0.2),
        "centre": np.float64(0.4),
        "random": np.array(random),
    }
    insertion = {name: 1 - np.asarray(value) for name, value in deletion.items()}
    return Areas(deletion, insertion, 0.8, 0.1, badge)


def test_summary_by_hand() -> None:
    measured = [
        areas_of(0.3, (0.4, 0.6), True),
        areas_of(0.5, (0.4, 0.4), True),
        areas_of(0.1, (0.5, 0.5), False),
    ]

    found = summary(measured)

    assert found["pairs"] == 3
    assert found["score"]["mean"] == pytest.approx(0.8)
    deletion = found["deletion"]["gradcam"]
    assert deletion["mean"] == pytest.approx(0.3)
    assert deletion["standard_error"] == pytest.approx(0.2 / np.sqrt(3))
    against = deletion["against_random"]  # 0.5, 0.4, 0.5 minus 0.3, 0.5, 0.1: 0.2, −0.1, 0.4
    assert against["better"] == pytest.approx(2 / 3)
    assert against["gain"] == pytest.approx(0.5 / 3)
    gains = np.array([0.2, -0.1, 0.4])
    assert against["z"] == pytest.approx(gains.mean() / gains.std(ddof=1) * np.sqrt(3))
    assert found["insertion"]["gradcam"]["against_random"] == pytest.approx(against)
    assert found["deletion"]["contributions"]["against_centre"]["better"] == 1.0
    assert found["deletion"]["contributions"]["against_centre"]["z"] is None  # no spread, no error
    assert "against_random" not in found["deletion"]["random"]
    assert found["badge"] == {
        "true": 2,
        "agrees": pytest.approx(1 / 3),
        "better_in_pixels": pytest.approx(2 / 3),
        "better_in_pixels_where_true": 0.5,
        "better_in_pixels_where_false": 1.0,
    }


def test_summary_of_one_pair() -> None:
    found = summary([areas_of(0.3, (0.4, 0.6), True)])

    assert found["deletion"]["gradcam"]["standard_error"] == 0
    assert found["deletion"]["gradcam"]["against_random"]["z"] is None
    assert found["badge"]["better_in_pixels_where_false"] is None


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "q.png").write_bytes(png(photo(250, 200)))
    path = tmp_path / "manifest.csv"
    path.write_text(
        "file,split,product_id,category\nc.png,catalogue,a,shoes\nq.png,queries,b,shoes\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOOKALIKE_API_URL", "http://api")
    monkeypatch.setenv("LOOKALIKE_MODEL_DIR", str(tmp_path / "models"))
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setattr("local.commands.api.Api", FakeApi)
    return path


def test_the_command(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookalike.models.find_model", lambda *_: manifest)
    monkeypatch.setattr("lookalike.core.encoder.Encoder", HalvesEncoder)
    command = ["eval", str(manifest), "--explanations", "--pairs", "4", "--steps", "3"]

    result = CliRunner().invoke(cli, [*command, "--json"])

    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert (found["pairs"], found["steps"], found["badge"]["true"]) == (4, 3, 2)
    assert found["deletion"]["gradcam"]["mean"] < found["deletion"]["contributions"]["mean"]
    table = CliRunner().invoke(cli, command)
    assert table.exit_code == 0, table.output
    mean = f"{found['insertion']['gradcam']['mean']:.4f}"
    assert any(line.split()[:2] == ["gradcam", mean] for line in table.output.splitlines())
    assert "4 matches" in table.output and "2 are called better than chance" in table.output


def test_an_encoder_that_is_not_built(manifest: Path) -> None:
    result = CliRunner().invoke(cli, ["eval", str(manifest), "--explanations"])

    assert result.exit_code == 3
    assert "lookalike model build efficientnet-lite0" in result.output
