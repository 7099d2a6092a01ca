"""``lookalike eval``: retrieval quality and latency, measured by searching over HTTP."""

from __future__ import annotations

import csv
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from local.commands.connection import connect, data_dir_option, json_option
from local.commands.exits import WrongUse
from local.commands.terminal import console, print_json, print_table

if TYPE_CHECKING:
    from local.commands.api import Api
    from local.commands.connection import Connection

QUERIES = "queries"
_SEED = 0
_COLUMNS = ("file", "split", "product_id", "category")


@dataclass(frozen=True, slots=True)
class Query:
    """A query image, its category, and how many products of the catalogue share it."""

    image: Path
    category: str
    relevant: int


@dataclass(slots=True)
class Manifest:
    """The queries, and the category of each product of the catalogue."""

    queries: list[Query] = field(default_factory=list)
    category_of: dict[str, str] = field(default_factory=dict)
    without_relevant: int = 0


@dataclass(frozen=True, slots=True)
class Answered:
    """One query's judged results in rank order, its times in milliseconds, its generation."""

    query: Query
    relevant: tuple[bool, ...]
    client_ms: float
    took_ms: Mapping[str, float]
    generation: str


@click.command("eval", no_args_is_help=True)
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--catalogue", default="default", show_default=True, help="Where to look.")
@click.option("-k", default=10, show_default=True, help="Results a query.")
@click.option(
    "--parallel", default=1, show_default=True, type=click.IntRange(1, 64), help="Queries at once."
)
@click.option(
    "--exact", is_flag=True, help="Score every row, to compare with searches that do not."
)
@click.option(
    "--explanations", is_flag=True, help="Measure explanations instead, in pixels and here."
)
@click.option(
    "--pairs", default=100, show_default=True, type=click.IntRange(1), help="Matches explained."
)
@click.option(
    "--steps", default=12, show_default=True, type=click.IntRange(2), help="Of deleting an image."
)
@data_dir_option
@json_option
def evaluate(
    manifest: Path,
    catalogue: str,
    k: int,
    parallel: int,
    exact: bool,
    explanations: bool,
    pairs: int,
    steps: int,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Measure how good and how fast searches are.

    MANIFEST is a CSV file with the columns file, split, product_id and category; paths are
    relative to it. Each row whose split is `queries` is searched for; the other rows say what the
    catalogue holds. A result is relevant if its category is the query's.

    precision@k is the share of the first k results that are relevant. mAP@k is the mean over
    queries of AP@k = 1/min(k, R) · Σ precision@i over the ranks i ≤ k that hold a relevant
    result, where R is the number of relevant products in the catalogue; “of found” divides by the
    number of relevant results among the first k instead. Latencies are seen from
    here, and by stage from the API's own account. What a generation is worth, with its encoder and
    its head, is seen by measuring before and after `lookalike reindex`.

    With --explanations, pixels are deleted and inserted in the order that an explanation names
    them, by turns of a query's image and of a product's, and the network says how the score falls
    and rises: the areas under these curves for Grad-CAM and contributions, beside random maps and
    a centre blob. The network runs on this machine, some 130 times a match.
    """
    plan = read_manifest(manifest)
    if explanations:
        connection = connect(data_dir)
        _evaluate_explanations(plan, connection, catalogue, k, pairs, steps, as_json)
        return
    with (
        connect(data_dir).open_api(parallel) as api,
        _progress(len(plan.queries), "Searching", visible=not as_json) as advance,
    ):
        parameters = {"k": k, "catalogue": catalogue, "exact": str(exact).lower()}
        answered = run_queries(api, plan, parameters, parallel, advance)
    result = summary(answered, k) | {
        "catalogue": catalogue,
        "k": k,
        "parallel": parallel,
        "exact": exact,
        "generations": sorted({item.generation for item in answered}),
        "queries_without_relevant_products": plan.without_relevant,
    }
    if as_json:
        print_json(result)
    else:
        _show(result)


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises
    ------
    WrongUse
        A column is missing, or there is no query with a relevant product.
    """
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise WrongUse(f"{path} has no column {', '.join(missing)}.")
        rows = list(reader)
    manifest = Manifest(
        category_of={row["product_id"]: row["category"] for row in rows if row["split"] != QUERIES}
    )
    size_of: defaultdict[str, int] = defaultdict(int)
    for category in manifest.category_of.values():
        size_of[category] += 1
    for row in rows:
        if row["split"] != QUERIES:
            continue
        if size_of[row["category"]]:
            image = path.parent / row["file"]
            manifest.queries.append(Query(image, row["category"], size_of[row["category"]]))
        else:
            manifest.without_relevant += 1
    if not manifest.queries:
        raise WrongUse(f"{path} has no row of split “{QUERIES}” with a relevant product.")
    return manifest


def run_queries(
    api: Api,
    manifest: Manifest,
    parameters: Mapping[str, object],
    parallel: int,
    advance: Callable[[], None] = lambda: None,
) -> list[Answered]:
    """Search with every query; ``parameters`` are those of ``POST /search``.

    Raises
    ------
    click.ClickException
        A search was refused, or the API cannot be reached.
    """

    def ask(query: Query) -> Answered:
        start = time.perf_counter()
        try:
            answer = api.search_image(query.image, parameters)
        except OSError as error:
            raise WrongUse(f"{query.image} cannot be read: {error.strerror}.") from error
        client_ms = (time.perf_counter() - start) * 1000
        relevant = tuple(
            (item.get("category") or manifest.category_of.get(item["product_id"])) == query.category
            for item in answer["results"]
        )
        advance()
        return Answered(query, relevant, client_ms, answer["took_ms"], answer["generation"])

    with ThreadPoolExecutor(parallel) as pool:
        try:
            return list(pool.map(ask, manifest.queries))
        finally:
            pool.shutdown(cancel_futures=True)


def summary(answered: Sequence[Answered], k: int) -> dict[str, Any]:
    """Quality over all queries and by category, and latencies in milliseconds."""
    by_category: defaultdict[str, list[Answered]] = defaultdict(list)
    for item in answered:
        by_category[item.query.category].append(item)
    stages: defaultdict[str, list[float]] = defaultdict(list)
    for item in answered:
        for name, value in item.took_ms.items():
            stages[name].append(value)
    return {
        "all": _quality(answered, k),
        "categories": {name: _quality(items, k) for name, items in sorted(by_category.items())},
        "latency_ms": {
            "client": _percentiles(item.client_ms for item in answered),
            "stages": {name: _percentiles(values) for name, values in stages.items()},
        },
    }


def _quality(answered: Sequence[Answered], k: int) -> dict[str, float]:
    import numpy as np

    from lookalike.core.metrics import mean_average_precision_at_k, precision_at_k

    judged = [(item.relevant, item.query.relevant) for item in answered]
    return {
        "queries": len(answered),
        "precision_at_1": float(np.mean([precision_at_k(item, 1) for item, _ in judged])),
        "precision_at_k": float(np.mean([precision_at_k(item, k) for item, _ in judged])),
        "map_at_k": mean_average_precision_at_k(judged, k),
        "map_at_k_of_found": mean_average_precision_at_k([(item, None) for item, _ in judged], k),
    }


def _percentiles(values: Iterable[float]) -> dict[str, float]:
    import numpy as np

    p50, p95 = np.percentile(list(values), (50, 95))
    return {"p50": round(float(p50), 2), "p95": round(float(p95), 2)}


def _evaluate_explanations(
    plan: Manifest,
    connection: Connection,
    catalogue: str,
    k: int,
    pairs: int,
    steps: int,
    as_json: bool,
) -> None:
    from local.commands import evaluate_explanations as pixels
    from local.commands.model import model_folder
    from lookalike.core.images import ImageLimits
    from lookalike.settings import Settings

    settings = Settings.from_env()
    limits = ImageLimits(settings.max_image_bytes, settings.max_image_pixels)
    judge_of = pixels.judge_of_spaces(settings.precision, model_folder(), steps, _SEED)
    images = [query.image for query in plan.queries]
    parameters = {"k": k, "catalogue": catalogue}
    with connection.open_api() as api, _progress(pairs, "Judging", visible=not as_json) as advance:
        matches = pixels.explained_pairs(api, images, parameters, pairs, _SEED)
        measured = pixels.measure(matches, judge_of, limits, advance)
    result = pixels.summary(measured) | {"catalogue": catalogue, "k": k, "steps": steps}
    if as_json:
        print_json(result)
    else:
        pixels.show(result)


@contextmanager
def _progress(total: int, doing: str, *, visible: bool) -> Iterator[Callable[[], None]]:
    from rich.progress import Progress

    with Progress(console=console(stderr=True), disable=not visible) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda: bar.advance(task)


def _show(result: Mapping[str, Any]) -> None:
    k = result["k"]
    rows = [*result["categories"].items(), ("all", result["all"])]
    print_table(
        ("Category", ">Queries", ">P@1", f">P@{k}", f">mAP@{k}", ">of found"),
        (
            (
                name,
                item["queries"],
                *(
                    f"{100 * item[metric]:.1f} %"
                    for metric in (
                        "precision_at_1",
                        "precision_at_k",
                        "map_at_k",
                        "map_at_k_of_found",
                    )
                ),
            )
            for name, item in rows
        ),
    )
    latency = result["latency_ms"]
    times = [("seen from here", latency["client"]), *latency["stages"].items()]
    print_table(
        ("Milliseconds", ">p50", ">p95"),
        ((name, f"{item['p50']:.1f}", f"{item['p95']:.1f}") for name, item in times),
    )
    if skipped := result["queries_without_relevant_products"]:
        click.echo(f"{skipped} queries left out: no product of the catalogue has their category.")
