"""The layers: whole, trimmed, within Lambda's limit, and each function's imports are in its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from infra import layers
from infra.build import REPOSITORY, BuildError
from infra.layers import build_layers, import_everything, trim

Json = dict[str, Any]
PIN = re.compile(r"^([\w.-]+)==([\w.]+)$")
DEPLOYED_ON = {
    "python_version": "3.12",
    "python_full_version": "3.12.0",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "extra": "",
}
ON_RUNTIME_LAYER = ("scipy", "sklearn", "openTSNE", "nanoarrow", "joblib")
ON_ANALYTICS_LAYER = ("faiss", "onnxruntime", "PIL", "multipart")


def pins(name: str) -> dict[str, str]:
    lines = (
        (REPOSITORY / f"layers/{name}/requirements.txt").read_text(encoding="utf-8").splitlines()
    )
    found = [PIN.match(line) for line in lines if not line.startswith("#")]
    assert all(found), "each is pinned"
    return {canonicalize_name(match[1]): match[2] for match in found if match}


@pytest.mark.parametrize("name", ["runtime", "analytics"])
def test_requirements_are_the_whole_closure(name: str) -> None:
    known = pins(name)
    for package in known:
        for text in requires(package) or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate(DEPLOYED_ON):
                needs = canonicalize_name(needed.name)
                assert needs in known, f"{package} needs {needs}"
                assert needed.specifier.contains(known[needs]), f"{package} needs {text}"


def test_layers_agree_on_what_they_share() -> None:
    runtime, analytics = pins("runtime"), pins("analytics")
    shared = runtime.keys() & analytics.keys()
    assert {"numpy", "boto3", "msgspec", "aws-lambda-powertools"} <= shared
    assert {name: runtime[name] for name in shared} == {name: analytics[name] for name in shared}
    assert not {"faiss-cpu", "onnxruntime", "pillow"} & analytics.keys()


def file(path: Path, size: int = 10) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)


KEPT = (
    "numpy/__init__.py",
    "numpy/testing/__init__.py",
    "numpy-2.dist-info/licenses/LICENSE",
    "botocore/data/endpoints.json",
    "botocore/data/s3/2006-03-01/service-2.json.gz",
    "onnxruntime/capi/onnxruntime_pybind11_state.so",
)
GONE = (
    "bin/f2py",
    "numpy/_core/tests/test_a.py",
    "numpy/__init__.pyi",
    "numpy/tests/typing.pyi",
    "botocore/data/ec2/2016-11-15/service-2.json.gz",
    "onnxruntime/capi/libonnxruntime.so.1.32.0",
    "sklearn/datasets/images/china.jpg",
)


def test_what_no_function_reads_is_left_out(tmp_path: Path) -> None:
    for name in (*KEPT, *GONE):
        file(tmp_path / name)
    assert trim(tmp_path) == 10 * len(GONE)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(KEPT)
    assert trim(tmp_path) == 0


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A template with two functions, whose layers come from a pip of ours."""

    def layer(uri: str) -> Json:
        properties = {"ContentUri": uri, "CompatibleRuntimes": ["python3.12"]}
        return {"Type": layers.LAYER_TYPE, "Properties": properties}

    def function(*names: str) -> Json:
        refs = [{"Ref": name} for name in names]
        properties = {"Handler": "handlers.handle", "Layers": refs}
        return {"Type": layers.FUNCTION_TYPE, "Properties": properties}

    resources = {
        "Runtime": layer("layers/runtime"),
        "Common": layer("layers/common"),
        "Model": layer("layers/model"),
        "Small": function("Common"),
        "Large": function("Runtime", "Common", "Model"),
    }
    (tmp_path / "template.json").write_text(json.dumps({"Resources": resources}))
    with zipfile.ZipFile(tmp_path / "deployment.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("handlers.py", "import lookalike\ndef handle(): ...\n" + "#" * 1000)

    def install(requirements: Path, target: Path, python: str) -> None:
        assert requirements == REPOSITORY / "layers/runtime/requirements.txt" and python == "3.12"
        file(target / "library.py", 0)
        file(target / "tests/data.bin", 5_000)
        file(target / "library.dat", 1_000_000)

    monkeypatch.setattr(layers, "_install", install)
    return tmp_path


def test_layers_lie_where_the_template_says_and_sizes_add_up(built: Path, tmp_path: Path) -> None:
    file(tmp_path / "graphs/lite.onnx", 3_000)
    file(built / "layers/runtime/python/left.py")  # by the build before
    small, large = build_layers(built, tmp_path / "graphs")
    package = built / "layers/common/python/lookalike"
    assert (package / "settings.py").exists() and not list(package.rglob("__pycache__"))
    assert not [path for path in (built / "layers/common").rglob(".*")]
    assert (built / "layers/model/models/lite.onnx").stat().st_size == 3_000
    assert large.parts["Runtime"] == 1_000_000 and large.parts["Model"] == 3_000
    assert small.parts.keys() == {"code", "Common"} and small.parts["code"] > 1000  # unzipped
    assert large.total == sum(large.parts.values()) > 1_003_000 + small.parts["Common"]


def test_a_function_over_the_limit_is_refused_with_what_it_is_made_of(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, large = build_layers(built)
    monkeypatch.setattr(layers, "MAX_FUNCTION_BYTES", large.total)
    build_layers(built)
    monkeypatch.setattr(layers, "MAX_FUNCTION_BYTES", large.total - 1)
    with pytest.raises(BuildError, match=r"Large unzips to .* code .* Runtime 1\.0 MB, Common"):
        build_layers(built)


def test_what_is_missing_in_a_layer_is_found(built: Path) -> None:
    build_layers(built)
    import_everything(built)
    file(built / "layers/runtime/python/broken.py", 0)
    (built / "layers/runtime/python/broken.py").write_text("import no_such_module")
    with pytest.raises(BuildError, match=r"(?s)Large cannot be imported.*no_such_module"):
        import_everything(built)


def test_what_is_installed_here_is_no_part_of_a_layer(built: Path) -> None:
    build_layers(built)
    (built / "layers/runtime/python/broken.py").write_text("import numpy")
    with pytest.raises(BuildError, match="No module named 'numpy'"):
        import_everything(built)


@pytest.mark.parametrize(
    ("module", "absent"), [("app", ON_RUNTIME_LAYER), ("chalicelib.project", ON_ANALYTICS_LAYER)]
)
def test_handlers_import_nothing_that_their_layers_lack(
    module: str, absent: tuple[str, ...]
) -> None:
    code = (
        f"import sys; sys.path.insert(0, 'functions'); sys.modules |= dict.fromkeys({absent!r})\n"
        f"import {module}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert done.returncode == 0, done.stderr
