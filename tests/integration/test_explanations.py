"""Explanations as the functions serve them, with toy encoders on stores in memory."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ulid import ULID

from lookalike.core.errors import Gone, InvalidRequest, NotFound, Retry, Unavailable, Vanished
from lookalike.core.keys import head_key, map_key, query_key
from lookalike.core.ports import Stores
from lookalike.core.types import Build, Generation
from lookalike.services import explain, explained_pair, explanation_pictures
from lookalike.services.explanation_answer import ExplanationAnswer, ExplanationSide
from lookalike.services.explanation_pictures import PICTURE_SIDES, PictureRequest
from lookalike.services.feature_maps import FeatureMaps
from lookalike.services.query import SearchResponse
from lookalike.services.search_request import QueryInput, SearchRequest
from lookalike.settings import Settings
from lookalike.wiring import Services, build_services

ENCODER = "efficientnet-lite0"
SPACE = "efficientnet-lite0-border-v1"
SIDE = 7  # of its feature maps
FOREVER = float("inf")
LONG_AGO = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


@dataclass
class Clock:
    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@dataclass
class Shop:
    """A shop whose clock is moved by hand; each of ``make`` is a process of its own."""

    stores: Stores
    make: Callable[..., Services]
    clock: Clock

    def __post_init__(self) -> None:
        self.here = self.make()

    def upload(self, photos: dict[str, bytes]) -> None:
        for name, body in photos.items():
            self.stores.images.put_object(f"shop/{name}.jpg", body, "image/jpeg")
        assert self.here.ingest.reconcile([f"shop/{name}.jpg" for name in photos]) == {}
        self.clock.now += 1

    def search(self, *inputs: QueryInput, **options: Any) -> SearchResponse:
        return self.here.query.search(SearchRequest("shop", inputs, **options))

    def explain(self, query_id: str, product_id: str) -> explain.Answered:
        return self.here.explanations.explanation(query_id, product_id, "https://api/x")

    def picture(self, query_id: str, product_id: str, **wanted: Any) -> explain.Picture:
        return self.here.explanations.picture(query_id, product_id, PictureRequest(**wanted))

    def reindex(self) -> None:
        before = self.stores.lineages.get("shop").current
        self.here.reindex.begin("shop")
        for _ in range(20):
            self.clock.now += 200
            self.here.reindex.run(FOREVER, "shop")
            if self.stores.lineages.get("shop").current != before:
                self.clock.now += 1
                return
        raise AssertionError(self.stores.lineages.get("shop"))

    def views(self, product_id: str) -> dict[str, Any]:
        return dict(self.stores.products.get_many([("shop", product_id)])["shop", product_id].views)

    def forget_map(self, product_id: str) -> None:
        for view in self.views(product_id).values():
            self.stores.index.delete(map_key(SPACE, view.key, view.etag))


@pytest.fixture
def clock() -> Clock:
    """Of the stores, too."""
    return Clock()


@pytest.fixture
def ids(clock) -> Callable[[], str]:
    """Query ids that say when the search was."""
    return lambda: str(ULID.from_timestamp(clock.now))


@pytest.fixture
def shop(memory_stores, ids, toy_encoder_of, tmp_path, clock) -> Shop:
    folders = iter(range(100))

    def make(**changed: Any) -> Services:
        settings = Settings(
            encoder=ENCODER,
            refresh_s=0.5,
            head_rows=20,
            head_dim=12,
            cache_dir=str(Path(tmp_path) / str(next(folders))),
            **changed,
        )
        return build_services(settings, memory_stores, ids, clock, toy_encoder_of)

    return Shop(memory_stores, make, clock)


def like(photo: bytes, **options: Any) -> QueryInput:
    return QueryInput(image=photo, **options)


def total(side: ExplanationSide) -> float:
    return float(np.sum(side.contributions))


def assert_adds_up(answer: ExplanationAnswer) -> None:
    rows, columns = answer.query.grid
    for side in (answer.query, answer.result):
        for cells in (side.contributions, side.gradcam, side.pulls, side.foreground):
            assert np.shape(cells) == side.grid
        assert total(side) == pytest.approx(answer.score, abs=1e-5)
        assert np.min(side.gradcam) >= 0 and np.max(side.gradcam) <= 1
    assert (rows, columns) == (SIDE * len(answer.inputs), SIDE)
    assert answer.result.grid == (SIDE, SIDE)
    assert sum(item.share for item in answer.inputs) == pytest.approx(1, abs=1e-4)
    for number, item in enumerate(answer.inputs):
        first, end = item.rows
        assert (item.part, first, end) == (number, number * SIDE, (number + 1) * SIDE)
        here = float(np.sum(answer.query.contributions[first:end]))
        assert here == pytest.approx(item.share * answer.score, abs=1e-4)
    for match in answer.matches:
        first, end = answer.inputs[match.part].rows
        assert all(first <= row < end for row, _ in match.query_cells)


def opened(picture: explain.Picture) -> Image.Image:
    image = Image.open(io.BytesIO(picture.body))
    image.load()
    return image


def test_the_second_request_is_a_hit_that_computes_nothing(shop, photo, monkeypatch):
    shop.upload({f"p{seed}": photo(seed) for seed in range(5)})
    found = shop.search(like(photo(40)), k=3)
    for result in found.results:
        first = shop.explain(found.query_id, result.product_id)
        assert not first.hit
        answer = first.answer
        assert_adds_up(answer)
        assert (answer.product_id, answer.view) == (result.product_id, result.view)
        assert answer.score == pytest.approx(result.score, abs=2e-6)
        assert (answer.encoder, answer.generation) == (found.encoder, found.generation)
        assert answer.changed_since is False
        assert answer.expires_at == found.explanations_expire_at
        assert answer.overlays.pair == (
            f"https://api/x/explanations/{found.query_id}/{result.product_id}/pair.png"
        )
        (item,) = answer.inputs
        assert (item.kind, item.input, item.coefficient) == ("photo", 0, pytest.approx(1))
    monkeypatch.setattr(explain, "explain", None)
    monkeypatch.setattr(FeatureMaps, "read_many", None)
    for services in (shop.here, shop.make()):
        again = services.explanations.explanation(found.query_id, "p1", "https://api/x")
        assert again.hit
        assert again.answer == shop.explain(found.query_id, "p1").answer
    same = shop.search(like(photo(40)), k=3)
    assert same.query_id != found.query_id
    again = shop.explain(same.query_id, "p1")
    assert again.hit and again.answer.query_id == same.query_id


def test_a_product_that_was_not_found_is_explained_too(shop, photo):
    shop.upload({f"p{seed}": photo(seed) for seed in range(5)})
    found = shop.search(like(photo(40)), k=1)
    (result,) = found.results
    others = {f"p{seed}" for seed in range(5)} - {result.product_id}
    for product_id in others:
        answer = shop.explain(found.query_id, product_id).answer
        assert_adds_up(answer)
        assert answer.score <= result.score


def test_an_overwritten_product_is_explained_by_what_it_is_now(shop, photo):
    shop.upload({"p": photo(1), "q": photo(2)})
    found = shop.search(like(photo(1)))
    before = shop.explain(found.query_id, "p").answer
    shown = shop.picture(found.query_id, "p", of="result")
    assert before.score == pytest.approx(1, abs=1e-3)
    shop.upload({"p": photo(7, size=(150, 100))})
    after = shop.explain(found.query_id, "p")
    assert not after.hit
    assert_adds_up(after.answer)
    assert after.answer.changed_since and not before.changed_since
    assert after.answer.score < before.score - 0.01
    picture = shop.picture(found.query_id, "p", of="result")
    assert not picture.hit and opened(picture).size == (150, 100)
    shop.upload({"p": photo(1)})
    back = shop.explain(found.query_id, "p")
    assert back.hit and back.answer.changed_since
    assert shop.picture(found.query_id, "p", of="result").body == shown.body


def with_a_roof(photo: bytes, colour: tuple[int, int, int]) -> bytes:
    """The same photo to the network, which does not see its upper edge."""
    image = Image.open(io.BytesIO(photo))
    image.paste(colour, (0, 0, image.width, image.height // 12))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("swapped", [False, True])
def test_a_photo_that_looks_the_same_to_the_network_is_shown_as_it_is_now(shop, photo, swapped):
    shop.upload({f"p{seed}": photo(seed) for seed in range(30)})
    plain = photo(100, kind="PNG", size=(96, 192))
    shop.upload({"p": with_a_roof(plain, (250, 0, 0))})
    found = shop.search(like(photo(3)))
    if swapped:
        shop.reindex()
    before = shop.explain(found.query_id, "p").answer
    red = opened(shop.picture(found.query_id, "p", of="result"))
    shop.upload({"p": with_a_roof(plain, (0, 0, 250))})
    after = shop.explain(found.query_id, "p")
    assert not after.hit and after.answer.changed_since
    assert after.answer.score == before.score
    drawn = shop.picture(found.query_id, "p", of="result")
    assert not drawn.hit
    for image, (more, less) in ((red, (0, 2)), (opened(drawn), (2, 0))):
        pixel = image.getpixel((48, 4))
        assert pixel[more] > pixel[less] + 50


def test_each_side_is_judged_by_its_own_map(shop, photo):
    """Query and result exchanged: what was said of one is said of the other."""
    shop.upload({"a": photo(1), "b": photo(2)})
    one = shop.explain(shop.search(like(photo(1))).query_id, "b").answer.trust
    other = shop.explain(shop.search(like(photo(2))).query_id, "a").answer.trust
    for this, that in ((one.query, other.result), (one.result, other.query)):
        for area in ("deletion_auc", "insertion_auc", "chance_deletion", "centre_insertion"):
            assert getattr(this, area) == pytest.approx(getattr(that, area), abs=2e-3)
    assert abs(one.query.insertion_auc - one.result.insertion_auc) > 0.01


def test_of_what_has_no_map_no_trust_is_said(shop, photo, monkeypatch):
    shop.upload({"p": photo(1), "q": photo(2)})
    found = shop.search(like(photo(1)))
    drawn = []

    def drawing(*given: Any, doubtful: bool) -> Image.Image:
        drawn.append(doubtful)
        return Image.new("RGB", (9, 9))

    monkeypatch.setattr(explanation_pictures, "render_pair", drawing)
    shop.picture(found.query_id, "p", of="pair")
    assert drawn == [False]
    trust = shop.explain(found.query_id, "p").answer.trust
    assert trust.query.better_than_chance is trust.result.better_than_chance is None
    assert trust.better_than_chance is None
    cell = shop.search(QueryInput(query_id=found.query_id, cells=((3, 3),)))
    trust = shop.explain(cell.query_id, "q").answer.trust
    assert trust.query.better_than_chance is None
    assert trust.better_than_chance is (False if trust.result.better_than_chance is False else None)


def test_what_is_kept_goes_by_the_expiry_of_the_search(shop, photo, monkeypatch):
    shop.upload({"p": photo(1)})
    found = shop.search(like(photo(2)))
    shop.clock.now = found.explanations_expire_at - 60
    shop.picture(found.query_id, "p", of="pair")
    hour = math.ceil(found.explanations_expire_at / 3600)
    keys = [info.key for info in shop.stores.index.list("explanations/")]
    assert len(keys) == 2 and all(key.startswith(f"explanations/{hour:08d}/") for key in keys)
    asked = []
    url = shop.stores.index.url
    monkeypatch.setattr(
        shop.stores.index, "url", lambda key, expires_s: (asked.append(expires_s), url(key, 1))[1]
    )
    monkeypatch.setattr(explain, "MAX_BODY_BYTES", 100)
    assert shop.picture(found.query_id, "p", of="pair").url
    assert isinstance(asked[0], int) and 55 <= asked[0] <= 60
    shop.clock.now += 3700
    shop.here.sweep.run(FOREVER)
    assert not list(shop.stores.index.list("explanations/"))


def test_the_view_is_the_one_that_is_nearest(shop, photo):
    shop.upload({"p/back": photo(1), "p/front": photo(2), "p/side": photo(3)})
    for seed, view in ((1, "back"), (2, "front"), (3, "side")):
        found = shop.search(like(photo(seed)))
        answer = shop.explain(found.query_id, "p").answer
        assert answer.view == found.results[0].view == view
        assert answer.score == pytest.approx(found.results[0].score, abs=2e-6)


def test_several_inputs_crops_and_what_it_is_not_like(shop, photo):
    shop.upload({"p": photo(1), "two/a": photo(2), "two/b": photo(3), "bad": photo(4)})
    found = shop.search(
        like(photo(10), weight=2),
        like(photo(11, size=(300, 200)), crop=(0.25, 0.1, 0.5, 0.8)),
        QueryInput(product_id="two", weight=0.5),
        not_like=("bad",),
    )
    answer = shop.explain(found.query_id, "p").answer
    assert_adds_up(answer)
    kinds = [(item.kind, item.input, item.product_id, item.view) for item in answer.inputs]
    assert kinds == [
        ("photo", 0, None, None),
        ("photo", 1, None, None),
        ("product", 2, "two", "a"),
        ("product", 2, "two", "b"),
        ("not_like", None, "bad", "bad"),
    ]
    assert [item.coefficient > 0 for item in answer.inputs] == [True] * 4 + [False]
    sizes = [
        opened(shop.picture(found.query_id, "p", of="query", part=part)).size for part in range(5)
    ]
    assert sizes == [(96, 128), (150, 160), (96, 128), (96, 128), (96, 128)]
    most = max(answer.inputs, key=lambda item: abs(item.share)).part
    assert answer.trust.part == most
    chosen = shop.picture(found.query_id, "p", of="query")
    assert chosen.body == shop.picture(found.query_id, "p", of="query", part=most).body
    with pytest.raises(InvalidRequest, match="0 to 4") as refused:
        shop.picture(found.query_id, "p", of="query", part=5)
    assert refused.value.parameter == "part"


def test_a_search_with_cells_of_another_is_explained(shop, photo):
    shop.upload({f"p{seed}": photo(seed) for seed in range(5)})
    whole = shop.search(like(photo(40)))
    cells = ((3, 2), (3, 3), (4, 3))
    part = shop.search(QueryInput(query_id=whole.query_id, cells=cells))
    product_id = part.results[0].product_id
    answer = shop.explain(part.query_id, product_id).answer
    assert_adds_up(answer)
    assert answer.score == pytest.approx(part.results[0].score, abs=2e-6)
    chosen = np.zeros((SIDE, SIDE), bool)
    chosen[tuple(zip(*cells, strict=True))] = True
    assert not np.any(np.asarray(answer.query.contributions)[~chosen])
    assert not shop.explain(whole.query_id, product_id).hit
    assert opened(shop.picture(part.query_id, product_id, of="query")).size == (96, 128)


@pytest.mark.parametrize("kind", ["product", "similar"])
def test_a_search_with_a_product_is_explained(shop, photo, kind):
    shop.upload({"p": photo(1), "q": photo(2)})
    found = shop.search(QueryInput(product_id="p"))
    answer = shop.explain(found.query_id, "q").answer
    assert_adds_up(answer)
    # What is known of the photo that was searched with outlives the photo.
    shop.here.catalogue.delete("shop", "p")
    assert shop.explain(found.query_id, "q").hit
    with pytest.raises(Gone, match="“p” has been deleted"):
        shop.explain(found.query_id, "p")
    with pytest.raises(Gone, match=r"shop/p\.jpg") as left:
        shop.picture(found.query_id, "q", of="query")
    assert left.value.parameter == "query_id"
    assert shop.picture(found.query_id, "q", of="result").body


def test_what_is_not_there_is_404_and_what_was_there_is_410(shop, photo):
    shop.upload({"p": photo(1), "q": photo(2)})
    found = shop.search(like(photo(1)))
    shop.here.catalogue.delete("shop", "p")
    for ask in (shop.explain, lambda *ids: shop.picture(*ids, of="pair")):
        with pytest.raises(Gone, match="“p” has been deleted"):
            ask(found.query_id, "p")
        for nobody in ("nobody", "", "a/b", "🥾", "x" * 10_000, "q\0", "../q"):
            with pytest.raises(NotFound) as missing:
                ask(found.query_id, nobody)
            assert missing.value.parameter == "product_id"
            assert len(missing.value.detail) < 200
        never = str(ULID.from_timestamp(shop.clock.now))
        for unknown in (never, "", "x", "../" * 9, "x" * 10_000, LONG_AGO.lower()):
            with pytest.raises(NotFound) as missing:
                ask(unknown, "q")
            assert missing.value.parameter == "query_id"


def test_a_search_expires(shop, photo):
    shop.upload({"p": photo(1)})
    found = shop.search(like(photo(1)))
    assert shop.explain(found.query_id, "p")
    shop.clock.now = found.explanations_expire_at + 1
    with pytest.raises(Gone, match="expired"):
        shop.explain(found.query_id, "p")
    with pytest.raises(Gone, match="expired"):
        shop.picture(found.query_id, "p", of="pair")
    with pytest.raises(Gone, match="expired"):
        shop.explain(LONG_AGO, "p")


def test_nothing_is_kept_when_that_is_turned_off(shop, photo):
    shop.upload({"p": photo(1)})
    found = shop.search(like(photo(1)), explain=False)
    with pytest.raises(NotFound, match="explain=false"):
        shop.explain(found.query_id, "p")
    shop.here = shop.make(query_retention_s=0)
    found = shop.search(like(photo(1)))
    assert found.results[0].explanation_url is None
    with pytest.raises(NotFound, match="LOOKALIKE_QUERY_RETENTION_S is 0"):
        shop.explain(found.query_id, "p")
    assert not list(shop.stores.index.list("queries/"))


def test_damaged_material_is_gone(shop, photo):
    shop.upload({"p": photo(1)})
    found = shop.search(like(photo(1)))
    _, body = shop.stores.index.get(query_key(found.query_id), 10**8)
    shop.stores.index.put_object(query_key(found.query_id), body[:-10])
    with pytest.raises(Gone, match="cannot be read"):
        shop.explain(found.query_id, "p")


def test_a_generation_that_is_not_searched_any_more_is_explained_by_feature_maps(shop, photo):
    shop.upload({f"p{seed}": photo(seed) for seed in range(30)})
    shop.upload({"many/a": photo(100), "many/b": photo(101)})
    raw = shop.search(like(photo(101)))
    scores = {item.product_id: item.score for item in raw.results}
    shop.reindex()
    fitted = shop.search(like(photo(101)))
    assert fitted.generation != raw.generation
    shop.here.reindex.roll_back("shop")
    shop.clock.now += 1
    back = shop.search(like(photo(101)))
    assert back.generation == raw.generation
    for found in (raw, fitted, back):
        for result in found.results[:3]:
            answer = shop.explain(found.query_id, result.product_id).answer
            assert_adds_up(answer)
            assert answer.generation == found.generation
            assert answer.score == pytest.approx(result.score, abs=0.02)
            assert shop.explain(found.query_id, result.product_id).hit
        assert shop.explain(found.query_id, "many").answer.view == "b"
    assert scores["many"] == pytest.approx(1, abs=1e-3)
    (head,) = (info.key for info in shop.stores.index.list("heads/"))
    assert head == head_key("shop", head.split("/")[-1].removesuffix(".head"))
    shop.stores.index.delete(head)
    with pytest.raises(Gone, match="Search again"):
        shop.explain(fitted.query_id, "p9")


def test_of_very_many_views_some_are_compared(shop, photo, monkeypatch):
    monkeypatch.setattr(explained_pair, "MAX_VIEWS", 2)
    shop.upload({f"p{seed}": photo(seed) for seed in range(30)})
    shop.upload({f"many/v{seed}": photo(100 + seed) for seed in range(6)})
    found = shop.search(like(photo(105)), k=1)
    shop.reindex()
    assert shop.explain(found.query_id, "many").answer.view == found.results[0].view == "v5"


@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_a_feature_map_that_is_missing_is_made_again(shop, photo, toy_encoder_of, harm):
    shop.upload({"p": photo(1), "q": photo(2)})
    (view,) = shop.views("p").values()
    name = map_key(SPACE, view.key, view.etag)
    assert shop.stores.index.head(name)
    if harm == "missing":
        shop.stores.index.delete(name)
    else:
        shop.stores.index.put_object(name, b"LKFM nonsense")
    found = shop.search(like(photo(5)))
    before = toy_encoder_of(SPACE).encoded
    assert_adds_up(shop.explain(found.query_id, "p").answer)
    assert toy_encoder_of(SPACE).encoded == before + 1
    shop.stores.index.delete(next(shop.stores.index.list("explanations/")).key)
    assert_adds_up(shop.explain(found.query_id, "p").answer)
    assert toy_encoder_of(SPACE).encoded == before + 1


def test_a_photo_that_leaves_meanwhile_is_gone(shop, photo):
    shop.upload({"p": photo(1)})
    found = shop.search(like(photo(1)))
    shop.forget_map("p")
    shop.stores.images.put_object("shop/p.jpg", photo(2), "image/jpeg")  # not looked at yet
    with pytest.raises(Retry):
        shop.explain(found.query_id, "p")
    with pytest.raises(Retry):
        shop.picture(found.query_id, "p", of="result")
    assert shop.here.ingest.reconcile(["shop/p.jpg"]) == {}
    shop.clock.now += 1
    assert shop.explain(found.query_id, "p").answer.changed_since


def test_an_old_map_is_not_drawn_on_a_new_photo(shop, photo):
    shop.upload({"p": photo(1), "q": photo(2)})
    found = shop.search(QueryInput(product_id="q"))
    assert not shop.explain(found.query_id, "p").hit
    for name, seed in (("p", 3), ("q", 4)):
        shop.stores.images.put_object(f"shop/{name}.jpg", photo(seed), "image/jpeg")
    for of in ("result", "query"):
        with pytest.raises(Retry):  # the records do not know of it yet
            shop.picture(found.query_id, "p", of=of)
    (old,) = shop.views("q").values()
    assert shop.here.ingest.reconcile(["shop/p.jpg", "shop/q.jpg"]) == {}
    shop.clock.now += 1
    assert shop.picture(found.query_id, "p", of="result").body
    shop.stores.index.delete(map_key(SPACE, old.key, old.etag))
    shop.upload({"r": photo(5)})
    with pytest.raises(Gone, match=r"shop/q\.jpg") as left:
        shop.explain(found.query_id, "r")
    assert left.value.parameter == "query_id"


@pytest.mark.parametrize("harm", ["overwritten", "deleted"])
def test_a_photo_that_was_searched_with_is_not_shown_when_it_has_left(shop, photo, harm):
    shop.upload({"p": photo(1), "q": photo(2), "r": photo(3)})
    alone = shop.search(QueryInput(product_id="q")).query_id
    several = shop.search(QueryInput(product_id="r"), QueryInput(product_id="q", weight=9)).query_id
    for query_id in (alone, several):
        for of in ("query", "pair"):
            assert not shop.picture(query_id, "p", of=of).hit
            assert shop.picture(query_id, "p", of=of).hit
    if harm == "overwritten":
        shop.upload({"q": photo(4)})
    else:
        shop.here.catalogue.delete("shop", "q")
    for query_id in (alone, several):
        for of in ("query", "pair"):
            with pytest.raises(Gone, match=r"shop/q\.jpg") as left:
                shop.picture(query_id, "p", of=of)
            assert left.value.parameter == "query_id"
        assert shop.picture(query_id, "p", of="result").body
    assert shop.picture(several, "p", of="query", part=0).body


def test_a_search_of_an_encoder_that_has_left_is_gone(shop, photo, monkeypatch):
    shop.upload({"p": photo(1), "q": photo(2)})
    found = shop.search(like(photo(5)))
    shop.forget_map("p")

    def no_model(space: str) -> Any:
        raise Unavailable(f"No model of {space}.")

    monkeypatch.setattr(shop.here.explanations._feature_maps, "_encoder_of", no_model)
    with pytest.raises(Unavailable):
        shop.explain(found.query_id, "p")
    lineage = shop.stores.lineages.get("shop")
    other = Generation("shop", "g9", "efficientnet-lite1-border-v1")
    lineage = shop.stores.lineages.put(replace(lineage, beside=Build(other, "kept", 1.0, 2.0)))
    with pytest.raises(Unavailable):
        shop.explain(found.query_id, "p")
    beside = Build(lineage.current, "kept", 1.0, 2.0)
    lineage = shop.stores.lineages.put(replace(lineage, current=other, beside=beside))
    shop.clock.now += 1
    with pytest.raises(Unavailable):
        shop.explain(found.query_id, "p")
    shop.stores.lineages.put(replace(lineage, beside=None))
    shop.clock.now += 1
    with pytest.raises(Gone, match="encoder") as left:
        shop.explain(found.query_id, "p")
    assert left.value.parameter == "query_id"


def test_what_was_kept_and_cannot_be_read_is_computed_again(shop, photo):
    shop.upload({"p": photo(1)})
    found = shop.search(like(photo(1)))
    answer = shop.explain(found.query_id, "p").answer
    (info,) = shop.stores.index.list("explanations/")
    for body in (b"{", b"[]", b'{"key": 1}', b"\xff"):
        shop.stores.index.put_object(info.key, body)
        again = shop.explain(found.query_id, "p")
        assert not again.hit and again.answer == answer


def test_an_explanation_that_cannot_be_kept_is_answered(shop, photo, monkeypatch, caplog):
    shop.upload({"p": photo(1)})
    found = shop.search(like(photo(1)))
    put = shop.stores.index.put

    def fail(key: str, *rest: Any, **options: Any) -> None:
        if key.startswith("explanations/"):
            raise Unavailable("no room")
        put(key, *rest, **options)

    monkeypatch.setattr(shop.stores.index, "put", fail)
    assert_adds_up(shop.explain(found.query_id, "p").answer)
    assert opened(shop.picture(found.query_id, "p", of="pair"))
    assert "no room" in caplog.text
    monkeypatch.setattr(explain, "MAX_BODY_BYTES", 100)
    with pytest.raises(Unavailable):
        shop.picture(found.query_id, "p", of="pair")


def test_an_index_file_that_goes_meanwhile_is_followed(shop, photo, monkeypatch, caplog):
    shop.upload({"p": photo(1)})
    found = shop.search(like(photo(1)))
    index = shop.here.query._live_index
    get, failed = index.get, []

    def vanish(generation, **options):
        if not failed:
            failed.append(True)
            raise Vanished("bases/shop/x.base is not in the bucket")
        return get(generation, **options)

    monkeypatch.setattr(index, "get", vanish)
    assert_adds_up(shop.explain(found.query_id, "p").answer)
    assert failed and "looking again" in caplog.text


def test_eight_at_once_get_the_same(shop, photo):
    shop.upload({f"p{seed}": photo(seed) for seed in range(5)})
    found = shop.search(like(photo(40)))
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: shop.explain(found.query_id, "p3"), range(8)))
        pictures = list(
            threads.map(lambda _: shop.picture(found.query_id, "p3", of="pair"), range(8))
        )
    assert len({repr(item.answer) for item in answers}) == 1
    assert len({item.body for item in pictures}) == 1
    assert shop.explain(found.query_id, "p3").hit


def test_pictures_have_the_photos_own_size_upright(shop, photo):
    sideways = Image.open(io.BytesIO(photo(1, size=(300, 200))))
    exif = sideways.getexif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    sideways.save(stream, "JPEG", exif=exif)
    shop.upload({"p": stream.getvalue()})
    found = shop.search(like(photo(3, size=(120, 90), kind="PNG")))
    for kind, decoded in (("png", "PNG"), ("webp", "WEBP")):
        result = shop.picture(found.query_id, "p", of="result", format=kind)
        assert result.media_type == f"image/{kind}" and not result.hit
        image = opened(result)
        assert (image.format, image.size) == (decoded, (200, 300))
        assert opened(shop.picture(found.query_id, "p", of="query", format=kind)).size == (120, 90)
        again = shop.picture(found.query_id, "p", of="result", format=kind)
        assert again.hit and again.body == result.body
    bodies = {
        shop.picture(found.query_id, "p", of="result", map=kind).body
        for kind in ("gradcam", "contributions", "pulls")
    }
    assert len(bodies) == 3
    small = shop.picture(found.query_id, "p", of="result", max_side=128)
    assert opened(small).size == (85, 128)
    pair = shop.picture(found.query_id, "p", of="pair")
    assert opened(pair).width > 400
    same = shop.picture(found.query_id, "p", of="pair", max_side=60, map="pulls", part=0)
    assert same.hit and same.body == pair.body


def test_few_pictures_are_kept_of_a_pair(shop, photo):
    shop.upload({"p": photo(1)})
    found = shop.search(like(photo(3, size=(300, 200))))
    sizes = set()
    for side in range(32, 400):
        picture = shop.picture(found.query_id, "p", of="query", max_side=side)
        assert picture.hit == (side not in PICTURE_SIDES)
        assert max(opened(picture).size) <= side
        sizes.add(opened(picture).size)
    assert len(sizes) == 4
    whole = shop.picture(found.query_id, "p", of="query")
    for options in ({"part": 0}, {"max_side": PICTURE_SIDES[-1]}):
        same = shop.picture(found.query_id, "p", of="query", **options)
        assert same.hit and same.body == whole.body
    assert len(list(shop.stores.index.list("explanations/"))) == 1 + 4 + 1


def test_large_photos_are_drawn_reduced(shop, photo, monkeypatch):
    monkeypatch.setattr(explanation_pictures, "MAX_PICTURE_PIXELS", 10_000)
    shop.upload({"p": photo(1, size=(200, 200))})
    found = shop.search(like(photo(3, size=(4, 2000))))
    assert opened(shop.picture(found.query_id, "p", of="result")).size == (100, 100)
    assert opened(shop.picture(found.query_id, "p", of="query")).size == (4, 2000)
    monkeypatch.setattr(explanation_pictures, "PICTURE_SIDES", (50,))
    assert opened(shop.picture(found.query_id, "p", of="result", format="webp")).size == (50, 50)


def test_a_picture_too_large_for_an_answer_is_a_url(shop, photo, monkeypatch):
    shop.upload({"p": photo(1)})
    found = shop.search(like(photo(1)))
    monkeypatch.setattr(explain, "MAX_BODY_BYTES", 100)
    first = shop.picture(found.query_id, "p", of="result")
    assert first.body is None and not first.hit
    again = shop.picture(found.query_id, "p", of="result")
    assert again.hit and again.url == first.url
    key = first.url.removeprefix("memory:///").partition("?")[0]
    info, body = shop.stores.index.get(key, 10**7)
    assert info.content_type == "image/png"
    assert Image.open(io.BytesIO(body)).size == (96, 128)
