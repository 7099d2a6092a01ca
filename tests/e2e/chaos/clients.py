"""What goes on while things are killed: uploads and deletions, searches, maintenance by hand."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import urllib3
from botocore.exceptions import BotoCoreError, ClientError
from chaos.history import CATALOGUES, Content, History, Lost, Slot
from running_cloud import Running

from local.control import ControlError, invoke
from local.scheduler import scheduled_event
from local.state import find_running

BUCKET = "lookalike-images"
QUEUE = "lookalike-ingest"
SAME = 0.99
"""Cosine from which two photos are the same; different drawn ones come to 0.97."""
WORK = ("Recluster", "Project", "Health", "Rollup")
_PAUSE_S = 0.35
_PATIENCE_S = 90.0


class Client:
    """One merchant: uploads, overwrites, deletes and changes metadata of keys at random."""

    def __init__(self, cloud: Running, history: History, seed: int) -> None:
        self._cloud = cloud
        self._history = history
        self._random = random.Random(seed)
        self._s3 = cloud.client("s3", attempts=1)
        self._operations: list[tuple[int, Callable[[Slot], None]]] = [
            (52, self._upload),
            (12, self._delete),
            (12, self._change_metadata),
            (6, self._upload_again),
            (10, self._upload_damaged),
            (8, self._delete_product),
        ]

    def run(self, operations: int, stop: threading.Event) -> None:
        weights, choices = zip(*self._operations, strict=True)
        for _ in range(operations):
            self._history.may_go_on.wait()
            if stop.is_set():
                return
            slot = self._random.choice(self._history.slots)
            self._random.choices(choices, weights)[0](slot)
            time.sleep(self._random.expovariate(1 / _PAUSE_S))

    def _upload(self, slot: Slot) -> None:
        history = self._history
        self._put("upload", slot, history.document(False) if slot.is_document else history.photo())

    def _upload_damaged(self, slot: Slot) -> None:
        history = self._history
        content = (
            history.document(True)
            if slot.is_document
            else history.damaged(self._random.randrange(2))
        )
        self._put("damaged upload", slot, content)

    def _change_metadata(self, slot: Slot) -> None:
        """The same photo with other metadata."""
        certain = slot.certain()
        if slot.is_document or certain is None or certain[1] is None:
            self._upload(slot)
        else:
            stamp = f"m{self._random.getrandbits(32)}"
            self._put("metadata change", slot, replace(certain[1], metadata={"stamp": stamp}))

    def _upload_again(self, slot: Slot) -> None:
        certain = slot.certain()
        if certain is None or certain[1] is None:
            self._upload(slot)
        else:
            self._put("upload of the same", slot, certain[1])

    def _put(self, what: str, slot: Slot, content: Content) -> None:
        with slot.lock, self._history.attempt(what, [slot], content):
            self._call(
                self._s3.put_object,
                Bucket=BUCKET,
                Key=slot.key,
                Body=content.body,
                ContentType=content.content_type,
                Metadata=dict(content.metadata),
            )

    def _delete(self, slot: Slot) -> None:
        with slot.lock, self._history.attempt("deletion", [slot], None):
            self._call(self._s3.delete_object, Bucket=BUCKET, Key=slot.key)

    def _delete_product(self, slot: Slot) -> None:
        """Over HTTP, again until it is answered: then all of the product is gone."""
        slots = self._history.of_product(slot.catalogue, slot.product_id)
        path = f"/products/{slot.product_id}?catalogue={slot.catalogue}"
        with ExitStack() as locks:
            for item in slots:
                locks.enter_context(item.lock)
            held = [item for item in slots if (known := item.certain()) and known[1] is not None]
            with self._history.attempt("product deletion", slots, None):
                deadline, tries = time.monotonic() + _PATIENCE_S, 1
                while (status := self._status("DELETE", path)) not in (204, 404):
                    if time.monotonic() > deadline:
                        self._history.differs(f"{path}: {status} for {_PATIENCE_S} s", slots)
                        raise Lost(str(status))
                    time.sleep(0.2)
                    tries += 1
            if status == 404 and tries == 1 and held:
                self._history.differs(f"{path} answers 404", slots)

    def _status(self, method: str, path: str) -> int:
        try:
            return self._cloud.request(method, path)[0]
        except urllib3.exceptions.HTTPError:
            return 0

    def _call(self, call: Callable[..., Any], **arguments: Any) -> None:
        try:
            call(**arguments)
            return
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status < 500:
                raise
            lost = Lost(str(error))
        except BotoCoreError as error:
            lost = Lost(type(error).__name__)
        self._wait_for_endpoint()
        raise lost

    def _wait_for_endpoint(self) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            with suppress(BotoCoreError, ClientError):
                self._s3.head_bucket(Bucket=BUCKET)
                return
            time.sleep(0.1)


class Searcher:
    """Searches beside it all, and looks for answers that no state could have given.

    Parameters
    ----------
    cloud, history
        What is asked, and what it ought to know.
    seed
        Of its choices.
    bound_s
        Seconds after which a change that was acknowledged must show.
    """

    def __init__(self, cloud: Running, history: History, seed: int, bound_s: float) -> None:
        self._cloud = cloud
        self._history = history
        self._random = random.Random(seed)
        self._bound_s = bound_s

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(self._random.expovariate(4)):
            slot = self._random.choice(self._history.slots)
            contents = [*slot.past, *(item for item in slot.possible if item is not None)]
            photos = [item for item in contents if item.is_searchable]
            if photos:
                self._search(slot, self._random.choice(photos[-2:]))

    def _search(self, slot: Slot, photo: Content) -> None:
        slots = self._history.of_catalogue(slot.catalogue)
        before = {item.key: item.certain() for item in slots}
        begun = time.time()
        try:
            status, answer = self._cloud.request(
                "POST",
                f"/search?catalogue={slot.catalogue}&k=100",
                body=photo.body,
                headers={"Content-Type": "image/jpeg"},
            )
        except urllib3.exceptions.HTTPError:
            status = 0
        self._history.answers[status] += 1
        # What was certain before and still is was so for all of the search.
        steady = {
            item: known for item in slots if (known := item.certain()) and known == before[item.key]
        }
        live = {
            item: known for item, known in steady.items() if known[1] and known[1].is_searchable
        }
        late = {item.key for item, known in live.items() if known[0] + self._bound_s < begun}
        if status == 200:
            self._check(answer["results"], slots, steady, live, photo, begun)
            self._click(answer)
        elif 400 <= status < 500 and late:
            self._history.differs(f"a search answers {status}: {answer}")

    def _click(self, answer: dict[str, Any]) -> None:
        """Open the first result; what was taken must be counted in the end."""
        if not answer["results"]:
            return
        first = answer["results"][0]["product_id"]
        click = {
            "query_id": answer["query_id"],
            "product_id": first,
            "event": "click",
            "rank": 1,
        }
        with suppress(urllib3.exceptions.HTTPError):
            status, refused = self._cloud.request("POST", "/feedback", json=click)
            if status == 204:
                self._history.clicks.add((click["query_id"], first))
            elif status != 404 and 400 <= status < 500:  # a log entry may be lost
                self._history.differs(f"a click answers {status}: {refused}")

    def _check(
        self,
        results: list[dict[str, Any]],
        slots: list[Slot],
        steady: dict[Slot, tuple[float, Content | None]],
        live: dict[Slot, tuple[float, Content | None]],
        photo: Content,
        begun: float,
    ) -> None:
        shown = [item["product_id"] for item in results]
        if len(set(shown)) < len(shown) or [item["rank"] for item in results] != list(
            range(1, len(results) + 1)
        ):
            self._history.differs(f"a product twice in {shown}")
        for product_id in sorted({item.product_id for item in slots} | set(shown)):
            own = [item for item in slots if item.product_id == product_id]
            is_live = any(item in live for item in own)
            if not own:
                self._history.differs(f"{product_id} was never uploaded")
            elif is_live != (product_id in shown) and all(item in steady for item in own):
                # A change of any of its objects gives all of its views new rows.
                since = max(steady[item][0] for item in own)
                what = "is not found" if is_live else "still answers after its deletion"
                self._late(what, since, begun, own)
        for item in results:
            view = next(
                (
                    slot
                    for slot in slots
                    if (slot.product_id, slot.view) == (item["product_id"], item["view"])
                ),
                None,
            )
            known = steady.get(view) if view else None
            is_photo = known is not None and known[1] is not None and known[1].etag == photo.etag
            if view and known and item["score"] > SAME and not is_photo:
                self._late("answers with a photo that is gone", known[0], begun, [view])

    def _late(self, what: str, since: float, begun: float, views: list[Slot]) -> None:
        lag = begun - since
        self._history.worst_lag_s = max(self._history.worst_lag_s, lag)
        if lag > self._bound_s:
            name = "/".join(views[0].key.split("/")[:2])
            self._history.differs(f"{name} {what}, {lag:.1f} s after", views)


class Maintenance:
    """Runs one function by hand again and again, beside its schedule."""

    def __init__(self, cloud: Running, function: str, seed: int) -> None:
        self._cloud = cloud
        self.function = function
        self._random = random.Random(seed)
        self.finished = 0

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(self._random.expovariate(1 / 1.5)):
            detail: dict[str, Any] = {}
            if self.function == "Reindex" and self._random.random() < 0.5:
                action = self._random.choice(["build", "build", "build", "rollback"])
                detail = {"action": action, "catalogue": self._random.choice(CATALOGUES)}
            if self.function == "Sweep":
                detail = {"mode": "anew", "within_s": 20}
            if self.function in WORK:
                detail = {"now": self._random.random() < 0.5}
            self.finished += run_function(self._cloud, self.function, detail) is not None


def run_function(cloud: Running, name: str, detail: dict[str, Any]) -> Any:
    """What a function answers; None if it was killed, or refuses."""
    state = find_running(cloud.data_dir)
    if state is None:
        return None
    try:
        outcome = invoke(state, name, scheduled_event("by-hand", datetime.now(UTC), detail))
    except (ControlError, OSError, ValueError, KeyError):
        return None
    payload = outcome["payload"]
    return None if outcome["error"] or "errorType" in payload else payload
