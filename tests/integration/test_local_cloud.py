"""The local cloud on a small project of its own: real processes, real HTTP, free ports."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from local import cloud, control
from local.ports import PortInUse, free_port
from local.provision import provision
from local.sqs import SqsClient
from local.state import AlreadyRunning, State, find_running
from local.template import Template, TemplateError

PROJECT = Path(__file__).parent / "local_project"
DEADLINE_S = 30.0


def wait_until(condition: Callable[[], Any]) -> Any:
    """The first true value of ``condition``, asked for up to the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, "the deadline has passed"
        time.sleep(0.02)
    return value


def options(folder: Path, **changed: Any) -> cloud.Options:
    (folder / "seen").mkdir(exist_ok=True)
    values: dict[str, Any] = {
        "data_dir": folder / "state",
        "api_port": free_port(),
        "aws_port": free_port(),
        "workers": 2,
        "dashboard": False,
        "template": PROJECT / "template.json",
        "functions_dir": PROJECT / "functions",
        "parameters": {"Seen": str(folder / "seen")},
    }
    return cloud.Options(**{**values, **changed})


class Running:
    """A local cloud, and what tests ask of it."""

    def __init__(self, folder: Path) -> None:
        self.options = options(folder)
        self.seen = folder / "seen"
        self.steps: list[str] = []
        self.cloud = cloud.up(self.options, self.steps.append)
        self.state: State = self.cloud.state
        self.aws = cloud.clients(self.state.aws_url)

    def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.options.api_port, timeout=40)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def deliveries(self, text: str) -> list[Any]:
        records = [json.loads(path.read_text()) for path in self.seen.glob("*.json")]
        return [item for item in records if text in item["body"]]

    def log(self, name: str) -> str:
        return "\n".join(control.log_tail(self.state, name))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    started = Running(tmp_path_factory.mktemp("cloud"))
    yield started
    started.cloud.stop()


def test_it_is_found_while_it_runs(running: Running) -> None:
    assert find_running(running.options.data_dir) == running.state
    assert set(running.state.pids) == {"supervisor", "moto", "host"}
    assert running.steps[0] == "Starting the AWS endpoint"


def test_a_second_one_on_the_folder_is_refused(running: Running) -> None:
    with pytest.raises(AlreadyRunning, match="--data-dir"):
        cloud.up(running.options, print)


def test_a_port_in_use_names_its_option(running: Running, tmp_path: Path) -> None:
    taken = options(tmp_path, api_port=running.options.api_port)
    with pytest.raises(PortInUse, match="--api-port"):
        cloud.up(taken, print)
    taken = options(tmp_path, aws_port=running.options.aws_port)
    with pytest.raises(PortInUse, match="--aws-port"):
        cloud.up(taken, print)


def test_what_the_template_declares_exists(running: Running) -> None:
    s3, sqs, dynamodb = (running.aws[name] for name in ("s3", "sqs", "dynamodb"))
    queues = s3.get_bucket_notification_configuration(Bucket="small-photos")["QueueConfigurations"]
    assert [item["Events"] for item in queues] == [["s3:ObjectCreated:*"], ["s3:ObjectRemoved:*"]]
    assert s3.get_bucket_cors(Bucket="small-photos")["CORSRules"][0]["MaxAgeSeconds"] == 60
    url = sqs.get_queue_url(QueueName="small-inbox")["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert attributes["VisibilityTimeout"] == "60"
    assert json.loads(attributes["RedrivePolicy"])["maxReceiveCount"] == 2
    lifetime = dynamodb.describe_time_to_live(TableName="small-things")["TimeToLiveDescription"]
    assert lifetime == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}


def test_provisioning_again_changes_nothing(running: Running) -> None:
    running.aws["s3"].put_object(Bucket="small-photos", Key="kept", Body=b"1")
    wait_until(lambda: running.deliveries('"kept"'))
    tests = len(running.deliveries("s3:TestEvent"))
    template = Template.load(
        PROJECT / "template.json", running.state.aws_url, running.options.parameters
    )
    provision(template, running.aws)
    running.aws["s3"].put_object(Bucket="small-photos", Key="later", Body=b"1")
    wait_until(lambda: running.deliveries('"later"'))
    assert running.aws["s3"].get_object(Bucket="small-photos", Key="kept")["Body"].read() == b"1"
    assert len(running.deliveries("s3:TestEvent")) == tests


