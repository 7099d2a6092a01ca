"""The dashboard in a real browser: it loads nothing from outside and tells what happened."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from playwright.sync_api import Browser, Page, expect, sync_playwright

from data.sample import products, render

pytestmark = pytest.mark.ui

CHROMIUM = "/usr/bin/chromium"
ROOT = Path(__file__).parents[2]
START_S = 60


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class FakeApi:
    """Answers as the query function does, with photos of the sample catalogue."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.searches: list[dict[str, str]] = []
        self.catalogues = ["default", "sample"]
        self._products = products()[:3]
        self._folder = folder
        for product in self._products:
            render(product, "front").save(folder / f"{product.product_id}.jpg")
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(10)

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.add_routes(
            [
                web.post("/search", self._search),
                web.get("/stats", self._stats),
                web.get("/products", self._failures),
                web.get("/explanations/Q/{product}", self._explanation),
                web.get("/explanations/Q/{product}/pair.webp", self._pair),
                web.static("/photos", self._folder),
            ]
        )
        runner = web.AppRunner(app)
        self._loop.run_until_complete(runner.setup())
        self._loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", self.port).start())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _search(self, request: web.Request) -> web.Response:
        body = "json" if request.content_type == "application/json" else request.content_type
        self.searches.append({**request.query, "body": body})
        if request.query.get("filter") == "nonsense":
            problem = {"title": "Invalid request", "detail": "“nonsense” is not a filter."}
            return web.json_response(problem, status=422)
        results = [
            {
                "rank": rank,
                "product_id": product.product_id,
                "score": 1 - rank / 10,
                "title": product.title,
                "category": product.category,
                "attributes": {"price": product.price},
                "image_url": f"{self.url}/photos/{product.product_id}.jpg",
                "thumbnail_url": f"{self.url}/photos/{product.product_id}.jpg",
                "explanation_url": f"{self.url}/explanations/Q/{product.product_id}",
            }
            for rank, product in enumerate(self._products, start=1)
        ]
        return web.json_response({"results": results, "took_ms": {"total": 41.0}})

    async def _explanation(self, request: web.Request) -> web.Response:
        if request.match_info["product"] != self._products[0].product_id:
            problem = {"title": "Gone", "detail": "The product was deleted."}
            return web.json_response(problem, status=410)
        return web.json_response(
            {
                "score": 0.9,
                "foreground_share": 0.923,
                "background_share": None,
                "trust": {"better_than_chance": False},
            }
        )

    async def _pair(self, request: web.Request) -> web.FileResponse:
        return web.FileResponse(self._folder / f"{request.match_info['product']}.jpg")

    async def _stats(self, request: web.Request) -> web.Response:
        counts = {"products": 3, "views": 7, "failures": 1, "segments": 2, "rows": 7}
        entries = [
            {
                "catalogue": catalogue,
                "encoder": "efficientnet-lite2-border-v1",
                "generation": "g1",
                **(counts if catalogue == "default" else dict.fromkeys(counts, 0)),
                "size_bytes": 36_000,
            }
            for catalogue in self.catalogues
        ]
        return web.json_response({"catalogues": entries})

    async def _failures(self, request: web.Request) -> web.Response:
        assert request.query["status"] == "failed"
        failure = {
            "key": "default/broken.jpg",
            "reason": "truncated",
            "detail": "The file ends too early.",
            "tries": 1,
            "at": 1_700_000_000.0,
        }
        return web.json_response({"failures": [failure], "cursor": None})


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeApi]:
    server = FakeApi(tmp_path_factory.mktemp("photos"))
    server.start()
    yield server
    server.stop()


