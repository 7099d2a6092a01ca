"""``lookalike keys``, and the key that ``lookalike up`` makes for itself."""

from __future__ import annotations

import json
import os
import stat
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from local.api_key import read_local_key, renew_local_key
from local.cli import cli
from local.commands import up
from local.commands.api import Api
from local.commands.connection import Connection
from local.commands.exits import Unreachable
from lookalike.adapters.memory import MemoryApiKeys
from lookalike.core.access import key_text, read_key_text, secret_sha256
from lookalike.core.ports import Stores
from lookalike.services.access import ApiKeys


@pytest.fixture
def table(memory_stores: Stores, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MemoryApiKeys:
    monkeypatch.setattr("lookalike.stores.aws_stores", lambda settings: memory_stores)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.delenv("LOOKALIKE_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    made = memory_stores.api_keys
    assert isinstance(made, MemoryApiKeys)
    return made


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["keys", *arguments])


def test_a_key_is_printed_once(table: MemoryApiKeys) -> None:
    result = run("create", "--label", "web shop", "--catalogue", "a", "--catalogue", "b")
    assert result.exit_code == 0, result.output
    known = read_key_text(result.stdout.strip())  # nothing else: for KEY=$(lookalike keys create)
    assert known is not None
    (key,) = table.all()
    assert (key.key_id, key.secret_sha256) == (known[0], secret_sha256(known[1]))
    assert (key.catalogues, key.rights, key.rate) == (("a", "b"), ("read",), 600)
    assert key.expires_at is None
    assert "a, b" in result.stderr and key.key_id in result.stderr
    for listed in (run().stdout, run("list").stdout, run("list", "--json").stdout):
        assert key.key_id in listed and "web shop" in listed
        assert known[1] not in listed and key.secret_sha256 not in listed


def test_a_key_as_json(table: MemoryApiKeys) -> None:
    result = run(
        *("create", "--label", "x", "--write", "--rate", "5", "--expires-in", "30", "--json")
    )
    told: dict[str, Any] = json.loads(result.stdout)
    assert read_key_text(told["key"])
    (key,) = table.all()
    assert key.catalogues is None and told["catalogues"] is None
    assert told["rights"] == ["read", "write"] and told["rate"] == 5
    assert told["expires_at"] == pytest.approx(told["created_at"] + 30 * 86_400)
    (listed,) = json.loads(run("--json").stdout)
    assert listed == {name: value for name, value in told.items() if name != "key"}


def test_a_key_is_revoked_for_good(table: MemoryApiKeys) -> None:
    assert "keys create" in run().stdout
    run("create", "--label", "old")
    (key,) = table.all()
    assert run("revoke", key.key_id).exit_code == 0
    assert table.all()[0].revoked_at is not None
    assert json.loads(run("revoke", key.key_id, "--json").stdout)["state"] == "revoked"
    assert "revoked" in run("list").stdout
    unknown = run("revoke", "0" * 12)
    assert unknown.exit_code == 2 and "no API key" in unknown.output


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--label", ""],
        ["--label", "x", "--catalogue", "a/b"],
        ["--label", "x", "--rate", "0"],
        ["--label", "x", "--rate", "60001"],
        ["--label", "x", "--expires-in", "0"],
    ],
)
def test_what_cannot_be_in_a_key_makes_none(table: MemoryApiKeys, options: list[str]) -> None:
    assert run("create", *options).exit_code == 2
    assert table.all() == []


def test_the_local_cloud_has_another_key_after_each_start(tmp_path: Path) -> None:
    table = MemoryApiKeys()
    keys = ApiKeys(table, lambda: 1.0)
    assert read_local_key(tmp_path) == ""
    seen = []
    for _ in range(2):
        renew_local_key(tmp_path, keys, wanted=True)
        text = read_local_key(tmp_path)
        seen.append(read_key_text(text))
        assert stat.S_IMODE((tmp_path / "api-key").stat().st_mode) == 0o600
    first, second = seen
    assert first is not None and second is not None and first != second
    states = {key.key_id: key.state(2.0) for key in table.all()}
    assert states == {first[0]: "revoked", second[0]: "valid"}
    renew_local_key(tmp_path, keys, wanted=False)
    assert read_local_key(tmp_path) == ""
    assert {key.state(2.0) for key in table.all()} == {"revoked"}