@pytest.mark.parametrize(
    ("resource", "named"),
    [
        ({"Type": "AWS::SNS::Topic"}, "AWS::SNS::Topic"),
        (
            {"Type": "AWS::S3::Bucket", "Properties": {"WebsiteConfiguration": {}}},
            r"Odd\.WebsiteConfiguration",
        ),
        (
            {
                "Type": "AWS::S3::Bucket",
                "Properties": {"CorsConfiguration": {"CorsRules": [{"Nope": 1}]}},
            },
            r"Odd\.CorsConfiguration\.CorsRules\[0\]\.Nope",
        ),
        ({"Type": "AWS::SQS::Queue", "Properties": {"FifoQueue": True}}, r"Odd\.FifoQueue"),
    ],
)
def test_what_is_not_understood_is_refused(
    running: Running, resource: dict[str, Any], named: str
) -> None:
    template = Template({"Resources": {"Odd": resource}}, {}, running.state.aws_url)
    with pytest.raises(TemplateError, match=named):
        provision(template, running.aws)


def test_invoke_gives_the_function_what_lambda_gives(running: Running) -> None:
    answer = control.invoke(running.state, "Trivial", {"a": [1, "é"]})
    payload = answer["payload"]
    assert answer["error"] is None
    assert payload["event"] == {"a": [1, "é"]}
    assert payload["request_id"] == answer["request_id"]
    assert 9_000 < payload["remaining_ms"] <= 10_000
    assert (payload["memory_mb"], payload["name"]) == ("256", "small-trivial")
    assert payload["setting"] == "small-things/arn:aws:s3:::small-photos"
    again = control.invoke(running.state, "Trivial", None)["payload"]
    assert again["pid"] == payload["pid"]  # warm


def test_an_unknown_function_is_named(running: Running) -> None:
    with pytest.raises(control.ControlError, match=r"'Nope'.*Trivial"):
        control.invoke(running.state, "Nope", {})


def test_a_function_that_cannot_start_says_why(running: Running) -> None:
    answer = control.invoke(running.state, "Broken", {})
    assert answer["error"] == "Unhandled"
    assert answer["payload"]["errorType"] == "Runtime.ImportModuleError"


def test_control_refuses_web_pages(running: Running) -> None:
    connection = http.client.HTTPConnection(running.state.control_url.removeprefix("http://"))
    connection.request("POST", "/_local/functions/Trivial/invocations", "{}")
    assert connection.getresponse().status == 403
    connection.close()


def test_status_tells_functions_queues_and_schedules(running: Running) -> None:
    status = control.status(running.state)
    assert status["functions"]["Consume"]["max_workers"] == 2
    assert set(status["queues"]["small-inbox"]) == {"visible", "in_flight"}
    assert status["schedules"]["Nightly"]["next_run"].endswith("T03:00:00+00:00")


def test_requests_reach_the_function_whole(running: Running) -> None:
    status, headers, body = running.request(
        "GET", "/echo/a%2Fb%20c?x=1&x=2&y=%26", Cookie="one", X_Own="two"
    )
    event = json.loads(body)
    assert status == 200
    assert event["pathParameters"] == {"name": "a%2Fb%20c"}
    assert event["multiValueQueryStringParameters"] == {"x": ["1", "2"], "y": ["&"]}
    assert event["headers"]["X-Own"] == "two"
    assert event["requestContext"]["requestId"] == headers["x-amzn-requestid"]


def test_binary_bodies_pass_both_ways(running: Running) -> None:
    body = bytes(range(256)) * 40
    sent = {"Content_Type": "image/png", "Accept": "image/png"}
    status, headers, answer = running.request("POST", "/binary", body, **sent)
    assert (status, headers["content-type"], answer) == (200, "image/png", body)
    _, _, text = running.request("POST", "/binary", body, Content_Type="image/png")
    assert text.isascii()  # nobody asked for the binary form


def test_limits_of_request_bodies(running: Running) -> None:
    as_binary = {"Content_Type": "application/octet-stream"}
    fits = b"x" * 4_500_000
    status, _, digest = running.request("POST", "/digest", fits, **as_binary)
    assert (status, digest.decode()) == (200, hashlib.sha256(fits).hexdigest())
    for size in (5_000_000, 10_485_761):  # Lambda's limit (in base64), API Gateway's limit
        status, headers, problem = running.request("POST", "/digest", b"x" * size, **as_binary)
        assert (status, headers["content-type"]) == (413, "application/problem+json")
        assert json.loads(problem)["detail"] == "Request Too Long"


