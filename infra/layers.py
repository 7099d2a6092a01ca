"""Builds the layers beside the template, trimmed, and refuses what is too large for Lambda.

Run ``python -m infra.layers OUT``; where ``OUT`` holds no template, it is built first.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.build import FUNCTION_TYPE, REPOSITORY, TEMPLATE_NAME, BuildError, build_template

Json = dict[str, Any]

LAYER_TYPE = "AWS::Serverless::LayerVersion"
MAX_FUNCTION_BYTES = 250_000_000
"""Unzipped code and layers of one function. Lambda's own limit is a little higher: 250 MiB."""
# What wheels for Amazon Linux 2023 (glibc 2.34) may be named for; pip takes each name by itself.
PLATFORMS = tuple(
    f"{name}_x86_64"
    for name in ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
)
AWS_SERVICES = frozenset({"dynamodb", "s3", "sqs"})
"""Services whose descriptions botocore keeps; the functions make clients of no other."""
TRIMMED = (
    "bin",
    "**/tests",
    "**/*.pyi",
    "**/*.pyx",
    "**/*.pxd",
    "numpy/_core/include",
    "onnxruntime/capi/libonnxruntime.so*",  # the Python module has all of it, too
    "onnxruntime/backend",
    "onnxruntime/datasets",
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "onnxruntime/transformers",
    "sklearn/datasets/data",
    "sklearn/datasets/descr",
    "sklearn/datasets/images",
)
"""What no function reads, as patterns below ``python/``. Licences and metadata stay."""
DEEPER = ("nanoarrow.ipc", "PIL.Image", "scipy.sparse.linalg", "sklearn.decomposition")
"""Modules that are imported to see that a layer is whole, beside the top ones."""


@dataclass(frozen=True, slots=True)
class FunctionSize:
    """Unzipped bytes of a function's code and of each of its layers, by name."""

    function: str
    parts: dict[str, int]

    @property
    def total(self) -> int:
        """Bytes that count against Lambda's limit."""
        return sum(self.parts.values())


def build_layers(out_dir: Path, models: Path | None = None, python: str = "") -> list[FunctionSize]:
    """Build every layer of ``out_dir``'s template below ``out_dir``, where the template says.

    Parameters
    ----------
    out_dir
        Holds what `infra.build.build_template` writes; that is called if it does not.
    models
        Folder of ONNX graphs with their manifests; without it the model layer stays empty.
    python
        For which Python, as ``3.12``; by default for the one that the template names.

    Raises
    ------
    BuildError
        A wheel cannot be had, or a function with its layers is larger than
        `MAX_FUNCTION_BYTES`; the message says by what.
    """
    path = out_dir / TEMPLATE_NAME
    if not path.exists():
        build_template(out_dir)
    resources: Json = json.loads(path.read_text(encoding="utf-8"))["Resources"]
    for resource in resources.values():
        if resource["Type"] == LAYER_TYPE:
            properties = resource["Properties"]
            (runtime,) = properties["CompatibleRuntimes"]
            target = out_dir / properties["ContentUri"]
            shutil.rmtree(target, ignore_errors=True)
            _build(target, models, python or runtime.removeprefix("python"))
    sizes = function_sizes(out_dir, resources)
    check_sizes(sizes)
    return sizes


def _build(target: Path, models: Path | None, python: str) -> None:
    source = REPOSITORY / "layers" / target.name
    requirements = source / "requirements.txt"
    if requirements.exists():
        _install(requirements, target / "python", python)
        trim(target / "python")
    elif source.exists():
        shutil.copytree(
            source, target, ignore=shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")
        )
    else:
        (target / "models").mkdir(parents=True)
        for file in sorted(models.iterdir()) if models else ():
            shutil.copy2(file, target / "models" / file.name)


def _install(requirements: Path, target: Path, python: str) -> None:
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--no-compile", "--only-binary", ":all:", "--python-version", python),
        *(word for name in PLATFORMS for word in ("--platform", name)),
        *("--target", str(target), "--requirement", str(requirements)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"pip cannot install {requirements}:\n{done.stdout}{done.stderr}")


def trim(python_dir: Path) -> int:
    """Delete what no function reads; gives the bytes."""
    before = size_bytes(python_dir)
    services = (python_dir / "botocore/data").glob("*/")
    unused = [folder for folder in services if folder.name not in AWS_SERVICES]
    for path in (*unused, *(found for pattern in TRIMMED for found in python_dir.glob(pattern))):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)  # in a folder that went before
    return before - size_bytes(python_dir)


