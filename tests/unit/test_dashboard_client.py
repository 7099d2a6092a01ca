"""The dashboard's calls to the API: what is sent, and what a failure becomes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from dashboard.client import MAX_DIRECT_BYTES, Api, Photo, Problem, api_url

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def against(routes: dict[tuple[str, str], Handler], call: Callable[[Api], Awaitable[object]]):
    """Run ``call`` against an API of ``routes`` on a free port; give what it gave."""

    async def run() -> object:
        app = web.Application(client_max_size=50_000_000)
        for (method, path), handler in routes.items():
            app.router.add_route(method, path, handler)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port = runner.addresses[0][1]
            return await call(Api(f"http://127.0.0.1:{port}"))
        finally:
            await runner.cleanup()

    return asyncio.run(run())


def test_a_photo_is_the_body_of_the_search():
    seen: dict[str, object] = {}

    async def search(request: web.Request) -> web.Response:
        seen.update(request.query, kind=request.content_type, body=await request.read())
        return web.json_response({"results": []})

    photo = Photo(b"jpeg", "image/jpeg", "a.jpg")
    options = {"k": 3, "catalogue": "shoes"}
    answer = against({("POST", "/search"): search}, lambda api: api.search(photo, options))
    assert answer == {"results": []}
    assert seen == {"k": "3", "catalogue": "shoes", "kind": "image/jpeg", "body": b"jpeg"}


def test_a_large_photo_goes_through_an_upload():
    seen: dict[str, object] = {}

    async def uploads(request: web.Request) -> web.Response:
        url = str(request.url.origin()) + "/bucket"
        form = {"upload_key": "01J", "url": url, "fields": {"key": "queries/01J"}}
        return web.json_response(form, status=201)

    async def bucket(request: web.Request) -> web.Response:
        fields = await request.post()
        file = fields["file"]
        assert isinstance(file, web.FileField)
        seen.update(key=fields["key"], size=len(file.file.read()), order=list(fields))
        return web.Response(status=204)

    async def search(request: web.Request) -> web.Response:
        seen["search"] = await request.json()
        return web.json_response({"results": []})

    photo = Photo(bytes(MAX_DIRECT_BYTES + 1), "image/jpeg", "a.jpg")
    routes = {
        ("POST", "/uploads"): uploads,
        ("POST", "/bucket"): bucket,
        ("POST", "/search"): search,
    }
    against(routes, lambda api: api.search(photo, {"k": 3}))
    assert seen == {
        "key": "queries/01J",
        "size": MAX_DIRECT_BYTES + 1,
        "order": ["key", "file"],  # S3 ignores what comes after the file
        "search": {"upload_key": "01J"},
    }


def test_an_explanation_is_asked_at_the_apis_own_address():
    seen: list[str] = []

    async def explanation(request: web.Request) -> web.Response:
        seen.append(request.rel_url.raw_path)
        return web.json_response({"score": 0.5})

    # The API behind another name and a stage names itself as its other clients see it.
    url = "https://shop.example/api/explanations/01J/a%2Fb"
    routes = {("GET", "/explanations/{query}/{product}"): explanation}
    assert against(routes, lambda api: api.explanation(url)) == {"score": 0.5}
    assert seen == ["/explanations/01J/a%2Fb"]


def test_a_problem_document_is_told_in_its_own_words():
    async def search(request: web.Request) -> web.Response:
        problem = {"title": "Invalid request", "detail": "k is 0; it must be 1 to 100."}
        return web.json_response(problem, status=422, content_type="application/problem+json")

    with pytest.raises(Problem, match="k is 0; it must be 1 to 100") as caught:
        against({("POST", "/search"): search}, lambda api: api.similar("p", {"k": 0}))
    assert caught.value.title == "Invalid request"


def test_an_answer_that_is_not_json_is_a_problem():
    async def stats(request: web.Request) -> web.Response:
        return web.Response(text="<html>", status=502)

    with pytest.raises(Problem, match="did not answer in JSON"):
        against({("GET", "/stats"): stats}, lambda api: api.stats())


def test_no_answer_says_what_to_do():
    # Port 1 is never listened on here: the connection is refused at once.
    with pytest.raises(Problem, match="`lookalike up` starts it"):
        asyncio.run(Api("http://127.0.0.1:1").stats())


def test_the_address_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("LOOKALIKE_API_URL", raising=False)
    assert api_url() == "http://127.0.0.1:8000"
    monkeypatch.setenv("LOOKALIKE_API_URL", "http://127.0.0.1:9000/")
    assert api_url() == "http://127.0.0.1:9000"