def test_an_unannounced_body_is_limited_too(running: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", running.options.api_port)
    chunks = (b"x" * 1_000_000 for _ in range(11))
    try:
        connection.request("POST", "/digest", chunks, encode_chunked=True)
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pytest.fail("the connection was cut before the answer")
    finally:
        connection.close()


@pytest.mark.parametrize(
    "line",
    [
        b"GET /echo/\xff\xfe?x=\xff&y=%FF HTTP/1.1",
        b"GET /echo/%FF%00 HTTP/1.1",
        b"GET /echo/a?%ZZ=&;=& HTTP/1.1",
        b"GET //echo///a HTTP/1.1",
        b"GET /../../etc/passwd HTTP/1.1",
        b"BREW /echo/a HTTP/1.1",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1",
        b"nonsense",
    ],
)
def test_hostile_requests_cost_no_more_than_a_4xx(running: Running, line: bytes) -> None:
    with socket.create_connection(("127.0.0.1", running.options.api_port), timeout=10) as raw:
        raw.sendall(line + b"\r\nHost: \xff\r\nX-Odd: \xfe\r\nConnection: close\r\n\r\n")
        status = int(raw.makefile("rb").readline().split()[1])
    assert status == 200 or 400 <= status < 500
    assert running.request("GET", "/echo/next")[0] == 200


def test_paths_and_methods_that_do_not_exist(running: Running) -> None:
    for method, path in (("GET", "/nothing"), ("DELETE", "/digest")):
        status, headers, problem = running.request(method, path)
        assert (status, headers["content-type"]) == (404, "application/problem+json")
        assert json.loads(problem)["instance"] == headers["x-amzn-requestid"]


def test_preflights_are_answered_without_the_function(running: Running) -> None:
    status, headers, _ = running.request("OPTIONS", "/binary")
    assert (status, headers["access-control-allow-origin"]) == (200, "*")


@pytest.mark.parametrize("path", ["/raise", "/nonsense", "/large"])
def test_failures_and_malformed_answers_are_502(running: Running, path: str) -> None:
    assert running.request("GET", path)[0] == 502


def test_a_crash_fails_its_request_and_the_next_one_works(running: Running) -> None:
    assert running.request("GET", "/crash")[0] == 502
    assert running.request("GET", "/echo/after")[0] == 200
    assert "Runtime exited with error: exit status 7" in running.log("Api")


def test_a_function_is_killed_at_its_timeout(running: Running) -> None:
    start = time.monotonic()
    assert running.request("GET", "/sleep")[0] == 502
    assert 1.9 < time.monotonic() - start < 10
    assert "Task timed out after 2.00 seconds" in running.log("Api")
    assert running.request("GET", "/echo/after")[0] == 200


@pytest.mark.skipif(sys.platform != "linux", reason="memory is watched through /proc")
def test_a_function_is_killed_at_its_memory(running: Running) -> None:
    assert running.request("GET", "/grow")[0] == 502
    assert "Runtime.OutOfMemory" in running.log("Api")


def test_requests_share_the_processes_there_are(running: Running) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda n: running.request("GET", f"/echo/{n}"), range(40)))
    names = [json.loads(body)["pathParameters"]["name"] for _, _, body in answers]
    assert names == [str(n) for n in range(40)]
    assert len(control.status(running.state)["functions"]["Api"]["pids"]) <= 2


def test_an_upload_reaches_the_function(running: Running) -> None:
    running.aws["s3"].put_object(Bucket="small-photos", Key="c/p 1/front.jpg", Body=b"1")
    record = wait_until(lambda: running.deliveries("c/p+1/front.jpg"))[0]
    assert record["eventSource"] == "aws:sqs"
    assert record["eventSourceARN"].endswith(":small-inbox")
    assert record["attributes"]["ApproximateReceiveCount"] == "1"
    event = json.loads(record["body"])["Records"][0]
    assert (event["eventName"], len(event["s3"]["object"]["sequencer"])) == (
        "ObjectCreated:Put",
        16,
    )


def messages(running: Running, *bodies: str) -> None:
    url = running.aws["sqs"].get_queue_url(QueueName="small-inbox")["QueueUrl"]
    running.aws["sqs"].send_message_batch(
        QueueUrl=url,
        Entries=[{"Id": str(i), "MessageBody": body} for i, body in enumerate(bodies)],
    )


def test_what_failed_comes_again_and_ends_in_the_dead_letter_queue(running: Running) -> None:
    messages(running, "fine-1", "fail-1", "fine-2")
    sqs = running.aws["sqs"]
    dead = sqs.get_queue_url(QueueName="small-dead")["QueueUrl"]
    received = wait_until(
        lambda: sqs.receive_message(QueueUrl=dead, WaitTimeSeconds=1).get("Messages")
    )
    assert [item["Body"] for item in received] == ["fail-1"]
    assert len(running.deliveries("fail-1")) == 2
    assert len(running.deliveries("fine-")) == 2


def test_a_crash_brings_the_whole_batch_again(running: Running) -> None:
    messages(running, "crash-1", "beside-1")
    wait_until(lambda: len(running.deliveries("crash-1")) == 2)
    queue = wait_until(
        lambda: [
            counts
            for counts in [control.status(running.state)["queues"]["small-inbox"]]
            if counts == {"visible": 0, "in_flight": 0}
        ]
    )
    assert queue


