"""What scores mean is found out by searching a catalogue with its own photos, in slices."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest

from calibrated_shop import CATEGORIES, FOREVER, Hand, Shop, draw, foreign
from lookalike.adapters.failing import Crash
from lookalike.core.calibration import Calibration, encode_calibration
from lookalike.core.errors import NotFound
from lookalike.services import calibrate as module
from lookalike.services import calibrate_sample, jobs
from lookalike.services.judge import read_calibration
from lookalike.settings import Settings
from lookalike.wiring import build_services

ENCODER = "efficientnet-lite0"


@pytest.fixture
def shop(memory_stores, ids, toy_encoder_of, tmp_path) -> Shop:
    clock = Hand()
    settings = Settings(
        encoder=ENCODER, refresh_s=0, derived_refresh_s=0, head_rows=0, cache_dir=str(tmp_path)
    )

    def make():
        return build_services(settings, memory_stores, ids, clock, toy_encoder_of)

    return Shop(memory_stores, make, clock, ids)


def current(shop: Shop) -> Calibration:
    return read_calibration(shop.stores.index, artifact(shop))


def artifact(shop: Shop):
    return shop.stores.artifacts.current("shop")["calibration"]


def test_scores_of_a_shop_come_to_mean_something(shop) -> None:
    shop.stock(30)
    report = shop.calibrate()
    assert report.finished and not report.postponed
    (said,) = report.catalogues
    assert (said.job, said.phase, said.finished) == ("calibrate", "", True)
    assert said.summary["relevance"] == "category"
    assert said.summary["queries"] == 120
    assert said.summary["error"] < said.summary["error_before"]
    assert said.summary["error"] < 0.08
    found = current(shop)
    assert found.score_map is not None and found.subspace is not None
    scores, good = [], []
    for category in range(4):
        for number in range(100, 115):  # photos that the shop does not have
            for result in shop.search(draw(category, number)).results:
                scores.append(result.score)
                good.append(result.category == CATEGORIES[category])
    matches = found.score_map.match(scores)
    assert abs(matches.mean() - np.mean(good)) < 0.08
    assert artifact(shop).generation == shop.stores.lineages.get("shop").current.generation
    assert list(shop.stores.index.list("work/")) == []


def test_a_run_that_is_cut_into_slices_ends_in_the_same_fit(shop, monkeypatch) -> None:
    shop.stock(30)
    shop.calibrate()
    whole = current(shop)
    monkeypatch.setattr(calibrate_sample, "SAMPLE_ROWS", 100)  # of 120: searches the live index
    monkeypatch.setattr(jobs, "SAVE_EVERY_S", 0.0)
    shop.calibrate(now=True)
    through_the_index = current(shop)
    calls = 0
    for calls in range(1, 200):
        deadline = shop.clock.now + 0.02
        if shop.calibration().run(deadline, now=calls == 1).finished:
            break
    assert calls > 3
    sliced = current(shop)
    assert artifact(shop).serial == 3
    assert sliced.score_map is not None and through_the_index.score_map is not None
    assert np.array_equal(sliced.score_map.scores, through_the_index.score_map.scores)
    assert np.array_equal(sliced.score_map.matches, through_the_index.score_map.matches)
    # Without a head, a search of the sample is a search of the index.
    assert whole.score_map is not None
    levels = np.linspace(0.3, 0.9, 20)
    assert sliced.score_map.match(levels) == pytest.approx(whole.score_map.match(levels), abs=0.15)


def test_without_categories_other_photos_of_a_product_are_the_measure(shop) -> None:
    photos = {
        f"shop/{name}-{product}/{view}.png": draw(10 + product, view, spread=25.0)
        for name in ("a",)
        for product in range(40)
        for view in range(3)
    }
    shop.upload(photos)
    (said,) = shop.calibrate().catalogues
    assert said.summary["relevance"] == "product"
    fitted = current(shop).score_map
    assert fitted is not None
    assert fitted.match([0.95])[0] > 0.8 > 0.3 > fitted.match([0.2])[0]


def test_photos_that_nothing_is_known_of_still_tell_foreign_queries(shop) -> None:
    shop.upload({f"shop/x{number}.png": draw(number % 4, number, 8) for number in range(80)})
    (said,) = shop.calibrate().catalogues
    assert (said.summary["relevance"], said.summary["knows_foreign"]) == ("", True)
    assert current(shop).score_map is None
    assert shop.search(foreign(0)).verdict == "no_good_match"
    known = shop.search(draw(0, 500, 8))
    assert known.verdict is None and {item.match for item in known.results} == {None}


@dataclass
class Judged:
    record: object
    gains: dict[str, int]


def judged(shop: Shop, count: int, **changes: object) -> list[Judged]:
    """Searches of which people liked the first result and bought what is ranked third."""
    generation = shop.stores.lineages.get("shop").current.generation
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        scores = np.sort(rng.uniform(0.2, 0.9, 4))[::-1]
        results = tuple((f"p{rank}", "x", score) for rank, score in enumerate(scores))
        fields = {"results": results, "generation": generation, "kind": "image"} | changes
        found.append(Judged(SimpleNamespace(**fields), {"p0": 1, "p2": 3, "p3": 0}))
    return found


def test_fifty_judged_searches_are_believed_where_they_say_what_categories_do_not(shop) -> None:
    shop.stock(20)
    shop.judged = judged(shop, 49)
    assert shop.calibrate().catalogues[0].summary["relevance"] == "category"
    shop.judged = judged(shop, 50)
    (said,) = shop.calibrate(now=True).catalogues
    assert (said.summary["relevance"], said.summary["judged"]) == ("judged", 50)
    assert said.summary["pairs"] == 150
    # Those of other generations, and of parts of photos, have other scores.
    for changes in ({"generation": "another"}, {"kind": "region"}):
        shop.judged = judged(shop, 60, **changes)
        assert shop.calibrate(now=True).catalogues[0].summary["relevance"] == "category"


def test_it_is_made_anew_when_enough_has_come_or_been_judged_and_not_else(shop) -> None:
    shop.stock(20)
    assert shop.calibrate(wait_s=0).catalogues[0].summary == {}  # photos still arrive
    shop.calibrate()
    shop.calibrate()
    assert artifact(shop).serial == 1
    shop.upload({f"shop/new{number}.png": draw(0, 700 + number) for number in range(7)})
    shop.calibrate()
    assert artifact(shop).serial == 1
    shop.upload({f"shop/more{number}.png": draw(0, 800 + number) for number in range(2)})
    shop.calibrate()
    assert artifact(shop).serial == 2
    shop.calibrate(wait_s=90_000)
    assert artifact(shop).serial == 2  # nothing has changed
    shop.judged = judged(shop, 60)
    shop.calibrate()
    assert (artifact(shop).serial, artifact(shop).summary["relevance"]) == (3, "judged")
    shop.calibrate(wait_s=90_000)
    assert artifact(shop).serial == 3


def test_as_many_judged_searches_as_are_read_are_new_ones_each_day(shop, monkeypatch) -> None:
    monkeypatch.setattr(module, "MAX_JUDGED", 60)
    shop.stock(20)
    shop.judged = judged(shop, 70)
    shop.calibrate()
    assert artifact(shop).summary["judged"] == 60
    shop.calibrate(wait_s=90_000)
    assert artifact(shop).serial == 2


def test_clicks_on_what_is_first_say_nothing_of_scores(shop) -> None:
    shop.stock(20)
    shop.calibrate()
    alone = current(shop)
    shop.judged = judged(shop, 400)
    for item in shop.judged:
        item.gains = {"p0": 1}
    shop.calibrate(now=True)
    assert current(shop).relevance == "category"
    assert np.array_equal(current(shop).score_map.matches, alone.score_map.matches)


def test_judged_searches_that_take_too_long_are_left_to_the_next_slice(shop) -> None:
    shop.stock(20)
    service, read = shop.calibration(), []

    def slowly(catalogue: str, limit: int):
        for item in judged(shop, 100):
            read.append(item)
            shop.clock.now += 1.0
            yield item

    service._judged = slowly
    shop.clock.now += 1_000
    assert not service.run(shop.clock.now + 30).finished
    assert len(read) < 40
    assert service.run(FOREVER).finished and artifact(shop).summary["judged"] == 100


@pytest.mark.parametrize("name", ["one a product", "nearly all in one"])
def test_categories_that_say_nothing_are_no_measure(shop, name) -> None:
    for product in range(60):
        category = f"sku {product}" if name == "one a product" else "all" if product else "other"
        views = {
            f"shop/p{product}/{view}.png": draw(product, view, 8)
            for view in range(1 + (product % 3 == 0))
        }
        shop.upload(views, category=category)
    (said,) = shop.calibrate().catalogues
    assert said.summary["relevance"] == ""
    more = {
        f"shop/p{product}/{view}.png": draw(product, view, 8)
        for product in range(60)
        for view in (1, 2)
    }
    shop.upload(more)
    assert shop.calibrate(now=True).catalogues[0].summary["relevance"] == "product"


def test_photos_without_another_of_their_product_are_not_searched_with(shop, monkeypatch) -> None:
    photos = {
        f"shop/p{product}/{view}.png": draw(product, view, 25)
        for product in range(30)
        for view in (0, 1)
    }
    photos |= {f"shop/q{product}.png": draw(100 + product, 0, 25) for product in range(90)}
    shop.upload(photos)
    (said,) = shop.calibrate().catalogues
    assert (said.summary["relevance"], said.summary["queries"]) == ("product", 60)
    monkeypatch.setattr(calibrate_sample, "SAMPLE_ROWS", 140)  # through the index
    (said,) = shop.calibrate(now=True).catalogues
    assert said.summary["relevance"] == "product" and 50 <= said.summary["queries"] <= 60


def test_no_search_counts_twice_when_a_slice_dies_between_its_two_writes(shop, monkeypatch) -> None:
    monkeypatch.setattr(calibrate_sample, "SAMPLE_ROWS", 60)
    shop.stock(20)
    whole = shop.calibrate().catalogues[0].summary["pairs"]
    monkeypatch.setattr(jobs, "SAVE_EVERY_S", 0.0)
    save, died = jobs.Run.save, []

    def dying(self, **changes):
        if changes.get("done", 0) >= 25 and not died:
            died.append(changes)
            raise Crash
        save(self, **changes)

    monkeypatch.setattr(jobs.Run, "save", dying)
    shop.clock.now += 1_000
    with pytest.raises(Crash):
        shop.calibration().run(FOREVER, now=True)
    (said,) = shop.calibrate().catalogues
    assert died and said.summary["pairs"] == whole


def test_what_people_said_is_not_asked_for_every_minute(shop) -> None:
    shop.stock(20)
    shop.calibrate()
    service, asked = shop.calibration(), []
    service._judged = lambda catalogue, limit: asked.append(catalogue) or []
    shop.clock.now += 90_000
    for _ in range(60):
        shop.clock.now += 60
        service.run(FOREVER)
    assert len(asked) == 1


def test_another_head_or_encoder_is_calibrated_at_once(shop) -> None:
    shop.stock(20)
    shop.calibrate()
    lineage = shop.stores.lineages.get("shop")
    scope = lineage.current.scope
    body = encode_calibration(replace(current(shop), head="another"))
    shop.stores.index.put("derived/calibration/shop/x", body, "")
    other = replace(artifact(shop), head="another", key="derived/calibration/shop/x")
    made = shop.stores.artifacts.put(other)
    shop.services = shop.make()
    assert shop.search(draw(0, 99)).verdict is None  # what it says is of another head
    shop.calibrate()
    shop.services = shop.make()
    assert artifact(shop).serial == made.serial + 1
    assert artifact(shop).head == shop.stores.registry.read(scope)[1].head
    assert shop.search(draw(0, 99)).verdict == "match"


def test_a_shop_that_is_too_small_says_nothing(shop) -> None:
    shop.upload({f"shop/x{number}.png": draw(0, number) for number in range(10)}, category="a")
    shop.upload({f"shop/z{number}.png": draw(1, number) for number in range(9)}, category="b")
    assert shop.calibrate().catalogues[0].summary == {}
    assert shop.stores.artifacts.current("shop") == {}
    shop.upload({"shop/y.png": draw(1, 1)}, category="b")
    (said,) = shop.calibrate().catalogues
    assert (said.summary["relevance"], said.summary["knows_foreign"]) == ("category", False)
    with pytest.raises(NotFound):
        shop.calibration().run(FOREVER, "nowhere")


def test_a_sample_that_is_lost_ends_the_run_and_the_next_begins_anew(shop, monkeypatch) -> None:
    shop.stock(20)
    monkeypatch.setattr(jobs, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(calibrate_sample, "SAMPLE_ROWS", 60)
    shop.clock.now += 1_000
    while shop.stores.jobs.get("shop", "calibrate") is None or (
        shop.stores.jobs.get("shop", "calibrate").phase != "searching"
    ):
        assert not shop.calibration().run(shop.clock.now + 0.02).finished
    for info in list(shop.stores.index.list("work/calibrate/")):
        shop.stores.index.delete(info.key)
    assert shop.calibration().run(FOREVER).finished
    job = shop.stores.jobs.get("shop", "calibrate")
    assert (job.phase, job.error) == ("", "its sample has left the bucket")
    assert "calibration" not in shop.stores.artifacts.current("shop")
    shop.calibrate()
    assert artifact(shop).serial == 1


def test_old_files_leave_after_the_grace(shop) -> None:
    shop.stock(20)
    for _ in range(3):
        shop.calibrate(now=True)
    keys = [info.key for info in shop.stores.index.list("derived/calibration/shop/")]
    assert artifact(shop).key in keys and len(keys) <= 2


def test_no_more_than_the_wanted_rows_are_searched_with(shop, monkeypatch) -> None:
    monkeypatch.setattr(module, "QUERIES", 30)
    shop.stock(20)
    assert shop.calibrate().catalogues[0].summary["queries"] == 30
