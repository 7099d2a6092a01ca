"""Who may ask: keys, rights, rates, and what is not said to whom."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from lookalike.adapters.memory import MemoryApiKeys
from lookalike.core.access import ANYBODY, MAX_RATE, ApiKey, Caller, key_text, read_key_text
from lookalike.core.errors import (
    Forbidden,
    InvalidRequest,
    NotFound,
    Reject,
    Throttled,
    Unauthorized,
    Unavailable,
)
from lookalike.services.access import Access, ApiKeys

MINUTE = 1_700_000_040.0  # a full minute
REFRESH_S = 10.0


class CountedKeys(MemoryApiKeys):
    """Keys that note how often they are read and written."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []
        self.counts = 0

    def get(self, key_id: str) -> ApiKey | None:
        self.reads.append(key_id)
        return super().get(key_id)

    def count(self, key_id: str, minute: int) -> int:
        self.counts += 1
        return super().count(key_id, minute)


class Desk:
    """Keys, and functions that check them, at a time that tests set."""

    def __init__(self) -> None:
        self.now = MINUTE
        self.table = CountedKeys()
        self.keys = ApiKeys(self.table, lambda: self.now)
        self.access = self.function()

    def function(self, required: bool = True) -> Access:
        pool = ThreadPoolExecutor(1)
        return Access(self.table, required, REFRESH_S, pool, lambda: self.now)

    def make(self, **changes: Any) -> tuple[ApiKey, str]:
        values: dict[str, Any] = {"label": "shop", "catalogues": None, "rights": ("read",)}
        key, text = self.keys.create(**{**values, "rate": 600, **changes})
        self.table.reads.clear()
        return key, text

    def ask(self, text: str, right: Any = "read") -> Caller:
        return caller_of(self.access, f"Bearer {text}", right)


def caller_of(function: Access, authorization: str, right: Any = "read") -> Caller:
    admitted = function.admit(function.key(authorization), right)
    admitted.check()
    return admitted.caller


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_only_the_hash_of_a_secret_is_kept(desk: Desk) -> None:
    key, text = desk.make()
    assert text.startswith(f"lk_{key.key_id}_")
    secret = text.split("_", 2)[2]
    assert len(secret) == 43  # 32 bytes in base64
    assert key.secret_sha256 == hashlib.sha256(secret.encode()).hexdigest()
    assert secret not in repr(desk.table.all())
    assert desk.make()[1] != text


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER   "])
def test_a_key_says_who_asks(desk: Desk, scheme: str) -> None:
    key, text = desk.make(catalogues=["b", "a", "b"])
    caller = caller_of(desk.access, scheme + text)
    assert caller == Caller(key.key_id, frozenset({"a", "b"}))
    assert caller.allowed("a") == "a"
    with pytest.raises(Forbidden, match="“c”") as caught:
        caller.allowed("c")
    assert caught.value.parameter == "catalogue"
    everything = desk.ask(desk.make()[1])
    assert everything.sees("any") and everything.key_id


def test_without_a_need_for_keys_everybody_may_do_everything(desk: Desk) -> None:
    function = desk.function(required=False)
    for authorization in ("", "Bearer nonsense"):
        assert caller_of(function, authorization, "write") is ANYBODY
    assert ANYBODY.sees("any") and desk.table.reads == []


def others(text: str, key_id: str) -> list[str]:
    secret = text.split("_", 2)[2]
    return [
        "",
        text,  # no scheme
        f"Basic {text}",
        "Bearer",
        "Bearer ",
        f"Bearer {text} {text}",
        f"Bearer {text}x",
        f"Bearer {text[:-1]}",
        f"Bearer {text.upper()}",
        f"Bearer lk_{key_id}_",
        f"Bearer lk_{key_id}_{'A' * 43}",
        f"Bearer lk_{'0' * 12}_{secret}",
        f"Bearer lk_{key_id[:-1]}_{secret}",
        f"Bearer lk_{key_id}_{hashlib.sha256(secret.encode()).hexdigest()}",
        "Bearer lk_" + "x" * 100_000,
        "Bearer lk_\x00\udcff_é",
    ]


def test_what_is_no_valid_key_is_told_so_and_costs_no_write(desk: Desk) -> None:
    key, text = desk.make()
    for authorization in others(text, key.key_id):
        with pytest.raises(Unauthorized) as caught:
            caller_of(desk.access, authorization)
        assert caught.value.headers["WWW-Authenticate"].startswith("Bearer ")
        assert (caught.value.status, caught.value.parameter) == (401, None)
        secret = text.split("_", 2)[2]
        assert secret not in str(caught.value) and key.secret_sha256 not in str(caught.value)
    assert desk.table.counts == 0
    assert set(desk.table.reads) == {key.key_id, "0" * 12}


