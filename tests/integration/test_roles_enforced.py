"""`lookalike up --enforce-roles`: functions may do what their roles allow, and nothing else."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from infra.build import build_template
from local import cloud, control
from local.aws.durable_moto import Answer
from local.aws.role_check import RoleCheck, _form, wanted
from local.ports import free_port
from local.roles import Role, load_roles, read_roles, write_roles
from local.template import ACCOUNT_ID, REGION, Template
from lookalike.modelbuild import ensure_model

ENCODER = "efficientnet-lite0"  # the quickest
TABLE = f"arn:aws:dynamodb:{REGION}:{ACCOUNT_ID}:table/lookalike-"
QUEUE = f"arn:aws:sqs:{REGION}:{ACCOUNT_ID}:lookalike-ingest"
# One action of each role that its function cannot do without.
TAKEN = {
    "EmbedRole": ("dynamodb:PutItem", f"{TABLE}products"),
    "QueryRole": ("dynamodb:Query", f"{TABLE}generations"),
    "SweepRole": ("s3:ListBucket", "arn:aws:s3:::lookalike-index"),
    "CompactRole": ("dynamodb:Query", f"{TABLE}generations"),
    "ReindexRole": ("dynamodb:Query", f"{TABLE}generations"),
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="module")
def roles(template: Path) -> dict[str, Role]:
    return {role.name: role for role in read_roles(Template.load(template, "http://aws"))}


def signed_by(role: Role, service: str = "s3") -> dict[str, str]:
    scope = f"{role.access_key_id}/20260101/{REGION}/{service}/aws4_request"
    return {
        "HTTP_AUTHORIZATION": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=h, Signature=0",
        "HTTP_X_AMZ_SECURITY_TOKEN": role.session_token,
    }


def request(method: str, path: str, query: str = "", **environ: str) -> dict[str, Any]:
    path = path.encode().decode("latin-1")
    return {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query, **environ}


def call(target: str, **body: Any) -> tuple[dict[str, Any], bytes]:
    environ = request("POST", "/", HTTP_X_AMZ_TARGET=target)
    return environ, json.dumps(body).encode()


@pytest.mark.parametrize(
    ("environ", "body", "asked"),
    [
        (request("GET", "/b/shop/é x.jpg"), b"", [("s3:GetObject", "arn:aws:s3:::b/shop/é x.jpg")]),
        (request("HEAD", "/b/k"), b"", [("s3:GetObject", "arn:aws:s3:::b/k")]),
        (request("PUT", "/b/k", "tagging"), b"", [("s3:PutObjectTagging", "arn:aws:s3:::b/k")]),
        (request("DELETE", "/b/k"), b"", [("s3:DeleteObject", "arn:aws:s3:::b/k")]),
        (request("GET", "/b", "list-type=2"), b"", [("s3:ListBucket", "arn:aws:s3:::b")]),
        (
            request("PUT", "/b/k", HTTP_X_AMZ_COPY_SOURCE="/c/other%20k"),
            b"",
            [("s3:PutObject", "arn:aws:s3:::b/k"), ("s3:GetObject", "arn:aws:s3:::c/other k")],
        ),
        # Several keys in one body: no function does that, so no role is let do it.
        (request("POST", "/b", "delete"), b"", [("s3:unknown POST", "arn:aws:s3:::b")]),
        (
            *call("DynamoDB_20120810.BatchGetItem", RequestItems={"t": {}, "u": {}}),
            [
                ("dynamodb:BatchGetItem", f"arn:aws:dynamodb:{REGION}:{ACCOUNT_ID}:table/{name}")
                for name in "tu"
            ],
        ),
        (
            *call("AmazonSQS.SendMessageBatch", QueueUrl=f"http://aws/{ACCOUNT_ID}/q"),
            [("sqs:SendMessage", f"arn:aws:sqs:{REGION}:{ACCOUNT_ID}:q")],
        ),
        (*call("Logs_20140328.PutLogEvents"), [("unknown:Logs_20140328.PutLogEvents", "*")]),
    ],
)
def test_what_a_request_asks_for(
    environ: dict[str, Any], body: bytes, asked: list[tuple[str, str]]
) -> None:
    assert wanted(environ, body, {}) == asked


@pytest.mark.parametrize(
    ("method", "path", "query", "asked"),
    [
        ("POST", "/b", "", ("s3:PutObject", "arn:aws:s3:::b/uploads/1")),
        ("GET", "/b/k", "", ("s3:GetObject", "arn:aws:s3:::b/k")),
        ("DELETE", "/b/k", "", ("s3:DeleteObject", "arn:aws:s3:::b/k")),
        ("POST", "/b", "delete", ("s3:unknown POST", "arn:aws:s3:::b")),
    ],
)
def test_only_an_upload_is_judged_by_its_form(
    method: str, path: str, query: str, asked: tuple[str, str]
) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="key"\r\n\r\nuploads/1\r\n--x--\r\n'
    environ = request(method, path, query)
    environ["CONTENT_TYPE"] = "multipart/form-data; boundary=x"
    assert wanted(environ, body, _form(environ, body)) == [asked]


def granted(role: Role) -> list[tuple[str, str]]:
    """What a role allows, each pattern as one resource that it stands for."""
    found = []
    for document in role.policies:
        for statement in document["Statement"]:
            resources = statement["Resource"]
            for resource in resources if isinstance(resources, list) else [resources]:
                found += [
                    (action, resource.replace("*", "a/line\nand another?"))
                    for action in statement["Action"]
                ]
    return found


def without(role: Role, action: str) -> Role:
    policies = copy.deepcopy(role.policies)
    for document in policies:
        for statement in document["Statement"]:
            statement["Action"] = [item for item in statement["Action"] if item != action]
        document["Statement"] = [item for item in document["Statement"] if item["Action"]]
    values = {name: getattr(role, name) for name in Role.__struct_fields__}
    return Role(**values | {"policies": policies})


@pytest.mark.parametrize("name", TAKEN)
def test_each_action_of_a_role_is_needed_to_be_let_through(
    roles: dict[str, Role], name: str
) -> None:
    role = roles[name]
    check = RoleCheck([role])
    assert len(granted(role)) > 9
    for action, arn in granted(role):
        assert check.allows(role, action, arn)
        assert not check.allows(role, action, arn + "x") or "\n" in arn
        less = without(role, action)
        assert not RoleCheck([less]).allows(less, action, arn)
    for other in roles.values():
        for action, arn in set(granted(other)) - set(granted(role)):
            assert not check.allows(role, action, arn), (name, action, arn)


def test_a_request_is_judged_by_who_signed_it(
    roles: dict[str, Role], capsys: pytest.CaptureFixture[str]
) -> None:
    embed, sweep = roles["EmbedRole"], roles["SweepRole"]
    check = RoleCheck(list(roles.values()))
    put = ("PUT", "/lookalike-index/segments/s")
    assert check(request(*put, **signed_by(embed)), b"") is None
    refused = check(request(*put, **signed_by(sweep)), b"")
    assert isinstance(refused, Answer)
    assert (refused.status, b"AccessDenied" in refused.body) == (403, True)
    assert "SweepRole may not s3:PutObject on arn:aws:s3:::lookalike-index/segments/s" in (
        capsys.readouterr().out
    )
    environ, body = call("DynamoDB_20120810.Scan", TableName="lookalike-products")
    refused = check(environ | signed_by(embed, "dynamodb"), body)
    assert refused is not None
    assert json.loads(refused.body)["__type"].endswith("#AccessDeniedException")

    # A token of another session, no signature at all, the user of the machine, a preflight.
    stolen = signed_by(embed) | {"HTTP_X_AMZ_SECURITY_TOKEN": sweep.session_token}
    assert check(request(*put, **stolen), b"") is not None
    assert check(request(*put), b"") is not None
    anybody = {"HTTP_AUTHORIZATION": "AWS4-HMAC-SHA256 Credential=local/2026/r/s3/aws4_request"}
    assert check(request("DELETE", "/lookalike-index", **anybody), b"") is None
    assert check(request("OPTIONS", "/lookalike-index/uploads/u"), b"") is None


def test_a_presigned_request_is_its_signers(roles: dict[str, Role]) -> None:
    query, embed = roles["QueryRole"], roles["EmbedRole"]
    check = RoleCheck([query, embed])

    def opened(role: Role, method: str = "GET") -> Answer | None:
        scope = f"{role.access_key_id}/20260101/{REGION}/s3/aws4_request"
        fields = {"X-Amz-Credential": scope, "X-Amz-Security-Token": role.session_token}
        path = "/lookalike-index/explanations/e"
        return check(request(method, path, urlencode(fields)), b"")

    assert opened(query) is None
    assert opened(query, "DELETE") is not None
    assert opened(embed) is not None

    def posted(role: Role, key: str) -> Answer | None:
        scope = f"{role.access_key_id}/20260101/{REGION}/s3/aws4_request"
        fields = {"key": key, "x-amz-credential": scope, "x-amz-security-token": role.session_token}
        fields["policy"] = base64.b64encode(b"{}").decode()
        parts = [
            f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        ]
        environ = request(
            "POST", "/lookalike-index", CONTENT_TYPE="multipart/form-data; boundary=x"
        )
        return check(environ, ("".join(parts) + "--x--\r\n").encode())

    assert posted(query, "uploads/u") is None
    assert posted(query, "bases/b") is not None
    assert posted(embed, "uploads/u") is not None


def test_the_file_of_the_credentials_is_nobody_elses(
    roles: dict[str, Role], tmp_path: Path
) -> None:
    path = tmp_path / "roles.json"
    path.write_text("of an earlier start")
    path.chmod(0o644)
    write_roles(path, list(roles.values()))
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_roles(str(path)) == list(roles.values())
    assert load_roles("") == []


@pytest.fixture
def hobbled(template: Path, tmp_path: Path) -> Iterator[cloud.RunningCloud]:
    """The local cloud with roles that each lack an action."""
    document = json.loads(template.read_text(encoding="utf-8"))
    full = Template.load(template, "http://aws")
    for name, (action, arn) in TAKEN.items():
        (policy,) = document["Resources"][name]["Properties"]["Policies"]
        statements = policy["PolicyDocument"]["Statement"]
        for statement in statements:
            if action in statement["Action"] and arn in json.dumps(full.resolve(statement)):
                statement["Action"].remove(action)
        policy["PolicyDocument"]["Statement"] = [item for item in statements if item["Action"]]
    path = tmp_path / "template.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    ensure_model(ENCODER, "fp32", tmp_path / "models")
    options = cloud.Options(
        data_dir=tmp_path / "state",
        api_port=free_port(),
        aws_port=free_port(),
        workers=1,
        dashboard=False,
        enforce_roles=True,
        template=path,
        parameters={"Encoder": ENCODER, "RequireApiKey": "false"},
        environment={"LOOKALIKE_MODEL_DIR": str(tmp_path / "models")},
    )
    running = cloud.up(options, lambda _: None)
    yield running
    running.stop()


@pytest.mark.slow
def test_an_action_that_a_role_lacks_makes_its_function_fail(
    hobbled: cloud.RunningCloud, photo: Any, eventually: Any
) -> None:
    state = hobbled.state
    cloud.clients(state.aws_url)["s3"].put_object(
        Bucket="lookalike-images", Key="shop/a.jpg", Body=photo(1)
    )
    schedule = Path(__file__).parent.parent / "events/schedule.json"
    event = json.loads(schedule.read_text(encoding="utf-8"))
    for function in ("Sweep", "Compact", "Reindex"):
        assert control.invoke(state, function, event)["error"] == "Unhandled", function
    api = json.loads((schedule.parent / "api_product_escaped.json").read_text(encoding="utf-8"))
    api["requestContext"] |= {"resourcePath": "/stats", "httpMethod": "GET"}
    api |= {"multiValueQueryStringParameters": None, "pathParameters": None}
    answer = control.invoke(state, "APIHandler", api)["payload"]
    assert answer["statusCode"] == 503, answer

    def refused() -> set[tuple[str, str, str]]:
        lines = [line for line in control.log_tail(state, "moto") if line.startswith("refused")]
        said = [line.split(": ", 1)[1].split(" ") for line in lines]
        return {(words[0], words[3], words[5]) for words in said}

    eventually(lambda: len(refused()) >= len(TAKEN), 30)
    assert refused() == {(name, *taken) for name, taken in TAKEN.items()}
