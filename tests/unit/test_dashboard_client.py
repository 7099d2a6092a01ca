"""The dashboard's calls to the API: what is sent, and what a failure becomes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from dashboard.client import MAX_DIRECT_BYTES, Api, Photo, Problem, api_key, api_url
from local.api_key import FILE_NAME

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def against(
    routes: dict[tuple[str, str], Handler], call: Callable[[Api], Awaitable[object]], key: str = ""
):
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
            return await call(Api(f"http://127.0.0.1:{port}", lambda: key))
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


def test_a_key_goes_to_the_api_and_never_to_the_bucket():
    seen: list[tuple[str, str | None]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.path, request.headers.get("Authorization")))
        url = str(request.url.origin()) + "/bucket"
        return web.json_response({"upload_key": "01J", "url": url, "fields": {}})

    async def bucket(request: web.Request) -> web.Response:
        seen.append((request.path, request.headers.get("Authorization")))
        return web.Response(status=204)

    routes = {("POST", path): answer for path in ("/uploads", "/search")}
    routes["POST", "/bucket"] = bucket
    photo = Photo(bytes(MAX_DIRECT_BYTES + 1), "image/jpeg", "a.jpg")
    against(routes, lambda api: api.search(photo, {}), key="lk_a_b")
    assert seen == [("/uploads", "Bearer lk_a_b"), ("/bucket", None), ("/search", "Bearer lk_a_b")]


def test_a_picture_comes_with_the_key_or_says_why_not():
    async def pair(request: web.Request) -> web.Response:
        if "Authorization" not in request.headers:
            problem = {"title": "Unauthorized", "detail": "This needs an API key."}
            return web.json_response(problem, status=401)
        return web.Response(body=b"webp", content_type="image/webp")

    routes = {("GET", "/explanations/Q/p/pair.webp"): pair}
    url = "https://shop.example/explanations/Q/p"
    assert against(routes, lambda api: api.pair_picture(url), key="lk_a_b") == b"webp"
    with pytest.raises(Problem, match="needs an API key"):
        against(routes, lambda api: api.pair_picture(url))


def test_the_key_comes_from_the_environment_or_the_state_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    for name in ("LOOKALIKE_API_KEY", "LOOKALIKE_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    assert api_key() == ""
    monkeypatch.setenv("LOOKALIKE_DATA_DIR", str(tmp_path))
    assert api_key() == ""
    (tmp_path / FILE_NAME).write_text("lk_local_key\n")
    assert api_key() == "lk_local_key"
    monkeypatch.setenv("LOOKALIKE_API_KEY", "lk_other")
    assert api_key() == "lk_other"