def test_a_wrong_secret_and_an_unknown_id_are_answered_alike(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, _ = desk.make()
    compared: list[tuple[int, int]] = []

    def compare(one: str, other: str) -> bool:
        compared.append((len(one), len(other)))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr("lookalike.core.access.hmac", SimpleNamespace(compare_digest=compare))
    told = set()
    for key_id in (key.key_id, "0" * 12):
        with pytest.raises(Unauthorized) as caught:
            desk.ask(key_text(key_id, "A" * 43))
        told.add(str(caught.value))
    assert len(told) == 1
    assert compared == [(64, 64)] * 2


def test_a_revoked_key_opens_nothing_once_it_is_read_again(desk: Desk) -> None:
    key, text = desk.make()
    other_function = desk.function()
    desk.ask(text)
    assert desk.keys.revoke(key.key_id).revoked_at == desk.now
    with pytest.raises(Unauthorized, match=f"{key.key_id} is revoked"):
        caller_of(other_function, f"Bearer {text}")
    desk.now += REFRESH_S - 0.1
    desk.ask(text)  # believed for so long
    desk.now += 0.1
    with pytest.raises(Unauthorized, match="revoked"):
        desk.ask(text)
    at = desk.keys.revoke(key.key_id).revoked_at
    assert at == MINUTE  # the first time stays
    with pytest.raises(NotFound):
        desk.keys.revoke("nobody")


def test_a_key_expires_at_its_moment(desk: Desk) -> None:
    key, text = desk.make(expires_in_s=5)
    assert key.expires_at == desk.now + 5
    desk.now += 4.9
    desk.ask(text)
    desk.now += 0.1
    with pytest.raises(Unauthorized, match="expired"):
        desk.ask(text)


def test_nobody_is_let_in_without_a_key(desk: Desk) -> None:
    with pytest.raises(Unauthorized):
        desk.access.admit(None, "read")


def test_a_right_that_a_key_has_not(desk: Desk) -> None:
    reader, writer = desk.make()[1], desk.make(rights=("read", "write"))[1]
    desk.ask(writer, "write")
    with pytest.raises(Forbidden, match="may not write; its rights are: read"):
        desk.ask(reader, "write")


def test_what_is_refused_is_counted_before_it_is(desk: Desk) -> None:
    _, text = desk.make(rate=1)
    with pytest.raises(Forbidden):
        desk.ask(text, "write")
    with pytest.raises(Throttled):
        desk.ask(text, "write")


def test_a_key_is_read_once_in_a_while_known_or_not(desk: Desk) -> None:
    key, text = desk.make()
    for _ in range(3):
        desk.ask(text)
        with pytest.raises(Unauthorized):
            desk.ask(key_text("0" * 12, "A" * 43))
    assert sorted(desk.table.reads) == sorted([key.key_id, "0" * 12])
    desk.now += REFRESH_S
    desk.ask(text)
    assert desk.table.reads.count(key.key_id) == 2


def test_no_more_ids_are_remembered_than_so_many(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lookalike.services.access._REMEMBERED", 3)
    for number in range(10):
        with pytest.raises(Unauthorized):
            desk.ask(key_text(f"{number:012d}", "A" * 43))
    assert len(desk.access._known) == 3


def test_the_rate_is_counted_over_all_functions(desk: Desk) -> None:
    _, text = desk.make(rate=4)
    functions = [desk.function(), desk.function()]
    desk.now = MINUTE + 47.5
    for function in functions * 2:
        caller_of(function, f"Bearer {text}")
    for function in functions * 3:
        with pytest.raises(Throttled, match="4 requests a minute") as caught:
            caller_of(function, f"Bearer {text}")
        assert caught.value.headers == {"Retry-After": "13"}
    assert desk.table.counts == 4 + 2  # what is spent is known then
    _, other = desk.make(rate=1)
    caller_of(functions[0], f"Bearer {other}")
    desk.now = MINUTE + 60
    caller_of(functions[0], f"Bearer {text}")


def test_what_writes_is_counted_before_it_is_done_and_what_reads_meanwhile(desk: Desk) -> None:
    key, text = desk.make(rate=1, rights=("read", "write"))
    first, second = (desk.access.admit(key, "read") for _ in range(2))
    first.check()
    with pytest.raises(Throttled):
        second.check()
    desk.now += 60
    desk.ask(text)
    with pytest.raises(Throttled):
        desk.function().admit(key, "write")


def test_a_request_that_cannot_be_counted_is_not_answered(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = desk.make()

    def count(key_id: str, minute: int) -> int:
        raise Unavailable("the table is throttled")

    monkeypatch.setattr(desk.table, "count", count)
    with pytest.raises(Unavailable):
        desk.ask(text)


def test_who_knows_only_the_id_cannot_use_up_a_key(desk: Desk) -> None:
    key, text = desk.make(rate=1)
    for _ in range(5):
        with pytest.raises(Unauthorized):
            desk.ask(key_text(key.key_id, "A" * 43))
    desk.ask(text)


@pytest.mark.parametrize(
    ("changes", "parameter"),
    [
        ({"label": " "}, "label"),
        ({"label": "x" * 201}, "label"),
        ({"rate": 0}, "rate"),
        ({"rate": MAX_RATE + 1}, "rate"),
        *(({"catalogues": [name]}, "catalogue") for name in ("", "a/b", "..", "a\n", "x" * 256)),
    ],
)
def test_what_cannot_be_in_a_key(desk: Desk, changes: dict[str, Any], parameter: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        desk.make(**changes)
    assert caught.value.parameter == parameter
    assert desk.table.all() == []


def test_keys_are_listed_by_age(desk: Desk) -> None:
    made = []
    for _ in range(3):
        made.append(desk.make()[0])
        desk.now += 1
    assert desk.keys.all() == made


def test_the_text_of_a_key() -> None:
    assert read_key_text(key_text("0" * 12, "_-" * 21 + "a")) == ("0" * 12, "_-" * 21 + "a")


def answers() -> list[tuple[Callable[[], Reject], int]]:
    return [
        (lambda: Unauthorized("x"), 401),
        (lambda: Forbidden("x"), 403),
        (lambda: Throttled("x", 7), 429),
    ]


@pytest.mark.parametrize(("error", "status"), answers())
def test_errors_have_a_status_and_a_kind(error: Callable[[], Reject], status: int) -> None:
    assert error().status == status
    assert Reject("x").headers == {}


def test_a_key_that_is_changed_is_another_record() -> None:
    key = ApiKey("a", "h", "l", None, ("read",), 1, 0.0)
    assert replace(key, revoked_at=1.0).state(0.0) == "revoked"
    assert key.state(1e12) == "valid"
