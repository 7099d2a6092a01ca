"""Compares what a system holds and answers with what was acknowledged, once all is quiet.

Asks S3, SQS and the HTTP API from outside, and computes what they must say from the history alone.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import urllib3
from chaos.clients import BUCKET, QUEUE, SAME, run_function
from chaos.history import CATALOGUES, Content, History, Slot
from chaos.work_oracle import WorkOracle
from running_cloud import Running

from lookalike.core.keys import map_key

INDEX = "lookalike-index"
QUIET_S = 120.0
_SWEEPS = 10
_DEAD_PHOTOS = 200


class Oracle:
    """All checks after a run; every difference goes to the history.

    Parameters
    ----------
    cloud
        What is checked; nobody else uses it any more.
    history
        What was done to it.
    """

    def __init__(self, cloud: Running, history: History) -> None:
        self._cloud = cloud
        self._history = history
        self._s3 = cloud.client("s3")
        self._holds: dict[Slot, Content | None] = {}
        self.checked: dict[str, float] = {}

    def check(self) -> None:
        """Wait until the queue is empty, then check everything, and again after maintenance."""
        begun = time.monotonic()
        self._wait_until_quiet()
        self.checked["seconds until the queue was empty"] = round(time.monotonic() - begun, 1)
        self._check_bucket()
        self._check_all()
        self._check_sweep()
        self._check_derived()
        for function in ("Compact", "Reindex"):
            if run_function(self._cloud, function, {}) is None:
                self._history.differs(f"{function} fails")
        self._check_all()
        work = WorkOracle(self._cloud, self._history)
        work.check({catalogue: set(self._live(catalogue)) for catalogue in CATALOGUES})
        self.checked |= work.checked
        self.checked["seconds of checks"] = round(time.monotonic() - begun, 1)

    def _check_all(self) -> None:
        self._check_products()
        self._check_failures()
        self._check_dead_letters()
        self._check_live_photos()
        self._check_dead_photos()

    def _wait_until_quiet(self) -> None:
        deadline = time.monotonic() + QUIET_S
        while (waiting := self._cloud.waiting(QUEUE)) and time.monotonic() < deadline:
            time.sleep(0.2)
        if waiting:
            self._history.differs(f"{waiting} messages are in the queue after {QUIET_S:.0f} s")

    def _check_bucket(self) -> None:
        """Every key holds what was acknowledged; where that is open the bucket decides."""
        listed = {item["Key"]: item["ETag"].strip('"') for item in self._list(BUCKET)}
        with ThreadPoolExecutor(8) as pool:
            holds = list(pool.map(lambda slot: self._held(slot, listed), self._history.slots))
        for slot, (held, sentence) in zip(self._history.slots, holds, strict=True):
            if sentence:
                self._history.differs(sentence, [slot])
            self._holds[slot] = held
        for key in sorted(listed.keys() - {slot.key for slot in self._history.slots}):
            self._history.differs(f"nobody has uploaded {key}")
        self.checked["objects"] = len(listed)

    def _held(self, slot: Slot, listed: dict[str, str]) -> tuple[Content | None, str]:
        if slot.key not in listed:
            lost = "" if None in slot.possible else f"{slot.key} is not in the bucket"
            return None, lost
        head = self._s3.head_object(Bucket=BUCKET, Key=slot.key)
        etags = {listed[slot.key], head["ETag"].strip('"')}
        for content in slot.possible:
            if content and etags == {content.etag} and head["Metadata"] == dict(content.metadata):
                return content, ""
        return None, f"{slot.key} holds {etags} with {head['Metadata']}"

    def _list(self, bucket: str, prefix: str = "") -> Iterator[dict[str, Any]]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return (item for page in pages for item in page.get("Contents", []))

    def _live(self, catalogue: str) -> dict[str, dict[Slot, Content]]:
        """Views that must be found, by product."""
        live: dict[str, dict[Slot, Content]] = {}
        for slot, content in self._holds.items():
            if slot.catalogue == catalogue and content and content.is_searchable:
                live.setdefault(slot.product_id, {})[slot] = content
        return live

    def _pages(self, catalogue: str, status: str, name: str) -> Iterator[dict[str, Any]]:
        cursor = ""
        while True:
            path = f"/products?catalogue={catalogue}&status={status}&limit=100&cursor={cursor}"
            _, page = self._cloud.request("GET", path)
            yield from page[name]
            if not page["cursor"]:
                return
            cursor = page["cursor"]

    def _check_products(self) -> None:
        """Records: views with their ETags, and attributes; documents have the last word."""
        for catalogue in CATALOGUES:
            stored = {
                item["product_id"]: (
                    {view["key"]: view["etag"] for view in item["views"]},
                    item["attributes"],
                )
                for item in self._pages(catalogue, "live", "products")
            }
            live = self._live(catalogue)
            expected = {
                product_id: (
                    {slot.key: content.etag for slot, content in views.items()},
                    self._attributes(catalogue, product_id, views),
                )
                for product_id, views in live.items()
            }
            for product_id in sorted(stored.keys() | expected.keys()):
                found, wanted = stored.get(product_id), expected.get(product_id)
                if found != wanted:
                    self._history.differs(
                        f"the record of {catalogue}/{product_id} is {found}, not {wanted}",
                        self._history.of_product(catalogue, product_id),
                    )
        self.checked["live views"] = sum(
            len(views) for catalogue in CATALOGUES for views in self._live(catalogue).values()
        )

    def _attributes(
        self, catalogue: str, product_id: str, views: dict[Slot, Content]
    ) -> dict[str, str]:
        merged: dict[str, str] = {}
        for slot in sorted(views, key=lambda slot: slot.key):
            merged.update(views[slot].metadata)
        for slot in self._history.of_product(catalogue, product_id):
            content = self._holds[slot]
            if slot.is_document and content and not content.reason:
                merged["note"] = content.body.decode().split('"')[3]
        return merged

    def _check_failures(self) -> None:
        bad = 0
        for catalogue in CATALOGUES:
            listed = {
                item["key"]: item["reason"] for item in self._pages(catalogue, "failed", "failures")
            }
            slots = {slot.key: slot for slot in self._history.of_catalogue(catalogue)}
            expected = {
                key: content.reason
                for key, slot in slots.items()
                if (content := self._holds[slot]) and content.reason
            }
            bad += len(expected)
            for key in sorted(listed.keys() | expected.keys()):
                if listed.get(key) != expected.get(key):
                    self._history.differs(
                        f"the failure of {key} is {listed.get(key)}, not {expected.get(key)}",
                        [slots[key]] if key in slots else [],
                    )
        self.checked["bad files"] = bad

    def _check_dead_letters(self) -> None:
        if count := self._cloud.waiting(f"{QUEUE}-dead-letter"):
            self._history.differs(f"{count} dead letters")

    def _check_live_photos(self) -> None:
        """Each finds its own view first and everything else of its catalogue once."""
        for catalogue in CATALOGUES:
            live = self._live(catalogue)
            for views in live.values():
                for slot, content in views.items():
                    results = self._search(catalogue, content)
                    first = results[0] if results else {}
                    if (first.get("product_id"), first.get("view")) != (
                        slot.product_id,
                        slot.view,
                    ) or first["score"] < SAME:
                        self._history.differs(f"{slot.key} is not first: {first}", [slot])
                    self._check_names(catalogue, results, live.keys())

    def _check_dead_photos(self) -> None:
        """What was overwritten or deleted finds nothing of its own."""
        live = {content.body for content in self._holds.values() if content}
        dead = {
            content.body: (slot, content)
            for slot in self._history.slots
            for content in [*slot.past, *(item for item in slot.possible if item)]
            if content.is_searchable and content.body not in live
        }
        chosen = random.Random(0).sample(sorted(dead), min(_DEAD_PHOTOS, len(dead)))
        for slot, content in (dead[body] for body in chosen):
            results = self._search(slot.catalogue, content)
            if results and results[0]["score"] > SAME:
                self._history.differs(f"a dead photo of {slot.key} finds {results[0]}", [slot])
            self._check_names(slot.catalogue, results, self._live(slot.catalogue).keys())
        self.checked["dead photos"] = len(chosen)

    def _check_names(self, catalogue: str, results: list[dict[str, Any]], live: Any) -> None:
        shown = sorted(item["product_id"] for item in results)
        if shown != sorted(live):
            twice = sorted({name for name in shown if shown.count(name) > 1})
            lost, dead = sorted(set(live) - set(shown)), sorted(set(shown) - set(live))
            slots = [
                slot
                for name in [*twice, *lost, *dead]
                for slot in self._history.of_product(catalogue, name)
            ]
            self._history.differs(f"twice: {twice}, not found: {lost}, dead: {dead}", slots)

    def _search(self, catalogue: str, photo: Content) -> list[dict[str, Any]]:
        query = f"catalogue={catalogue}&k=100"
        return self._cloud.search(photo.body, query) if self._live(catalogue) else []

    def _check_sweep(self) -> None:
        """A sweep finds nothing to do, and the counts are right after it."""
        for _ in range(_SWEEPS):
            report = run_function(self._cloud, "Sweep", {"mode": "anew"})
            if report and report["finished"]:
                break
        else:
            self._history.differs(f"no sweep finishes: {report}")
            return
        if report["queued"] or report["lost"]:
            self._history.differs(f"the sweep had to ask: {report}")
        self._wait_until_quiet()
        _, stats = self._cloud.request("GET", "/stats")
        for item in stats["catalogues"]:
            name = item["catalogue"]
            live = self._live(name)
            failed = [
                content
                for slot, content in self._holds.items()
                if slot.catalogue == name and content and content.reason
            ]
            expected = (len(live), sum(map(len, live.values())), len(failed))
            counted = (item["products"], item["views"], item["failures"])
            if counted != expected:
                self._history.differs(f"{name} counts {counted}, not {expected}")

    def _check_derived(self) -> None:
        """Every live view has its thumbnail and its feature map."""
        stored = {item["Key"] for item in self._list(INDEX, "maps/")}
        _, stats = self._cloud.request("GET", "/stats")
        spaces = {item["catalogue"]: item["encoder"] for item in stats["catalogues"]}
        for catalogue in CATALOGUES:
            for product in self._pages(catalogue, "live", "products"):
                for view in product["views"]:
                    name = map_key(spaces[catalogue], view["key"], view["etag"])
                    if name not in stored:
                        self._history.differs(f"{view['key']} has no feature map {name}")
                    answer = urllib3.request("GET", view["thumbnail_url"], retries=False)
                    if answer.status != 200 or answer.data[8:12] != b"WEBP":
                        path = urlsplit(view["thumbnail_url"]).path
                        self._history.differs(f"{view['key']} has no thumbnail {path}")