def wait_until_served(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until the port accepts a connection; the deadline only bounds a hang."""
    deadline = time.monotonic() + START_S
    while True:
        assert process.poll() is None, "the dashboard ended while it started"
        assert time.monotonic() < deadline, "the dashboard did not start"
        with socket.socket() as probe:
            probe.settimeout(0.2)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return


@pytest.fixture(scope="module")
def dashboard(api: FakeApi) -> Iterator[str]:
    port = free_port()
    # Nothing listens at the AWS endpoint: the search log cannot be read.
    environment = {
        **os.environ,
        "LOOKALIKE_API_URL": api.url,
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }
    command = [sys.executable, "-m", "dashboard", "--port", str(port)]
    with subprocess.Popen(command, env=environment, cwd=ROOT) as process:
        try:
            wait_until_served(port, process)
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page whose every request must stay on this machine and whose console must stay clean."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    visit = context.new_page()
    outside: list[str] = []
    errors: list[str] = []
    local = ("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:")
    visit.on("request", lambda r: None if r.url.startswith(local) else outside.append(r.url))
    visit.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    visit.on("pageerror", lambda error: errors.append(str(error)))
    yield visit
    context.close()
    assert outside == []
    assert errors == []


def test_a_photo_is_searched_and_its_results_are_shown(page: Page, dashboard: str, api: FakeApi):
    page.goto(dashboard)
    expect(page.get_by_text("No search yet")).to_be_visible(timeout=30_000)
    page.locator("input[type=file]").set_input_files(str(api._folder / "mug-02.jpg"))
    cards = page.locator("article.result")
    expect(cards).to_have_count(3, timeout=15_000)
    expect(cards.first).to_contain_text("0.900")
    expect(cards.first).to_contain_text(products()[0].title)
    expect(page.get_by_text("mug-02.jpg · 3 results in 41 ms")).to_be_visible()
    assert api.searches[-1] == {"k": "12", "catalogue": "default", "body": "image/jpeg"}
    shown = cards.first.locator("img").evaluate("image => image.decode().then(() => image.width)")
    assert shown > 100


def test_a_result_says_why_it_was_found(page: Page, dashboard: str, api: FakeApi):
    page.goto(dashboard)
    photo = api._folder / f"{api._products[0].product_id}.jpg"
    page.locator("input[type=file]").set_input_files(photo)
    page.get_by_role("button", name="Why?").first.click()
    facts = page.locator("dl.facts")
    expect(facts).to_contain_text("Score0.900Foreground to foreground92 %")
    expect(facts).to_contain_text("Background to background–Grad-CAMno better than chance")
    pair = page.locator("img.pair")
    assert str(pair.get_attribute("src")).startswith("data:image/webp;base64,")
    assert pair.evaluate("image => image.decode().then(() => image.width)") > 100
    expect(pair).to_be_visible()
    page.keyboard.press("Escape")
    expect(facts).to_be_hidden()
    page.get_by_role("button", name="Why?").nth(1).click()
    expect(facts).to_contain_text("The product was deleted.")
    expect(pair).to_be_hidden()


def test_the_catalogue_in_the_url_is_the_one_that_is_chosen(
    page: Page, dashboard: str, api: FakeApi
):
    api.searches.clear()
    page.goto(f"{dashboard}?catalogue=sample&like=mug-01")
    expect(page.locator("article.result")).to_have_count(3, timeout=30_000)
    expect(page.get_by_role("combobox", name="Catalogue")).to_have_text("sample")
    assert {search["catalogue"] for search in api.searches} == {"sample"}


def test_without_own_products_the_sample_is_chosen(
    page: Page, dashboard: str, api: FakeApi, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(api, "catalogues", ["sample"])
    page.goto(dashboard)
    expect(page.get_by_role("combobox", name="Catalogue")).to_have_text("sample", timeout=30_000)


def test_a_problem_is_told_in_the_words_of_the_api(page: Page, dashboard: str, api: FakeApi):
    page.goto(f"{dashboard}?like=mug-01")
    expect(page.locator("article.result")).to_have_count(3, timeout=30_000)
    assert api.searches[-1]["body"] == "json"
    page.get_by_label("Filter").fill("nonsense")
    page.get_by_label("Filter").press("Enter")
    expect(page.get_by_text("“nonsense” is not a filter.")).to_be_visible()
    expect(page.locator("article.result")).to_have_count(0)


def test_activity_shows_counts_and_failures_even_without_the_search_log(page: Page, dashboard: str):
    page.goto(dashboard)
    page.get_by_role("tab", name="Activity").click(timeout=30_000)
    expect(page.get_by_text("The file ends too early.")).to_be_visible(timeout=15_000)
    expect(page.locator(".tile").first).to_have_text("3products")
    expect(page.get_by_text("The search log cannot be read")).to_be_visible(timeout=15_000)
    assert page.url.endswith("page=activity")


@pytest.mark.parametrize(("width", "height"), [(1400, 900), (390, 844)])
def test_nothing_is_wider_than_the_screen(page: Page, dashboard: str, width: int, height: int):
    page.set_viewport_size({"width": width, "height": height})
    page.goto(f"{dashboard}?page=activity")
    expect(page.get_by_text("The file ends too early.")).to_be_visible(timeout=30_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_an_api_that_does_not_answer_is_named(page: Page, dashboard: str, api: FakeApi):
    page.goto(dashboard)
    expect(page.get_by_text("No search yet")).to_be_visible(timeout=30_000)
    api.stop()
    page.get_by_role("tab", name="Activity").click()
    expect(page.get_by_text(f"The API at {api.url} does not answer.")).to_be_visible(timeout=15_000)
