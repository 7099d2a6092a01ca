"""What may be wrong with a catalogue, told from its photos: the kinds of findings, and most rules.

Pure: a rule goes over rows, one a view, whose facts, neighbours and copies are known, and says what
it found in a merchant's words, with the numbers behind it. Near-linear in the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lookalike.core.image_quality import Facts
from lookalike.core.neighbours import Neighbours
from lookalike.core.types import Scalar

KINDS = (
    "near-duplicate",
    "wrong-category",
    "outlier",
    "low-quality",
    "never-shown",
    "thin-category",
)

NEIGHBOURS = 10
"""Neighbours of each view that rules look at."""
COPY = np.dtype(
    [
        ("left", "<i8"),
        ("right", "<i8"),
        ("match", "<f4"),
        ("bits", "u1"),  # of the hashes that differ
        ("mirrored", "u1"),
        ("cropped", "u1"),
    ]
)
"""Two rows that show the same photo."""

MIN_SIDE = 200
MIN_CONTRAST = 5.0
MIN_BRIGHTNESS = 60.0
MAX_BLUR = 0.5
MIN_SEARCHES = 100
SHOWN_AFTER_S = 86_400.0
_COPY_COSINE = 0.97
_NEAREST = 5
_DEVIATIONS = 4.0
_MIN_MEMBERS = 20
_FEW_PRODUCTS = 5
_FEW_SHARE = 0.1
_LISTED_ROWS = 20
_MONTHS_S = 90 * 86_400.0

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Found:
    """One finding about some rows: ``weight`` says how bad it is or how sure, 0 to 1."""

    kind: str
    code: str
    reason: str
    weight: float
    rows: tuple[int, ...]
    evidence: Mapping[str, Scalar] = field(default_factory=dict)
    category: str = ""


@dataclass(frozen=True, slots=True)
class Rows:
    """A catalogue's live views, n of them.

    ``products`` (n,) hashes of product ids; ``categories`` (n,) places in ``names``, -1 for none;
    ``sides`` (n,) the shorter side of the photo in pixels; ``since`` (n,) epoch seconds from which
    on it could be found; ``facts`` (n,) of its thumbnail, with an aspect of 0 where there is none.
    """

    products: UInt64
    categories: Int32
    names: tuple[str, ...]
    sides: Int32
    since: Float64
    facts: Facts

    def __len__(self) -> int:
        return len(self.products)


@dataclass(frozen=True, slots=True)
class ShownProducts:
    """``hashes`` sorted, of the products that ``searches`` until ``through_at`` have shown."""

    hashes: UInt64
    searches: int
    through_at: float


def near_duplicates(rows: Rows, copies: npt.NDArray[np.void]) -> list[Found]:
    """Groups of views that show one photo: ``copies`` are of `COPY`."""
    found = []
    for members, pairs in _groups(copies):
        products = len(np.unique(rows.products[members]))
        kind, what = _kind_of_copy(pairs)
        where = f"{products} products show" if products > 1 else "One product has"
        times = "" if products > 1 else f" {len(members)} times"
        match = float(pairs["match"].min())
        evidence: dict[str, Scalar] = {
            "photos": len(members),
            "products": products,
            "match": round(match, 3),
            "hash_bits": int(pairs["bits"].max()),
        }
        reason = f"{where} the same photo{times}{what}."
        listed = tuple(members[:_LISTED_ROWS].tolist())
        found.append(Found(KINDS[0], kind, reason, min(match, 1.0), listed, evidence))
    return found


def _kind_of_copy(pairs: npt.NDArray[np.void]) -> tuple[str, str]:
    if pairs["cropped"].any():
        return "cropped", ", once cut to a part of it"
    if pairs["mirrored"].any():
        return "mirrored", ", once mirrored"
    return "same-photo", ""


def _groups(copies: npt.NDArray[np.void]) -> list[tuple[Int64, npt.NDArray[np.void]]]:
    """Rows that copies connect, ascending, with the copies that connect them."""
    names, places = np.unique(
        np.concatenate([copies["left"], copies["right"]]), return_inverse=True
    )
    left, right = places[: len(copies)], places[len(copies) :]
    root = np.arange(len(names))
    while True:
        lowest = root.copy()
        np.minimum.at(lowest, root[left], root[right])
        np.minimum.at(lowest, root[right], root[left])
        lowest = lowest[lowest]
        lowest = lowest[root]
        if (lowest == root).all():
            break
        root = lowest
    order, pair_order = np.argsort(root, kind="stable"), np.argsort(root[left], kind="stable")
    ends = np.flatnonzero(np.diff(root[order])) + 1
    pair_ends = np.flatnonzero(np.diff(root[left][pair_order])) + 1
    members = np.split(names[order], ends)
    pairs = np.split(copies[pair_order], pair_ends)
    return list(zip(members, pairs, strict=True)) if len(copies) else []


def outliers(rows: Rows, neighbours: Neighbours) -> list[Found]:
    """Products that look like nothing else, while others of their category have company."""
    line, other = comparable(rows, neighbours, copies=True)
    cosines = np.full(neighbours.rows.shape, np.nan, np.float32)
    column = np.nonzero(comparable_mask(rows, neighbours, copies=True))[1]
    cosines[line, column] = neighbours.cosines[line, column]
    counted = np.cumsum(~np.isnan(cosines), axis=1) <= _NEAREST
    sums = np.where(counted, np.nan_to_num(cosines), 0).sum(axis=1)
    near = sums / np.maximum((counted & ~np.isnan(cosines)).sum(axis=1), 1)
    del other
    # A product is as near to others as the best of its views.
    distinct, first, number = np.unique(rows.products, return_index=True, return_inverse=True)
    nearness = np.full(len(distinct), -1.0)
    np.maximum.at(nearness, number, near)
    category = rows.categories[first]
    found = []
    order = np.argsort(category, kind="stable")
    starts = np.searchsorted(category[order], np.arange(len(rows.names) + 1))
    for place, name in enumerate(rows.names):
        members = order[starts[place] : starts[place + 1]]
        if len(members) < _MIN_MEMBERS:
            continue
        values = nearness[members]
        median = float(np.median(values))
        spread = 1.4826 * float(np.median(np.abs(values - median)))
        limit = median - _DEVIATIONS * max(spread, 0.01)
        for member in members[values < limit].tolist():
            value = float(nearness[member])
            reason = (
                f"It looks like nothing else in the catalogue; others in “{name}” have products "
                "that look much like them."
            )
            evidence: dict[str, Scalar] = {
                "category": name,
                "cosine": round(value, 3),
                "usual_cosine": round(median, 3),
                "deviations": round((median - value) / max(spread, 0.01), 1),
            }
            weight = min(1.0, max(0.0, median - value))
            row = (int(first[member]),)
            found.append(Found(KINDS[2], "unlike-others", reason, weight, row, evidence, name))
    return found


def comparable_mask(rows: Rows, neighbours: Neighbours, *, copies: bool = False) -> Mask:
    """(n, k) which neighbours are of another product, and, unless ``copies``, no copies."""
    others = neighbours.rows
    known = others >= 0
    known &= rows.products[np.maximum(others, 0)] != rows.products[:, None]
    return known if copies else known & (neighbours.cosines <= _COPY_COSINE)


def comparable(rows: Rows, neighbours: Neighbours, *, copies: bool = False) -> tuple[Int64, Int64]:
    """Rows with each of their neighbours that count."""
    line, column = np.nonzero(comparable_mask(rows, neighbours, copies=copies))
    return line, neighbours.rows[line, column].astype(np.int64)


def low_quality(rows: Rows) -> list[Found]:
    """Photos that show too little: near-blank, tiny, dark or blurred; the gravest fault of each."""
    facts = rows.facts
    is_known = facts["aspect"] > 0
    blank = is_known & (facts["contrast"] < MIN_CONTRAST)
    tiny = ~blank & (rows.sides < MIN_SIDE)
    dark = is_known & ~blank & ~tiny & (facts["brightness"] < MIN_BRIGHTNESS)
    blurred = is_known & ~blank & ~tiny & ~dark & (facts["blur"] > MAX_BLUR)
    found = []
    for row in np.flatnonzero(blank).tolist():
        value = float(facts["contrast"][row])
        found.append(_poor(row, "near-blank", "The photo is nearly blank.", 1.0, "contrast", value))
    for row in np.flatnonzero(tiny).tolist():
        side = int(rows.sides[row])
        reason = f"The photo is tiny: its shorter side has {side} pixels; give at least {MIN_SIDE}."
        found.append(_poor(row, "tiny", reason, 1 - side / MIN_SIDE, "shorter_side", side))
    for row in np.flatnonzero(dark).tolist():
        value = float(facts["brightness"][row])
        weight = 1 - value / MIN_BRIGHTNESS
        reason = "The photo is very dark, even where it is brightest."
        found.append(_poor(row, "dark", reason, weight, "brightness", value))
    for row in np.flatnonzero(blurred).tolist():
        value = float(facts["blur"][row])
        found.append(_poor(row, "blurred", "The photo is blurred.", value, "blur", value))
    return found


def _poor(row: int, code: str, reason: str, weight: float, name: str, value: float) -> Found:
    rounded = value if isinstance(value, int) else round(value, 3)
    return Found(KINDS[3], code, reason, min(max(weight, 0.0), 1.0), (row,), {name: rounded})


def never_shown(rows: Rows, shown: ShownProducts | None) -> list[Found]:
    """Products that could be found for a day at least, and that no search has shown."""
    if shown is None or shown.searches < MIN_SEARCHES or not len(rows):
        return []
    distinct, first, number = np.unique(rows.products, return_index=True, return_inverse=True)
    since = np.full(len(distinct), np.inf)
    np.minimum.at(since, number, rows.since)
    waited_s = shown.through_at - since
    missing = ~np.isin(distinct, shown.hashes) & (waited_s >= SHOWN_AFTER_S)
    found = []
    for product in np.flatnonzero(missing).tolist():
        days = int(waited_s[product] // 86_400)
        reason = (
            f"None of {shown.searches:,} searches has shown it, and it could be found for "
            f"{days} day{'s' if days != 1 else ''}."
        )
        evidence: dict[str, Scalar] = {"searches": shown.searches, "days": days}
        weight = min(1.0, float(waited_s[product]) / _MONTHS_S)
        row = (int(first[product]),)
        found.append(Found(KINDS[4], "never-shown", reason, weight, row, evidence))
    return found


def thin_categories(rows: Rows) -> list[Found]:
    """Categories with so few products that a search among them has little to show."""
    _, first = np.unique(rows.products, return_index=True)
    categories = rows.categories[first]
    counts = np.bincount(categories[categories >= 0], minlength=len(rows.names))
    held = counts[counts > 0]
    if len(held) < 2:
        return []
    median = float(np.median(held))
    least = max(_FEW_SHARE * median, min(_FEW_PRODUCTS, median))
    found = []
    for place in np.flatnonzero((counts > 0) & (counts < least)).tolist():
        name, count = rows.names[place], int(counts[place])
        reason = (
            f"“{name}” has {count} product{'s' if count != 1 else ''}; half of the categories have "
            f"{median:,.0f} or more."
        )
        evidence: dict[str, Scalar] = {"category": name, "products": count, "median": median}
        weight = 1 - count / least
        found.append(Found(KINDS[5], "few-products", reason, weight, (), evidence, name))
    return found
