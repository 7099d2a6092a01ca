"""The second half of ``lookalike eval``: whether explanations point at what the network looks at.

Deletion and insertion in pixels, with the network itself (Petsiuk, Das and Saenko, "RISE", BMVC
2018). What it measures, and what it found, is in docs/explanations.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import click
import numpy as np
import numpy.typing as npt

from local.commands.exits import Failed, Unreachable, WrongUse
from local.commands.terminal import print_table
from lookalike.core.faithfulness import (
    auc,
    centre_blob,
    descending_order,
    prefixes,
    random_maps,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from local.commands.api import Api
    from lookalike.core.encoder import Encoder
    from lookalike.core.images import ImageLimits

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Measure = Literal["deletion", "insertion"]

MAPS = ("gradcam", "contributions")
RANDOM_MAPS = 4
_MEASURES: tuple[Measure, ...] = ("deletion", "insertion")
_BLUR_OF_SIDE = 1 / 20
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Pair:
    """One image of a match, with the maps that explain it, and the image it was matched with."""

    judged: bytes
    other: bytes
    maps: Mapping[str, Float64]
    badge: bool
    space: str


@dataclass(frozen=True, slots=True)
class Areas:
    """Areas under the curves of one pair by map; those of the random maps are (`RANDOM_MAPS`,)."""

    deletion: dict[str, Float64]
    insertion: dict[str, Float64]
    score: float
    blurred_score: float
    badge: bool

    def of(self, measure: Measure) -> dict[str, Float64]:
        """The areas of one measure."""
        return self.deletion if measure == "deletion" else self.insertion


def explained_pairs(
    api: Api, images: Sequence[Path], parameters: Mapping[str, object], count: int, seed: int
) -> Iterator[Pair]:
    """Search with images drawn at random, and fetch the explanation of one result of each.

    By turns the first result and a lower one is taken, and by turns of two the query's image and
    the product's is judged.

    Raises
    ------
    click.ClickException
        The API refused something, cannot be reached, or keeps nothing to explain.
    """
    generator = np.random.default_rng(seed)
    drawn = itertools.islice(itertools.cycle(generator.permutation(len(images))), count)
    for number, index in enumerate(drawn):
        path = images[index]
        answer = api.search_image(path, parameters)
        results = answer["results"]
        if not results:
            raise Failed(f"{path} found nothing that could be explained.")
        lower = int(generator.integers(1, max(len(results), 2)))
        result = results[min(lower, len(results) - 1) if number % 2 else 0]
        if result["explanation_url"] is None:
            raise WrongUse("Searches keep nothing to explain: LOOKALIKE_QUERY_RETENTION_S is 0.")
        product = quote(result["product_id"], safe="")
        explanation = api.get(f"/explanations/{answer['query_id']}/{product}")
        side = ("query", "result")[number // 2 % 2]
        pictures = [path.read_bytes(), api.fetch(result["image_url"])]
        judged, other = pictures if side == "query" else pictures[::-1]
        yield Pair(
            judged,
            other,
            {name: np.asarray(explanation[side][name], dtype=np.float64) for name in MAPS},
            explanation["trust"][side]["better_than_chance"] is True,
            explanation["encoder"],
        )


class Judge:
    """Deletes and inserts pixels of images, and asks the network for the score.

    What is deleted is replaced by the image blurred, and insertion begins with the image blurred:
    both go between the same two ends, and neither draws edges and colours that no photo has.
    """

    def __init__(self, encoder: Encoder, steps: int, seed: int) -> None:
        self._encoder = encoder
        self.min_side = encoder.min_side
        self._steps = steps
        self._seeds = itertools.count(seed)

    def areas(self, judged: Image, other: Image, maps: Mapping[str, Float64], badge: bool) -> Areas:
        """Judge the maps of one image of a match, beside random maps and a centre blob.

        Parameters
        ----------
        judged, other
            RGB, upright. The score is the cosine of their raw embeddings: a generation's head is
            not part of it.
        maps
            (h, w) by name.
        badge
            What the explanation says of its Grad-CAM.
        """
        from PIL import ImageFilter

        from lookalike.core.encoder import preprocess
        from lookalike.core.geometry import seen_square

        (target,) = self._encoder.embed([other]).embeddings
        radius = seen_square(*judged.size, self._encoder.record)[2] * _BLUR_OF_SIDE
        blurred = judged.filter(ImageFilter.GaussianBlur(radius))
        sharp, soft = preprocess([judged, blurred], self._encoder.record)
        score, blurred_score = self._encoder.encode(np.stack([sharp, soft])).embeddings @ target
        ends = float(score), float(blurred_score)

        def judge(heat: Float64) -> tuple[float, float]:
            taken = prefixes(descending_order(upsampled(heat, sharp.shape[1])), self._steps)[1:-1]
            masks = taken.reshape(-1, 1, *sharp.shape[1:])
            deleted = self._encoder.encode(np.where(masks, soft, sharp)).embeddings @ target
            inserted = self._encoder.encode(np.where(masks, sharp, soft)).embeddings @ target
            return (
                float(auc([ends[0], *deleted, ends[1]])),
                float(auc([ends[1], *inserted, ends[0]])),
            )

        rows, columns = next(iter(maps.values())).shape
        grid = rows, columns
        heats = {**maps, "centre": centre_blob(grid)}
        judgements = {name: np.array(judge(heat)) for name, heat in heats.items()}
        judgements["random"] = np.array(
            [judge(heat) for heat in random_maps(grid, RANDOM_MAPS, next(self._seeds))]
        ).T
        deletion, insertion = (
            {name: areas[row] for name, areas in judgements.items()} for row in (0, 1)
        )
        return Areas(deletion, insertion, *ends, badge)


def upsampled(heat: Float64, side: int) -> Float32:
    """(h, w) by cells → (side, side) by pixels, bicubic."""
    from PIL import Image

    cells = Image.fromarray(heat.astype(np.float32))
    return np.asarray(cells.resize((side, side), Image.Resampling.BICUBIC))


def measure(
    pairs: Iterable[Pair],
    judge_of: Callable[[str], Judge],
    limits: ImageLimits,
    advance: Callable[[], None] = lambda: None,
) -> list[Areas]:
    """Judge pairs, each by the judge of its space."""
    from lookalike.core.images import decode

    measured = []
    for pair in pairs:
        judge = judge_of(pair.space)
        judged, other = (
            decode(body, limits, judge.min_side).image for body in (pair.judged, pair.other)
        )
        measured.append(judge.areas(judged, other, pair.maps, pair.badge))
        advance()
    return measured


def judge_of_spaces(precision: str, folder: Path, steps: int, seed: int) -> Callable[[str], Judge]:
    """Judges by space, made when first asked for.

    They raise `Unreachable` when the encoder is not built on this machine; the message says which
    command builds it.
    """

    @cache
    def judge_of(space: str) -> Judge:
        from lookalike.core.encoder import Encoder
        from lookalike.core.encoders import parse_space
        from lookalike.core.errors import Unavailable
        from lookalike.models import find_model

        record, pooling = parse_space(space)
        try:
            path = find_model(record, precision, folder)
        except Unavailable as error:
            raise Unreachable(str(error)) from error
        return Judge(Encoder(path, record, pooling), steps, seed)

    return judge_of


def summary(measured: Sequence[Areas]) -> dict[str, Any]:
    """Means over pairs, paired differences from random maps and the centre, and what badges say.

    ``better`` is the share of pairs in which a map is better; ``z`` is the mean of the paired
    differences in standard errors, above 0 when the map is better.
    """
    return {
        "pairs": len(measured),
        "score": _mean([item.score for item in measured]),
        "score_of_blurred": _mean([item.blurred_score for item in measured]),
        **{name: _by_map(measured, name) for name in _MEASURES},
        "badge": _badge(measured),
    }


def _by_map(measured: Sequence[Areas], name: Measure) -> dict[str, Any]:
    areas = {
        of: np.array([float(np.mean(item.of(name)[of])) for item in measured])
        for of in (*MAPS, "centre", "random")
    }
    sign = 1 if name == "insertion" else -1
    return {
        of: _mean(values)
        | {
            f"against_{other}": _paired(sign * (values - areas[other]))
            for other in ("random", "centre")
            if other != of
        }
        for of, values in areas.items()
    }


def _badge(measured: Sequence[Areas]) -> dict[str, Any]:
    """How often the badge is right: it should be true where Grad-CAM beats random in pixels."""
    badge = np.array([item.badge for item in measured])
    gaps = [
        [float(np.mean(item.insertion[of] - item.deletion[of])) for of in ("gradcam", "random")]
        for item in measured
    ]
    better = np.array([gradcam > random for gradcam, random in gaps])
    return {
        "true": int(badge.sum()),
        "agrees": float((badge == better).mean()),
        "better_in_pixels": float(better.mean()),
        "better_in_pixels_where_true": float(better[badge].mean()) if badge.any() else None,
        "better_in_pixels_where_false": float(better[~badge].mean()) if (~badge).any() else None,
    }


def _mean(values: npt.ArrayLike) -> dict[str, float]:
    sample = np.asarray(values, dtype=np.float64)
    return {"mean": float(sample.mean()), "standard_error": _standard_error(sample)}


def _paired(gains: Float64) -> dict[str, float | None]:
    error = _standard_error(gains)
    return {
        "better": float((gains > 0).mean()),
        "gain": float(gains.mean()),
        "z": float(gains.mean() / error) if error > _ROUNDING else None,
    }


def _standard_error(sample: Float64) -> float:
    return float(sample.std(ddof=1) / np.sqrt(len(sample))) if len(sample) > 1 else 0.0


def show(result: Mapping[str, Any]) -> None:
    """Print a summary as tables."""
    for name in _MEASURES:
        low = name == "deletion"
        print_table(
            (
                f"{name.capitalize()} ({'low' if low else 'high'} is good)",
                ">AUC",
                ">±",
                ">better than random",
                ">z",
                ">than centre",
                ">z",
            ),
            (
                (
                    of,
                    f"{values['mean']:.4f}",
                    f"{values['standard_error']:.4f}",
                    *_against(values.get("against_random")),
                    *_against(values.get("against_centre")),
                )
                for of, values in result[name].items()
            ),
        )
    badge = result["badge"]
    click.echo(
        f"{result['pairs']} matches; score {result['score']['mean']:.3f}, "
        f"of blurred images {result['score_of_blurred']['mean']:.3f}. "
        f"{badge['true']} are called better than chance; "
        f"pixels agree in {100 * badge['agrees']:.0f} %."
    )


def _against(paired: Mapping[str, Any] | None) -> tuple[str, str]:
    if paired is None:
        return "", ""
    return f"{100 * paired['better']:.0f} %", "" if paired["z"] is None else f"{paired['z']:+.1f}"
