"""THE template: what it declares, that AWS's own tools accept it, that no role may do too much."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cfnlint.api
import pytest
from samtranslator.parser.parser import Parser
from samtranslator.sdk.parameter import SamParameterValues
from samtranslator.translator.translator import Translator

from infra.alarms import ALARMS
from infra.build import REPOSITORY, BuildError, build_template, finish, merge
from lookalike.core.encoders import ENCODERS
from lookalike.settings import Settings

Json = dict[str, Any]
FUNCTIONS = {
    "Embed": "EmbedRole",
    "APIHandler": "QueryRole",
    "Sweep": "SweepRole",
    "Compact": "CompactRole",
    "Reindex": "ReindexRole",
    "Recluster": "ReclusterRole",
    "Project": "ProjectRole",
    "Health": "HealthRole",
    "Rollup": "RollupRole",
}
INTRINSICS = {"Ref", "Fn::GetAtt", "Fn::Sub", "Fn::Join"}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="module")
def template(path: Path) -> Json:
    loaded: Json = json.loads(path.read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def resources(template: Json) -> Json:
    found: Json = template["Resources"]
    return found


def walk(node: object) -> Iterator[Json]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from walk(value)


def sources() -> set[Path]:
    found = (REPOSITORY / "functions").rglob("*")
    return {item for item in found if "__pycache__" not in item.parts}


def test_cfn_lint_finds_nothing(path: Path) -> None:
    findings = cfnlint.api.lint_file(path)
    assert [str(finding) for finding in findings] == []


def test_sam_translates_it(template: Json, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    packaged = json.loads(json.dumps(template))
    for resource in packaged["Resources"].values():  # as `aws cloudformation package` would
        for name in {"CodeUri", "ContentUri"} & resource.get("Properties", {}).keys():
            resource["Properties"][name] = "s3://packages/key"
    parameters = SamParameterValues({})
    translated = Translator({}, Parser()).translate(packaged, parameters.parameter_values)
    kinds = [resource["Type"] for resource in translated["Resources"].values()]
    assert kinds.count("AWS::Lambda::Function") == 9
    assert kinds.count("AWS::Lambda::EventSourceMapping") == 1
    assert kinds.count("AWS::Lambda::LayerVersion") == 4
    assert kinds.count("AWS::Events::Rule") == 7
    assert kinds.count("AWS::IAM::Role") == 9


def test_building_leaves_nothing_in_the_checkout_and_is_repeatable(path: Path) -> None:
    before = sources()
    again = build_template(path.parent / "again")
    assert again.read_bytes() == path.read_bytes()
    assert sources() == before


def test_it_is_the_same_whatever_the_environment(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("LOOKALIKE_REFRESH_S", "nonsense")
    assert build_template(tmp_path).read_bytes() == path.read_bytes()


def test_only_simple_intrinsics_outside_alarms(resources: Json) -> None:
    for name, resource in resources.items():
        if resource["Type"] == "AWS::CloudWatch::Alarm":
            continue
        for node in walk(resource):
            used = {key for key in node if key == "Ref" or key.startswith("Fn::")}
            assert used <= INTRINSICS, name


def test_every_reference_leads_somewhere(template: Json) -> None:
    known = template["Resources"].keys() | template["Parameters"].keys()
    for node in walk(template["Resources"]):
        if "Ref" in node and not node["Ref"].startswith("AWS::"):
            assert node["Ref"] in known
        if "Fn::GetAtt" in node:
            assert node["Fn::GetAtt"][0] in template["Resources"]


def test_every_setting_in_the_environment_exists(resources: Json) -> None:
    fields = {f"LOOKALIKE_{name.upper()}" for name in Settings.__dataclass_fields__}
    for name in FUNCTIONS:
        given = set(resources[name]["Properties"]["Environment"]["Variables"])
        assert given <= fields
        assert {field for field in fields if field.endswith(("_TABLE", "_BUCKET", "_URL"))} <= given


def test_defaults_are_those_of_the_settings(template: Json) -> None:
    defaults = {name: item["Default"] for name, item in template["Parameters"].items()}
    settings = Settings()
    assert defaults["ImagesBucketName"] == settings.images_bucket
    assert defaults["IndexBucketName"] == settings.index_bucket
    assert defaults["Encoder"] == settings.encoder
    assert defaults["Precision"] == settings.precision
    assert defaults["Pooling"] == settings.pooling
    assert defaults["Clusters"] == settings.clusters
    assert defaults["MapMethod"] == settings.map_method
    assert set(template["Parameters"]["Encoder"]["AllowedValues"]) == set(ENCODERS)
    prefix = defaults["NamePrefix"]
    tables = [name for name in Settings.__dataclass_fields__ if name.endswith("_table")]
    assert len(tables) == 9
    for name in (table.removesuffix("_table") for table in tables):
        logical = f"{name.title().replace('_', '')}Table"
        table = template["Resources"][logical]["Properties"]["TableName"]
        named = table["Fn::Sub"].replace("${NamePrefix}", prefix)
        assert named == getattr(settings, f"{name}_table")


@pytest.mark.parametrize(
    ("table", "keys"),
    [
        ("ProductsTable", ["catalogue", "product_id"]),
        ("FailuresTable", ["catalogue", "key"]),
        ("RegistryTable", ["scope", "entry"]),
        ("GenerationsTable", ["kind", "catalogue"]),
        ("SearchesTable", ["bucket", "query_id"]),
        ("ApiKeysTable", ["kind", "id"]),
        ("ClustersTable", ["catalogue", "entry"]),
        ("FeedbackTable", ["bucket", "entry"]),
        ("RollupsTable", ["scope", "entry"]),
    ],
)
def test_tables(resources: Json, table: str, keys: list[str]) -> None:
    properties = resources[table]["Properties"]
    assert [item["AttributeName"] for item in properties["KeySchema"]] == keys
    assert [item["KeyType"] for item in properties["KeySchema"]] == ["HASH", "RANGE"]
    assert properties["BillingMode"] == "PAY_PER_REQUEST"
    assert properties["SSESpecification"]["SSEEnabled"] is True
    assert properties["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"] is True
    expires = {"SearchesTable", "FeedbackTable", "ApiKeysTable"}
    assert ("TimeToLiveSpecification" in properties) == (table in expires)


def test_a_deployment_asks_for_api_keys_by_itself(template: Json, resources: Json) -> None:
    assert template["Parameters"]["RequireApiKey"]["Default"] == "true"
    variables = resources["APIHandler"]["Properties"]["Environment"]["Variables"]
    assert variables["LOOKALIKE_REQUIRE_API_KEY"] == {"Ref": "RequireApiKey"}
    assert Settings.from_env({"LOOKALIKE_REQUIRE_API_KEY": "true"}).require_api_key


def test_what_cannot_be_derived_again_is_retained(resources: Json) -> None:
    kept = ("Searches", "ApiKeys", "Clusters", "Feedback", "Rollups")  # names that were given, too
    for name in ("ImagesBucket", *(f"{table}Table" for table in kept)):
        assert resources[name]["DeletionPolicy"] == "Retain"
        assert resources[name]["UpdateReplacePolicy"] == "Retain"


def test_ingest_from_bucket_to_function(resources: Json) -> None:
    queue = {"Fn::GetAtt": ["IngestQueue", "Arn"]}
    bucket = resources["ImagesBucket"]["Properties"]
    notified = bucket["NotificationConfiguration"]["QueueConfigurations"]
    assert {item["Event"] for item in notified} == {"s3:ObjectCreated:*", "s3:ObjectRemoved:*"}
    assert all(item["Queue"] == queue for item in notified)
    assert resources["ImagesBucket"]["DependsOn"] == "IngestQueuePolicy"

    ingest, embed = resources["IngestQueue"]["Properties"], resources["Embed"]["Properties"]
    assert ingest["VisibilityTimeout"] >= 6 * embed["Timeout"]
    receives = ingest["RedrivePolicy"]["maxReceiveCount"]
    assert embed["Environment"]["Variables"]["LOOKALIKE_MAX_RECEIVES"] == str(receives)

    (event,) = embed["Events"].values()
    assert event["Properties"]["Queue"] == queue
    assert event["Properties"]["BatchSize"] == 10
    assert event["Properties"]["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


def test_only_the_images_bucket_may_send(resources: Json) -> None:
    (statement,) = resources["IngestQueuePolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "s3.amazonaws.com"}
    assert statement["Action"] == "sqs:SendMessage"
    source = statement["Condition"]["ArnEquals"]["aws:SourceArn"]
    assert source == {"Fn::Sub": "arn:${AWS::Partition}:s3:::${ImagesBucketName}"}


def test_buckets_are_private_and_encrypted(resources: Json) -> None:
    for name in ("ImagesBucket", "IndexBucket"):
        properties = resources[name]["Properties"]
        assert all(properties["PublicAccessBlockConfiguration"].values())
        assert len(properties["PublicAccessBlockConfiguration"]) == 4
        assert "BucketEncryption" in properties
    rules = resources["IndexBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    expiring = {rule["Prefix"]: rule["ExpirationInDays"] for rule in rules if "Prefix" in rule}
    assert expiring == {"uploads/": 1, "queries/": 30, "explanations/": 30, "work/": 30}


def test_searches_are_kept_as_long_as_the_parameter_says(template: Json, resources: Json) -> None:
    parameter = template["Parameters"]["QueryRetentionSeconds"]
    assert parameter["Default"] == Settings().query_retention_s
    # The lifecycle rules, which catch what the sweep misses, must not come first.
    assert (parameter["MinValue"], parameter["MaxValue"]) == (0, 30 * 86_400)
    for function in ("APIHandler", "Sweep"):
        variables = resources[function]["Properties"]["Environment"]["Variables"]
        assert variables["LOOKALIKE_QUERY_RETENTION_S"] == {"Ref": "QueryRetentionSeconds"}


@pytest.mark.parametrize(("function", "role"), FUNCTIONS.items())
def test_every_function_has_a_role_of_its_own_that_names_actions_and_resources(
    resources: Json, function: str, role: str
) -> None:
    assert resources[function]["Properties"]["Role"] == {"Fn::GetAtt": [role, "Arn"]}
    properties = resources[role]["Properties"]
    assert "ManagedPolicyArns" not in properties
    (policy,) = properties["Policies"]
    for statement in policy["PolicyDocument"]["Statement"]:
        assert all("*" not in action for action in statement["Action"])
        named = statement["Resource"]
        for resource in named if isinstance(named, list) else [named]:
            text = json.dumps(resource)
            assert resource != "*"
            assert "Fn::GetAtt" in text or ".Arn}" in text, text
    assert resources[function]["Properties"]["LoggingConfig"]


def test_limits_of_the_functions(resources: Json) -> None:
    functions = {name: resources[name]["Properties"] for name in FUNCTIONS}
    limits = {name: (item["MemorySize"], item["Timeout"]) for name, item in functions.items()}
    assert limits == {
        "Embed": (1769, 60),
        "APIHandler": (1769, 29),
        "Sweep": (512, 300),
        "Compact": (3008, 900),
        "Reindex": (3008, 900),
        "Recluster": (3008, 900),
        "Project": (3008, 900),
        "Health": (3008, 900),
        "Rollup": (1769, 900),
    }
    scheduled = FUNCTIONS.keys() - {"Embed", "APIHandler"}
    for name in scheduled:
        # A run may take as long as fifteen scheduled ones: they neither overlap nor queue up.
        assert functions[name]["ReservedConcurrentExecutions"] == 1
        assert functions[name]["EventInvokeConfig"] == {
            "MaximumEventAgeInSeconds": 60,
            "MaximumRetryAttempts": 0,
        }
    for name in scheduled:
        period = "15 minutes" if name == "Sweep" else "1 minute"
        (event,) = resources[name]["Properties"]["Events"].values()
        assert event["Properties"]["Schedule"] == f"rate({period})"
        assert event["Properties"]["Name"] == {"Fn::Sub": f"${{NamePrefix}}-{name.lower()}"}
    assert "DefaultRole" not in resources


def test_the_project_function_has_its_own_layer_and_nobody_else(resources: Json) -> None:
    for name in FUNCTIONS:
        layers = [layer["Ref"] for layer in resources[name]["Properties"]["Layers"]]
        runtime = "AnalyticsLayer" if name == "Project" else "RuntimeLayer"
        has_models = name in {"Embed", "APIHandler", "Reindex"}
        assert layers == [runtime, "CommonLayer", *(["ModelLayer"] if has_models else [])]


def test_gateway_answers_with_problem_documents(resources: Json) -> None:
    definition = resources["RestAPI"]["Properties"]["DefinitionBody"]
    assert definition["x-amazon-apigateway-binary-media-types"] == ["*/*"]
    answers = definition["x-amazon-apigateway-gateway-responses"]
    # A route that is not there, asked without a key and with one.
    for name in ("MISSING_AUTHENTICATION_TOKEN", "INVALID_SIGNATURE", "RESOURCE_NOT_FOUND"):
        assert answers[name]["statusCode"] == 404
    assert answers["REQUEST_TOO_LARGE"]["statusCode"] == 413
    for answer in answers.values():
        problem = json.loads(answer["responseTemplates"]["application/json"])
        assert problem["status"] == answer["statusCode"]
        assert problem["type"].startswith("urn:lookalike:problem:")
        assert problem["title"] and problem["detail"]
        content_type = answer["responseParameters"]["gatewayresponse.header.Content-Type"]
        assert content_type == "'application/problem+json'"


def test_every_path_reaches_the_function_with_any_method(resources: Json) -> None:
    for path, methods in resources["RestAPI"]["Properties"]["DefinitionBody"]["paths"].items():
        integration = methods["x-amazon-apigateway-any-method"]["x-amazon-apigateway-integration"]
        assert integration["type"] == "aws_proxy", path
        preflight = methods["options"]["x-amazon-apigateway-integration"]
        assert preflight["type"] == "mock", path
        # With every type binary, it would fail to read its own template, and to answer.
        assert preflight["contentHandling"] == "CONVERT_TO_TEXT", path
        answer = preflight["responses"]["default"]
        assert answer["contentHandling"] == "CONVERT_TO_TEXT", path
        exposed = "method.response.header.Access-Control-Expose-Headers"
        assert answer["responseParameters"][exposed] == "'Retry-After,X-Cache'"
        allowed = "method.response.header.Access-Control-Allow-Methods"
        assert not {"DELETE", "PATCH"} & set(answer["responseParameters"][allowed][1:-1].split(","))


def test_alarms_tell_whom_the_parameter_names(resources: Json) -> None:
    alarms = {name: item for name, item in resources.items() if "CloudWatch" in item["Type"]}
    assert alarms.keys() == ALARMS.keys()
    for name, item in alarms.items():
        properties = item["Properties"]
        assert properties["AlarmName"] == {"Fn::Sub": f"${{NamePrefix}}-{name}"}
        # One slow search among three is no "one in twenty".
        few = properties.get("EvaluateLowSampleCountPercentile")
        assert few == ("ignore" if "ExtendedStatistic" in properties else None)
        topic = {"Fn::If": ["HasAlarmTopic", [{"Ref": "AlarmTopicArn"}], {"Ref": "AWS::NoValue"}]}
        assert properties["AlarmActions"] == topic
        assert properties["Period"] * properties["EvaluationPeriods"] <= 86_400


def test_merging_goes_deep_into_objects_and_replaces_the_rest() -> None:
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    assert merge(base, {"a": {"c": [3]}, "d": {"e": 1}}) == {"a": {"b": 1, "c": [3]}, "d": {"e": 1}}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 1}


def test_the_zip_holds_only_the_functions(path: Path) -> None:
    with zipfile.ZipFile(path.parent / "deployment.zip") as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"app.py", "chalice", "chalicelib"}


def test_a_function_without_a_role_is_refused(template: Json) -> None:
    broken = json.loads(json.dumps(template))
    broken["Resources"]["Embed"]["Properties"]["Role"] = {"Fn::GetAtt": ["DefaultRole", "Arn"]}
    with pytest.raises(BuildError, match="no role of its own"):
        finish(broken)
