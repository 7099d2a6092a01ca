"""Builds THE template: what Chalice packages, merged with ``*.json`` here, made explicit.

The same file is deployed to AWS and read by the local cloud. Run ``python -m infra.build OUT``.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from infra.alarms import alarm_resources
from infra.gateway import finish_api

Json = dict[str, Any]

REPOSITORY = Path(__file__).resolve().parent.parent
RESOURCES = Path(__file__).resolve().parent / "resources.json"
SCHEDULED_WORK = RESOURCES.with_name("scheduled_work.json")
TEMPLATE_NAME = "template.json"
PACKAGED = ("app.py", "requirements.txt", "chalicelib", ".chalice/config.json")
FUNCTION_TYPE = "AWS::Serverless::Function"


class BuildError(Exception):
    """The template could not be built; the message says what Chalice said."""


def build_template(out_dir: Path) -> Path:
    """Write ``template.json`` and the functions' ``deployment.zip`` into ``out_dir``.

    Parameters
    ----------
    out_dir
        Made when it is not there. Layers are expected beside the template, in ``layers/``, when it
        is deployed; nothing in it is needed to read the template.

    Returns
    -------
    Path
        The template, replaced in one step so that a reader never sees half of it.

    Raises
    ------
    BuildError
        Chalice refused the functions.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lookalike-build-") as scratch:
        packaged = _chalice_package(Path(scratch))
        packaged_only = json.loads((packaged / "sam.json").read_text(encoding="utf-8"))
        template = merge(packaged_only, read_resources())
        _replace(packaged / "deployment.zip", out_dir / "deployment.zip")
        finished = packaged / TEMPLATE_NAME
        finished.write_text(json.dumps(finish(template), indent=2) + "\n", encoding="utf-8")
        return _replace(finished, out_dir / TEMPLATE_NAME)


def read_resources() -> Json:
    """What `RESOURCES` and `SCHEDULED_WORK` say, as one JSON object."""
    base, work = (
        json.loads(path.read_text(encoding="utf-8")) for path in (RESOURCES, SCHEDULED_WORK)
    )
    return merge(base, work)


def merge(base: Json, override: Json) -> Json:
    """Merge two JSON objects: objects deeply, everything else by replacement."""
    merged = dict(base)
    for key, value in override.items():
        known = merged.get(key)
        if isinstance(known, dict) and isinstance(value, dict):
            merged[key] = merge(known, value)
        else:
            merged[key] = value
    return merged


def finish(template: Json) -> Json:
    """Make the merged template explicit and whole: no globals, no shared role, the alarms."""
    finished = copy.deepcopy(template)
    resources = finished["Resources"]
    resources.pop("DefaultRole", None)
    shared = finished.pop("Globals", {}).get("Function", {})
    for name, resource in resources.items():
        if resource["Type"] == FUNCTION_TYPE:
            resource["Properties"] = _finish_function(name, resource["Properties"], shared)
    resources["RestAPI"]["Properties"] = finish_api(resources["RestAPI"]["Properties"])
    resources |= alarm_resources()
    return finished


def _finish_function(name: str, properties: Json, shared: Json) -> Json:
    if properties["Role"] == {"Fn::GetAtt": ["DefaultRole", "Arn"]}:
        raise BuildError(f"infra/ gives the function {name} no role of its own.")
    # ``shared`` names the tested interpreter; Chalice would name the one that happens to build.
    finished = merge(properties, shared)
    own = properties.get("Environment", {})
    finished["Environment"] = merge(shared.get("Environment", {}), own)
    del finished["Tags"]  # Chalice's own bookkeeping, which names a stage that is not deployed
    for event in finished.get("Events", {}).values():
        if event["Type"] == "Schedule":
            event["Properties"]["Name"] = properties["FunctionName"]
        elif event["Type"] == "SQS":
            # Chalice can only name a queue; a reference makes CloudFormation create it first.
            event["Properties"]["Queue"] = {"Fn::GetAtt": ["IngestQueue", "Arn"]}
    return finished


def _chalice_package(scratch: Path) -> Path:
    """Run ``chalice package`` on a copy, so that its caches never land in the checkout."""
    project, packaged = scratch / "functions", scratch / "packaged"
    for name in PACKAGED:
        source, target = REPOSITORY / "functions" / name, project / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    command = [
        *(sys.executable, "-c", "import sys; from chalice.cli import main; sys.exit(main())"),
        *("--project-dir", str(project), "package", "--stage", "production"),
        *("--pkg-format", "cloudformation", "--template-format", "json", str(packaged)),
    ]
    done = subprocess.run(
        command, env=_environment(), cwd=scratch, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BuildError(f"chalice package failed:\n{done.stdout}{done.stderr}")
    return packaged


def _environment() -> dict[str, str]:
    """The environment of this process without what could change the template."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LOOKALIKE_", "AWS_"))}
    kept["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    # Chalice asks for a region although the template is the same in all of them.
    return kept | {"AWS_DEFAULT_REGION": "us-east-1", "PYTHONDONTWRITEBYTECODE": "1"}


def _replace(source: Path, target: Path) -> Path:
    """Move a file over another in one step, from whatever file system it was made on."""
    staged = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(source, staged)
    return staged.replace(target)


def main() -> None:
    """Build the template into the folder named on the command line."""
    parser = argparse.ArgumentParser(description="Build the CloudFormation (SAM) template.")
    parser.add_argument("out", type=Path, help="folder for template.json and deployment.zip")
    print(build_template(parser.parse_args().out))


if __name__ == "__main__":
    main()
