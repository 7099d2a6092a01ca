"""``lookalike upload``: files into the bucket, until each is searchable or has failed."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from local.commands.connection import Connection, connect, data_dir_option, json_option
from local.commands.exits import FAILED, Failed, WrongUse
from local.commands.terminal import console, millis, plain, print_json, print_table

if TYPE_CHECKING:
    from local.commands.upload_plan import PlannedFile, UploadPlan
    from local.commands.upload_run import Put, UploadReport

_SHOWN_FAILURES = 50


@click.command(no_args_is_help=True)
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    metavar="PATH...",
    type=click.Path(exists=True, path_type=Path),
)
@click.option("--catalogue", default="default", show_default=True, help="Where to put them.")
@click.option(
    "--metadata",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A .csv or .jsonl file with titles, categories, prices…",
)
@click.option("--wait/--no-wait", default=True, help="Wait until each image is searchable.")
@data_dir_option
@json_option
def upload(
    paths: tuple[Path, ...],
    catalogue: str,
    metadata: Path | None,
    wait: bool,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Upload images, and whole folders of them, into the bucket.

    An image that is named, or directly inside a named folder, becomes a product of its own.
    Images in a folder below are the views of one product, called like the folder, and
    product.json beside them holds its metadata. What is searchable already is not sent again, so
    that an upload that was stopped goes on when it is repeated.

    Each row of a metadata file describes the file in its column `file` (a path from the metadata
    file or from the named folder, or a bare name) or, without that column, the product in
    `product_id`. Where both are given, the row decides which product the file belongs to. All
    other columns become attributes to show and to filter by.
    """
    from local.commands.upload_metadata import MetadataRows
    from local.commands.upload_plan import plan_upload

    connection = connect(data_dir)
    plan = plan_upload(paths, catalogue, MetadataRows(metadata) if metadata else None)
    if not plan.files and not plan.refused:
        raise Failed(f"There is nothing to upload: none of {_files(plan.skipped)} is an image.")
    if metadata and plan.undescribed == len(plan.files):
        raise WrongUse(
            f"No row of {metadata} describes any of the files; its column file must hold their "
            "paths, seen from there or from the named folder, or their bare names."
        )
    with _progress(len(plan.files), wait, visible=not as_json) as on_change:
        report = upload_plan(connection, plan, wait, on_change)
    if as_json:
        print_json(summary(report, plan))
    else:
        _show(report, plan, wait)
    if report.failed or report.waiting:
        raise click.exceptions.Exit(FAILED)


def upload_plan(
    connection: Connection,
    plan: UploadPlan,
    wait: bool = True,
    on_change: Callable[[UploadReport], None] = lambda report: None,
) -> UploadReport:
    """Carry out a plan; what it refused is among the failures.

    Raises
    ------
    Retry
        The bucket or a table cannot be reached.
    """
    from local.commands.upload_run import FailedFile, Upload

    stores = connection.stores()
    put = bucket_put(connection.settings().images_bucket)
    run = Upload(stores.products, stores.failures, put, on_change=on_change)
    run.send(plan.files, watch=wait)
    run.finish()
    report = run.report
    report.total += len(plan.refused)
    report.failed += [
        FailedFile(item.path, item.key, item.reason, item.detail) for item in plan.refused
    ]
    return report


def bucket_put(bucket: str) -> Put:
    """Uploads into a bucket, in one part whatever the size, so that the ETag is the content's."""
    from lookalike.adapters.aws import aws_errors, client

    s3 = client("s3")

    def put(file: PlannedFile) -> str:
        media_type = mimetypes.guess_type(file.path)[0] or "application/octet-stream"
        with Path(file.path).open("rb") as body, aws_errors(f"uploading {file.key}"):
            answer = s3.put_object(
                Bucket=bucket,
                Key=file.key,
                Body=body,
                ContentType=media_type,
                Metadata=dict(file.metadata or {}),
            )
        return str(answer["ETag"]).strip('"')

    return put