def test_a_key_of_tables_that_are_gone_is_replaced(tmp_path: Path) -> None:
    renew_local_key(tmp_path, ApiKeys(MemoryApiKeys(), lambda: 1.0), wanted=True)
    before = read_local_key(tmp_path)
    table = MemoryApiKeys()
    renew_local_key(tmp_path, ApiKeys(table, lambda: 1.0), wanted=True)
    assert read_local_key(tmp_path) != before and len(table.all()) == 1


def test_up_makes_a_key_only_where_one_is_needed(
    table: MemoryApiKeys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        "local.commands.connection.connect",
        lambda folder: SimpleNamespace(stores=lambda: SimpleNamespace(api_keys=table)),
    )
    up._renew_key(tmp_path, needed=False)
    assert table.all() == []
    up._renew_key(tmp_path, needed=True)
    assert len(table.all()) == 1 and read_local_key(tmp_path)
    up._renew_key(tmp_path, needed=False)
    assert table.all()[0].revoked_at and not read_local_key(tmp_path)


def test_a_local_cloud_is_asked_with_its_own_key_and_a_deployed_one_with_the_callers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "api-key").write_text("lk_local\n")
    state: Any = SimpleNamespace(data_dir=str(tmp_path))
    here, elsewhere = (Connection("http://a", "http://b", item) for item in (state, None))

    def key_of(connection: Connection) -> str | None:
        with connection.open_api() as api:
            return api._headers.get("Authorization")

    monkeypatch.delenv("LOOKALIKE_API_KEY", raising=False)
    assert (key_of(here), key_of(elsewhere)) == ("Bearer lk_local", None)
    mine = key_text("0" * 12, "A" * 43)
    monkeypatch.setenv("LOOKALIKE_API_KEY", f"{mine}\n")
    assert (key_of(here), key_of(elsewhere)) == ("Bearer lk_local", f"Bearer {mine}")


@pytest.mark.parametrize("key", ["ключ", "lk_a_b", "lk_\n", key_text("0" * 12, "\n" + "A" * 42)])
def test_what_is_no_key_is_not_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOOKALIKE_API_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("LOOKALIKE_API_KEY", key)
    result = CliRunner().invoke(cli, ["search", "boot-7"])
    assert result.exit_code == 2 and "LOOKALIKE_API_KEY holds no API key" in result.output


@pytest.mark.parametrize(
    ("variable", "exit_code"),
    [
        ("LOOKALIKE_API_KEYS_TABLE", 0),
        ("LOOKALIKE_API_URL", 0),
        ("AWS_ENDPOINT_URL", 0),
        ("AWS_ACCESS_KEY_ID", 3),  # credentials of something else, perhaps
        ("LOOKALIKE_ENCODER", 3),
    ],
)
def test_the_first_key_needs_the_name_of_its_table(
    table: MemoryApiKeys, monkeypatch: pytest.MonkeyPatch, variable: str, exit_code: int
) -> None:
    for name in os.environ:
        if name.startswith(("LOOKALIKE_", "AWS_ENDPOINT_URL")):
            monkeypatch.delenv(name)
    monkeypatch.setenv(variable, "http://127.0.0.1:1")
    result = run("create", "--label", "first")
    assert result.exit_code == exit_code, result.output
    assert len(table.all()) == (exit_code == 0)
    assert exit_code == 0 or "LOOKALIKE_API_URL" in result.output


def test_a_callers_key_is_not_told_to_the_functions() -> None:
    chosen = up.chosen_settings(
        {
            "LOOKALIKE_API_KEY": "lk_secret",
            "LOOKALIKE_API_URL": "https://shop",
            "LOOKALIKE_PRECISION": "int8",
            "LOOKALIKE_PRODUCTS_TABLE": "other",
        }
    )
    assert chosen == {"LOOKALIKE_PRECISION": "int8"}


def test_a_key_that_is_used_up_is_told_at_once() -> None:
    problem = {"title": "Too many requests", "detail": "This API key is good for 5 a minute."}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(problem).encode()
            self.send_response(429)
            self.send_header("Retry-After", "40")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with (
            Api(f"http://127.0.0.1:{server.server_port}", "lk_a_b") as api,
            pytest.raises(Unreachable, match="good for 5 a minute"),
        ):
            api.get("/stats")
        thread.join(5)