def test_what_a_crashed_consumer_held_is_released(running: Running) -> None:
    async def release() -> None:
        async with aiohttp.ClientSession() as session:
            await SqsClient(session, running.state.aws_url, "held").release()

    sqs = running.aws["sqs"]
    url = sqs.create_queue(QueueName="held", Attributes={"VisibilityTimeout": "600"})["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="x")
    assert "Messages" in sqs.receive_message(QueueUrl=url)
    assert "Messages" not in sqs.receive_message(QueueUrl=url)
    asyncio.run(release())
    again = sqs.receive_message(QueueUrl=url, AttributeNames=["ApproximateReceiveCount"])
    assert again["Messages"][0]["Attributes"]["ApproximateReceiveCount"] == "2"


def test_a_long_poll_answers_at_arrival_and_empty_at_its_end(running: Running) -> None:
    sqs = running.aws["sqs"]
    url = sqs.create_queue(QueueName="polled")["QueueUrl"]
    start = time.monotonic()
    assert "Messages" not in sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1)
    assert time.monotonic() - start >= 1
    threading.Timer(0.3, lambda: sqs.send_message(QueueUrl=url, MessageBody="x")).start()
    start = time.monotonic()
    assert sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20)["Messages"][0]["Body"] == "x"
    assert time.monotonic() - start < 5


def test_conditional_writes_have_one_winner(running: Running) -> None:
    dynamodb = running.aws["dynamodb"]

    def try_to_win(_: int) -> bool:
        try:
            dynamodb.put_item(
                TableName="small-things",
                Item={"k": {"S": "race"}},
                ConditionExpression="attribute_not_exists(k)",
            )
        except dynamodb.exceptions.ConditionalCheckFailedException:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(try_to_win, range(64))) == 1


def test_metadata_and_keys_survive_as_they_were_sent(running: Running) -> None:
    s3, key = running.aws["s3"], "a b/é%2F😀//x+y.jpg"
    sent = {"price_eur": "3", "a-b": "4"}
    s3.put_object(
        Bucket="small-photos", Key=key, Body=b"\x1f\x8b0", Metadata=sent, ContentEncoding="gzip"
    )
    found = s3.get_object(Bucket="small-photos", Key=key)
    assert (found["Metadata"], found["Body"].read()) == (sent, b"\x1f\x8b0")
    assert s3.head_object(Bucket="small-photos", Key=key)["ContentLength"] == 3
    keys = [
        item["Key"] for item in s3.list_objects_v2(Bucket="small-photos", Prefix="a b")["Contents"]
    ]
    assert keys == [key]


def test_crashed_processes_are_restarted_and_work_again(tmp_path: Path) -> None:
    started = Running(tmp_path)
    try:
        for name in ("host", "moto"):
            before = find_running(started.options.data_dir)
            assert before is not None
            os.kill(before.pids[name], signal.SIGKILL)

            def works(name: str = name, before: State = before) -> bool:
                now = find_running(started.options.data_dir)
                if now is None or now.pids.get(name) in (None, before.pids[name]):
                    return False
                try:
                    # The notification is the last thing that is provisioned.
                    notified = started.aws["s3"].get_bucket_notification_configuration(
                        Bucket="small-photos"
                    )
                    answer = control.invoke(now, "Trivial", {})
                except (BotoCoreError, ClientError, control.ControlError):
                    return False
                return "QueueConfigurations" in notified and answer["error"] is None

            wait_until(works)
        started.aws["s3"].put_object(Bucket="small-photos", Key="after-crash", Body=b"1")
        wait_until(lambda: started.deliveries("after-crash"))
    finally:
        started.cloud.stop()
    assert find_running(started.options.data_dir) is None


UP = """
import sys
from pathlib import Path
from local import cloud
folder, project = Path(sys.argv[1]), Path(sys.argv[2])
options = cloud.Options(
    data_dir=folder / "state", api_port=int(sys.argv[3]), aws_port=int(sys.argv[4]), workers=1,
    dashboard=False, template=project / "template.json", functions_dir=project / "functions",
    parameters={"Seen": str(folder)},
)
running = cloud.up(options, lambda step: None)
print("up", flush=True)
running.wait()
running.stop()
print("stopped", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_it(tmp_path: Path, number: signal.Signals) -> None:
    ports = (str(free_port()), str(free_port()))
    command = [sys.executable, "-c", UP, str(tmp_path), str(PROJECT), *ports]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        state = find_running(tmp_path / "state")
        assert state is not None
        functions = control.status(state)["functions"].values()
        pids = [*state.pids.values(), *(pid for item in functions for pid in item["pids"])]
        process.send_signal(number)
        process.wait(DEADLINE_S)
        assert process.stdout.read() == ("" if number == signal.SIGKILL else "stopped\n")
    wait_until(lambda: not any(alive(pid) for pid in pids))
    assert find_running(tmp_path / "state") is None


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