@contextmanager
def _progress(total: int, wait: bool, *, visible: bool) -> Iterator[Callable[[UploadReport], None]]:
    """Bars on the error stream while files go up and become searchable."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console(stderr=True), disable=not visible) as bars:
        sent = bars.add_task("In the bucket", total=total)
        ready = bars.add_task("Searchable", total=total) if wait else None

        def on_change(report: UploadReport) -> None:
            settled = report.unchanged + len(report.failed)
            known = report.unchanged + report.known_failures
            bars.update(sent, completed=min(total, report.uploaded + known))
            if ready is not None:
                bars.update(ready, completed=min(total, report.searchable + settled))

        yield on_change


def summary(report: UploadReport, plan: UploadPlan) -> dict[str, Any]:
    """What came of an upload, for programs. Times in seconds."""
    return {
        "files": report.total,
        "uploaded": report.uploaded,
        "searchable": report.searchable,
        "unchanged": report.unchanged,
        "failed": [_failure(item) for item in report.failed],
        "waiting": [item.key for item in report.waiting],
        "skipped": plan.skipped,
        "without_metadata": plan.undescribed,
        "duration_s": round(report.duration_s, 3),
        "searchable_per_s": round(report.searchable / report.duration_s, 2),
        "upload_to_searchable_s": _percentiles(report.latencies_s),
    }


def _failure(item: Any) -> dict[str, object]:
    return {
        "file": item.path,
        "key": item.key,
        "reason": item.reason,
        "detail": item.detail,
        "known": item.known,
    }


def _percentiles(latencies_s: Sequence[float]) -> dict[str, float] | None:
    import numpy as np

    if not latencies_s:
        return None
    p50, p95 = np.percentile(latencies_s, (50, 95))
    return {"p50": round(float(p50), 3), "p95": round(float(p95), 3)}


def _show(report: UploadReport, plan: UploadPlan, wait: bool) -> None:
    if report.failed:
        failed = sorted(report.failed, key=lambda item: item.key)
        print_table(
            ("File", "Reason", "What is wrong"),
            ((_shown(item.path), item.reason, item.detail) for item in failed[:_SHOWN_FAILURES]),
        )
        if len(failed) > _SHOWN_FAILURES:
            click.echo(f"… and {len(failed) - _SHOWN_FAILURES} more: lookalike failures list")
    for line in _sentences(report, plan, wait):
        click.echo(plain(line))


def _shown(path: str) -> str:
    """A path as seen from here, if it is below."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def _sentences(report: UploadReport, plan: UploadPlan, wait: bool) -> Iterator[str]:
    if wait and report.searchable:
        rate = report.searchable / report.duration_s
        yield (
            f"{_files(report.searchable)} searchable in {millis(report.duration_s)} ({rate:.1f}/s)."
        )
        if times := _percentiles(report.latencies_s):
            p50, p95 = millis(times["p50"]), millis(times["p95"])
            yield f"From upload to searchable: p50 {p50}, p95 {p95}."
    elif report.uploaded and not wait:
        yield f"{_files(report.uploaded)} uploaded; `lookalike status` shows what becomes of them."
    if report.unchanged:
        yield f"{_files(report.unchanged)} already searchable, not sent again."
    if report.failed:
        known = report.known_failures
        again = f" ({known} as before, not sent again)" if known else ""
        yield f"{_files(len(report.failed))} failed{again}."
    if report.waiting:
        yield (
            f"{_files(len(report.waiting))} still not searchable, and nothing has moved for a "
            "while; `lookalike status` shows the queue."
        )
    if plan.undescribed:
        yield f"{_files(plan.undescribed)} without a row in the metadata file."
    if plan.skipped:
        yield f"{_files(plan.skipped)} skipped: not an image."


def _files(count: int) -> str:
    return f"{count:,} file" + ("" if count == 1 else "s")
