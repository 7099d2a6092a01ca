"""Starts and stops the local cloud from the template. Prints nothing; reports by a callback."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, build_opener

import msgspec

from local import control
from local.aws.journal import Journal, JournalError
from local.host import HostConfig
from local.ports import check_free, free_port
from local.provision import provision
from local.roles import FILE_NAME, read_roles, write_roles
from local.serving import LOOPBACK
from local.state import FolderLock, State, remove_state, write_state
from local.supervisor import Child, Supervisor
from local.template import REGION, Template

Progress = Callable[[str], None]

START_TIMEOUT_S = 120.0
JOURNAL_NAME = "aws.db"
ANYBODY = "local"
"""Access key and secret of whoever is no function; the AWS endpoint takes any."""
_POLL_S = 0.03
_MAX_FAILURES = 4
_KEPT_VARIABLES = (
    *("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH"),
    *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "XDG_CACHE_HOME", "SSL_CERT_FILE"),
)


class StartError(Exception):
    """The local cloud could not start; the message says what failed and which log tells more."""


@dataclass(frozen=True, slots=True)
class Options:
    """What ``lookalike up`` chooses.

    ``environment`` is added to every function's and to the dashboard's, over the template's own
    values (such as ``LOOKALIKE_MODEL_DIR``). ``template`` and ``functions_dir`` are built from and
    found in the checkout when they are not given. With ``enforce_roles`` each function may do what
    its role in the template allows, and nothing else.
    """

    data_dir: Path = Path(".lookalike")
    api_port: int = 8000
    aws_port: int = 5000
    dashboard_port: int = 5006
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    dashboard: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    template: Path | None = None
    functions_dir: Path | None = None
    enforce_roles: bool = False


class RunningCloud:
    """A local cloud that answers.

    Parameters
    ----------
    state
        Where it is.
    close
        Stops it.
    """

    def __init__(self, state: State, close: Callable[[], None]) -> None:
        self.state = state
        self._close = close
        self._stopped = threading.Event()

    def wait(self) -> None:
        """Return at SIGINT or SIGTERM, or when ``stop`` was called. Only in the main thread."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        previous = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            self._stopped.wait()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        """Stop every process; more than once is fine."""
        self._stopped.set()
        self._close()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stopped.set()


def up(options: Options, on_progress: Progress) -> RunningCloud:
    """Start the local cloud and return when all of it answers.

    Parameters
    ----------
    options
        Ports, folder, workers.
    on_progress
        Called with a short sentence at every step.

    Raises
    ------
    AlreadyRunning
        Another local cloud uses the folder.
    PortInUse
        A port is taken; the message names its option.
    StartError
        A process does not come up, or the folder or the journal in it cannot be used.
    """
    data_dir = options.data_dir.resolve()
    try:
        lock = FolderLock(data_dir)
        lock.acquire()
    except OSError as error:
        raise StartError(f"The folder {data_dir} cannot be used: {error.strerror}.") from error
    try:
        _check_journal(data_dir / JOURNAL_NAME)
        check_free(options.aws_port, "--aws-port")
        check_free(options.api_port, "--api-port")
        if options.dashboard:
            check_free(options.dashboard_port, "--dashboard-port")
        return _Start(options, data_dir, lock, on_progress).run()
    except BaseException:
        lock.release()
        raise


def _check_journal(path: Path) -> None:
    """Say here what is wrong with it; in the process moto it would be one line of a log."""
    try:
        if path.exists():
            Journal(path).close()
    except JournalError as error:
        raise StartError(str(error)) from error


class _Start:
    """One start of the local cloud, and what it takes to undo it."""

    def __init__(
        self, options: Options, data_dir: Path, lock: FolderLock, on_progress: Progress
    ) -> None:
        self._options = options
        self._data_dir = data_dir
        self._lock = lock
        self._report = on_progress
        self._logs = data_dir / "logs"
        self._roles = data_dir / FILE_NAME
        self._supervisor = Supervisor(self._logs, self._write_state)
        self._state: State | None = None
        self._template: Template | None = None
        self._closed = threading.Lock()

    def run(self) -> RunningCloud:
        options = self._options
        api_url = f"http://{LOOPBACK}:{options.api_port}"
        aws_url = f"http://{LOOPBACK}:{options.aws_port}"
        control_port = free_port()
        try:
            path = self._start_endpoint(aws_url)
            self._template = Template.load(path, aws_url, options.parameters)
            self._wait("moto", aws_url)
            self._report("Creating buckets, queues and tables")
            self._provision()
            config = self._write_config(path, aws_url, control_port)
            self._state = State(
                data_dir=str(self._data_dir),
                api_url=api_url,
                aws_url=aws_url,
                control_url=f"http://{LOOPBACK}:{control_port}",
                dashboard_url=self._start_dashboard(api_url, aws_url),
                started_at=datetime.now(UTC).isoformat(timespec="seconds"),
                pids={},
            )
            # Before the API answers, so that whoever it answers finds it.
            self._write_state()
            self._start("host", "local.host", str(config))
            self._report("Starting the functions")
            self._wait("host", api_url)
            self._wait_until_ready(self._state)
            self._wait_for_dashboard(self._state)
            self._write_state()
        except BaseException:
            self._close()
            raise
        return RunningCloud(self._current_state(), self._close)

    def _start_endpoint(self, aws_url: str) -> Path:
        """Start what plays AWS while the template is built; roles it must know before."""
        options = self._options
        journal = str(self._data_dir / JOURNAL_NAME)
        command = ["local.aws.moto_server", "--port", str(options.aws_port), "--journal", journal]
        if options.enforce_roles:
            path = options.template or self._build()
            roles = read_roles(Template.load(path, aws_url, options.parameters))
            write_roles(self._roles, roles)
            command += ["--roles", str(self._roles)]
        self._report("Starting the AWS endpoint")
        self._start("moto", *command)
        return path if options.enforce_roles else options.template or self._build()

    def _build(self) -> Path:
        # Imported here: building needs Chalice, reading a template does not.
        from infra.build import build_template

        self._report("Building the template")
        return build_template(self._data_dir / "template")

    def _start(self, name: str, *module: str) -> None:
        on_restart = self._provision_again if name == "moto" else None
        environment = function_environment(self._options, self._aws_url())
        self._supervisor.start(
            Child(name, module, environment, self._data_dir, on_restart=on_restart)
        )

    def _start_dashboard(self, api_url: str, aws_url: str) -> str | None:
        if not self._options.dashboard:
            return None
        port = self._options.dashboard_port
        environment = {
            **function_environment(self._options, aws_url),
            "LOOKALIKE_API_URL": api_url,
            "LOOKALIKE_DATA_DIR": str(self._data_dir),
        }
        module = ("dashboard", "--port", str(port))
        self._supervisor.start(Child("dashboard", module, environment, self._data_dir))
        return f"http://{LOOPBACK}:{port}"

    def _wait_for_dashboard(self, state: State) -> None:
        """Search works without the dashboard, so its failure is told and not fatal."""
        if state.dashboard_url is None:
            return
        self._report("Starting the dashboard")
        try:
            self._wait("dashboard", state.dashboard_url)
        except StartError as error:
            self._report(str(error))
            self._state = msgspec.structs.replace(state, dashboard_url=None)

    def _aws_url(self) -> str:
        return f"http://{LOOPBACK}:{self._options.aws_port}"

    def _provision(self) -> None:
        if self._template is not None:
            provision(self._template, clients(self._aws_url()))

    def _provision_again(self) -> None:
        """After a crash of the AWS endpoint, beside the supervisor's own thread."""

        def provision_when_up() -> None:
            from botocore.exceptions import BotoCoreError, ClientError  # with boto3, later

            try:
                self._wait("moto", self._aws_url())
                self._provision()
            except (StartError, BotoCoreError, ClientError) as error:
                self._report(f"After a restart of the AWS endpoint: {error}")

        threading.Thread(target=provision_when_up, name="provision", daemon=True).start()

    def _write_config(self, template: Path, aws_url: str, control_port: int) -> Path:
        options = self._options
        config = HostConfig(
            template=str(template),
            parameters=dict(options.parameters),
            task_root=str(options.functions_dir or _functions_dir()),
            logs=str(self._logs),
            aws_url=aws_url,
            api_port=options.api_port,
            control_port=control_port,
            workers=options.workers,
            environment=function_environment(options, aws_url),
            roles=str(self._roles) if options.enforce_roles else "",
        )
        path = self._data_dir / "host.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(config)) + b"\n")
        return path

    def _wait(self, name: str, url: str) -> None:
        """Return when anything answers at ``url``."""
        opener = build_opener(ProxyHandler({}))

        def answers() -> bool:
            try:
                opener.open(url, timeout=5).close()
            except HTTPError:
                return True
            except (URLError, OSError):
                return False
            return True

        self._wait_for(name, answers)

    def _wait_until_ready(self, state: State) -> None:
        def ready() -> bool:
            try:
                return bool(control.status(state)["ready"])
            except control.ControlError:
                return False

        self._wait_for("host", ready)

    def _wait_for(self, name: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not condition():
            if self._supervisor.failures(name) >= _MAX_FAILURES:
                raise StartError(f"The process {name} does not start; see {self._logs}/{name}.log.")
            if time.monotonic() > deadline:
                raise StartError(
                    f"The process {name} did not answer within {START_TIMEOUT_S:.0f} s; "
                    f"see the files in {self._logs}."
                )
            time.sleep(_POLL_S)

    def _current_state(self) -> State:
        if self._state is None:
            raise StartError("The local cloud has not started.")
        pids = {"supervisor": os.getpid(), **self._supervisor.pids}
        return msgspec.structs.replace(self._state, pids=pids)

    def _write_state(self) -> None:
        if self._state is not None:
            write_state(self._data_dir, self._current_state())

    def _close(self) -> None:
        with self._closed:
            self._supervisor.stop()
            remove_state(self._data_dir)
            self._lock.release()


def function_environment(options: Options, aws_url: str) -> dict[str, str]:
    """Variables of every process: little of the caller's, the local endpoint, and the options'."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return {
        **kept,
        "PYTHONUNBUFFERED": "1",
        # One virtual CPU, as a function of 1,769 MB has.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "AWS_ENDPOINT_URL": aws_url,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": ANYBODY,
        "AWS_SECRET_ACCESS_KEY": ANYBODY,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": LOOPBACK,
        **options.environment,
    }


def clients(aws_url: str) -> dict[str, Any]:
    """boto3 clients of the local endpoint, for provisioning."""
    import boto3  # a quarter of a second that waits until moto is starting

    session = boto3.Session(ANYBODY, ANYBODY, region_name=REGION)
    return {name: session.client(name, endpoint_url=aws_url) for name in ("s3", "sqs", "dynamodb")}


def _functions_dir() -> Path:
    return Path(__file__).resolve().parent.parent / "functions"