def size_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def function_sizes(out_dir: Path, resources: Json) -> list[FunctionSize]:
    """What each function of a template unzips to, its code and its layers."""
    layers = {
        name: size_bytes(out_dir / resource["Properties"]["ContentUri"])
        for name, resource in resources.items()
        if resource["Type"] == LAYER_TYPE
    }
    with zipfile.ZipFile(out_dir / "deployment.zip") as archive:
        code = sum(item.file_size for item in archive.infolist())
    return [
        FunctionSize(
            name,
            {"code": code}
            | {
                layer["Ref"]: layers[layer["Ref"]]
                for layer in resource["Properties"].get("Layers", [])
            },
        )
        for name, resource in resources.items()
        if resource["Type"] == FUNCTION_TYPE
    ]


def check_sizes(sizes: Iterable[FunctionSize]) -> None:
    """Refuse functions that Lambda would refuse.

    Raises
    ------
    BuildError
        One is over `MAX_FUNCTION_BYTES`; the message names it and its parts.
    """
    for size in sizes:
        if size.total > MAX_FUNCTION_BYTES:
            raise BuildError(
                f"{size.function} unzips to {_megabytes(size.total)}, "
                f"more than {_megabytes(MAX_FUNCTION_BYTES)}: {_parts(size)}."
            )


def import_everything(out_dir: Path) -> None:
    """Import every handler, and all that its layers hold, with nothing else installed.

    Parameters
    ----------
    out_dir
        Layers that were built for the Python that runs this.

    Raises
    ------
    BuildError
        An import fails: a requirement is not pinned, or too much was trimmed.
    """
    resources: Json = json.loads((out_dir / TEMPLATE_NAME).read_text(encoding="utf-8"))["Resources"]
    with tempfile.TemporaryDirectory(prefix="lookalike-code-") as code:
        with zipfile.ZipFile(out_dir / "deployment.zip") as archive:
            archive.extractall(code)
        for name, resource in resources.items():
            if resource["Type"] == FUNCTION_TYPE:
                uris = (
                    resources[layer["Ref"]]["Properties"]["ContentUri"]
                    for layer in resource["Properties"]["Layers"]
                )
                folders = [out_dir / uri / "python" for uri in uris]
                handler, _, _ = resource["Properties"]["Handler"].rpartition(".")
                modules = [handler, *(found for folder in folders for found in _modules(folder))]
                _import(name, modules, [Path(code), *folders])


def _modules(folder: Path) -> list[str]:
    """The top modules of a layer, and those of `DEEPER` that belong to them."""
    if not folder.exists():
        return []
    top = sorted(
        path.stem
        for path in folder.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    )
    return top + [name for name in DEEPER if name.partition(".")[0] in top]


def _import(function: str, modules: list[str], path: list[Path]) -> None:
    statement = (
        f"import importlib, sys; sys.path[:0] = {[str(folder) for folder in path]!r}; "
        f"[importlib.import_module(name) for name in {modules!r}]"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", statement],
        env={"PATH": os.environ.get("PATH", "")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BuildError(f"{function} cannot be imported from its layers:\n{done.stderr}")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _parts(size: FunctionSize) -> str:
    return ", ".join(f"{name} {_megabytes(part)}" for name, part in size.parts.items())


def main() -> None:
    """Build the layers, print what each function unzips to, and see that they can be imported."""
    parser = argparse.ArgumentParser(description="Build the layers beside the template.")
    parser.add_argument("out", type=Path, help="folder that holds template.json and deployment.zip")
    parser.add_argument("--models", type=Path, help="folder of ONNX graphs for the model layer")
    options = parser.parse_args()
    for size in build_layers(options.out, options.models):
        print(f"{size.function}: {_megabytes(size.total)} ({_parts(size)})")
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        print("NOT IMPORTED: these layers are for Linux on x86_64.")
        return
    with tempfile.TemporaryDirectory(prefix="lookalike-layers-") as scratch:
        for name in (TEMPLATE_NAME, "deployment.zip"):
            shutil.copy2(options.out / name, scratch)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        build_layers(Path(scratch), python=version)
        import_everything(Path(scratch))
        print(f"Every function can be imported from its layers (built again for Python {version}).")


if __name__ == "__main__":
    main()
