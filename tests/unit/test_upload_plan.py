from __future__ import annotations

from pathlib import Path

import pytest

from local.commands.upload_metadata import MetadataRows
from local.commands.upload_plan import plan_upload
from lookalike.core.errors import InvalidRequest


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name in (
        "mug.jpg",
        "boot-7/front.JPG",
        "boot-7/side.png",
        "boot-7/product.json",
        "chairs/oak/front.webp",
        "notes.txt",
        "product.json",
        "boot-7/.hidden.jpg",
        ".git/x.jpg",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (folder / "product.json").unlink()
    return folder


def keys(*paths: Path, catalogue: str = "shop", rows: MetadataRows | None = None) -> dict[str, str]:
    return {file.key: Path(file.path).name for file in plan_upload(paths, catalogue, rows).files}


def csv_rows(path: Path, text: str) -> MetadataRows:
    path.write_text(text, encoding="utf-8")
    return MetadataRows(path)


def test_folders_are_products_and_files_are_views(photos: Path) -> None:
    plan = plan_upload([photos], "shop")
    assert [file.key for file in plan.files] == [
        "shop/mug.jpg",
        "shop/boot-7/front.JPG",
        "shop/boot-7/product.json",
        "shop/boot-7/side.png",
        "shop/chairs-oak/front.webp",
    ]
    assert plan.skipped == 2  # the text file, the hidden one; .git is not entered


def test_a_file_that_is_given_is_a_product_of_its_own(photos: Path) -> None:
    assert keys(photos / "boot-7" / "front.JPG") == {"shop/front.JPG": "front.JPG"}


def test_a_given_folder_with_a_document_is_one_product(photos: Path) -> None:
    assert set(keys(photos / "boot-7")) == {
        "shop/boot-7/front.JPG",
        "shop/boot-7/product.json",
        "shop/boot-7/side.png",
    }


def test_a_file_given_twice_is_uploaded_once(photos: Path) -> None:
    assert keys(photos / "mug.jpg", photos / ".." / "photos" / "mug.jpg") == {
        "shop/mug.jpg": "mug.jpg"
    }


def test_two_files_with_one_key_are_refused_before_anything_is_sent(
    photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mug.jpg").write_bytes(b"another")
    with pytest.raises(InvalidRequest, match=r"would both be uploaded as shop/mug\.jpg"):
        plan_upload([photos, tmp_path / "other"], "shop")


def test_a_row_decides_the_product(photos: Path, tmp_path: Path) -> None:
    rows = csv_rows(
        photos / "all.csv",
        "file,product_id,title\n"
        "mug.jpg,mug,Mug\n"
        "boot-7/front.JPG,B7,Boot\n"
        "chairs/oak/front.webp,chairs-oak,Chair\n",
    )
    found = plan_upload([photos], "shop", rows)
    assert {file.key: file.metadata for file in found.files} == {
        "shop/mug.jpg": {"title": "Mug"},
        "shop/B7/front.JPG": {"title": "Boot"},
        "shop/boot-7/product.json": None,
        "shop/boot-7/side.png": None,
        "shop/chairs-oak/front.webp": {"title": "Chair"},
    }


def test_rows_are_found_by_bare_name_and_by_product(photos: Path, tmp_path: Path) -> None:
    by_name = csv_rows(tmp_path / "names.csv", "file,price\nfront.webp,120\n")
    plan = plan_upload([photos], "shop", by_name)
    assert {f.key: f.metadata for f in plan.files if f.metadata} == {
        "shop/chairs-oak/front.webp": {"price": "120"}
    }
    by_product = csv_rows(tmp_path / "products.csv", "product_id,brand\nboot-7,Acme\nmug,Clay\n")
    plan = plan_upload([photos], "shop", by_product)
    assert {f.key: f.metadata for f in plan.files if f.metadata} == {
        "shop/mug.jpg": {"brand": "Clay"},
        "shop/boot-7/front.JPG": {"brand": "Acme"},
        "shop/boot-7/side.png": {"brand": "Acme"},
    }


def test_a_dataset_whose_product_ids_are_its_file_names(tmp_path: Path) -> None:
    (tmp_path / "catalogue").mkdir()
    (tmp_path / "catalogue" / "dress-1.jpg").write_bytes(b"x")
    rows = csv_rows(
        tmp_path / "manifest.csv",
        "file,split,product_id,category\ncatalogue/dress-1.jpg,catalogue,dress-1,dress\n",
    )
    for given in (tmp_path, tmp_path / "catalogue"):
        (planned,) = plan_upload([given], "clothing", rows).files
        assert planned.key == "clothing/dress-1.jpg"
        assert planned.metadata == {"split": "catalogue", "category": "dress"}


def test_a_name_that_no_product_can_have_is_refused_by_itself(tmp_path: Path) -> None:
    (tmp_path / "a\tb.jpg").write_bytes(b"x")
    (tmp_path / "fine.jpg").write_bytes(b"x")
    plan = plan_upload([tmp_path], "shop")
    assert [file.key for file in plan.files] == ["shop/fine.jpg"]
    assert [(item.key, item.reason) for item in plan.refused] == [("shop/a\tb.jpg", "bad-key")]


@pytest.mark.parametrize("name", ["", "a/b", "..", "x\ny", "/"])
def test_names_that_no_catalogue_can_have(name: str, photos: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot name a catalogue"):
        plan_upload([photos], name)


def test_images_without_a_row_are_counted(photos: Path, tmp_path: Path) -> None:
    rows = csv_rows(tmp_path / "rows.csv", "file,title\nmug.jpg,Mug\n")
    assert plan_upload([photos], "shop", rows).undescribed == 3  # not the document
    assert plan_upload([photos], "shop").undescribed == 0
