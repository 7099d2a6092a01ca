"""The sample catalogue: what it promises to hold, and that it is drawn the same each time."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.sample import SampleProduct, products, query_photos, render
from data.sample.catalogue import write_catalogue, write_product
from data.sample.material import Material, plain
from data.sample.mesh import assemble, box, sphere
from data.sample.photo import SIDE
from data.sample.raster import look, rasterise, visibility

# Average RGB of the four quarters of a photo (left to right, top to bottom), in grey levels.
GOLDEN = {
    ("mug-01", "front"): [[156, 165, 175], [177, 179, 181], [152, 161, 170], [171, 172, 173]],
    ("armchair-02", "side"): [[180, 176, 173], [172, 156, 144], [158, 156, 155], [133, 135, 137]],
    ("watch-01", "front"): [[176, 188, 163], [174, 189, 165], [170, 183, 157], [167, 177, 151]],
    ("bottle-06", "front"): [[242, 239, 233], [235, 232, 227], [235, 235, 231], [223, 222, 219]],
    ("plant-02", "side"): [[191, 194, 182], [197, 199, 188], [175, 164, 155], [208, 196, 187]],
}
GOLDEN_TOLERANCE = 4.0


def product(product_id: str) -> SampleProduct:
    return next(p for p in products() if p.product_id == product_id)


def quarters(image: Image.Image) -> np.ndarray:
    half = SIDE // 2
    blocks = np.asarray(image, np.float64).reshape(2, half, 2, half, 3)
    return blocks.mean(axis=(1, 3)).reshape(4, 3)


def test_there_is_enough_to_search():
    found = products()
    kinds = Counter(p.category for p in found)
    assert len(kinds) >= 12
    assert len(found) >= 120
    assert min(kinds.values()) >= 5
    assert {len(p.views) for p in found} == {2, 3}


def test_ids_and_titles_are_unique_and_prices_positive():
    found = products()
    assert len({p.product_id for p in found}) == len(found)
    assert len({p.title for p in found}) == len(found)
    assert all(p.price > 0 and p.colour and p.material for p in found)


@pytest.mark.parametrize(("product_id", "view"), sorted(GOLDEN))
def test_photo_matches_its_golden_averages(product_id, view):
    image = render(product(product_id), view)
    assert image.mode == "RGB"
    assert image.size == (SIDE, SIDE)
    np.testing.assert_allclose(
        quarters(image), GOLDEN[product_id, view], atol=GOLDEN_TOLERANCE, rtol=0
    )


def test_the_same_photo_twice_is_the_same_pixels_and_another_seed_is_not():
    mug = product("mug-02")
    again = next(p for p in products(seed=1) if p.product_id == "mug-02")
    first = np.asarray(render(mug, "front"), np.int16)
    assert np.array_equal(first, np.asarray(render(mug, "front"), np.int16))
    assert np.abs(first - np.asarray(render(again, "front"), np.int16)).mean() > 1


def test_views_differ_and_look_like_photos():
    chair = product("chair-02")
    views = [np.asarray(render(chair, view), np.float64) for view in chair.views]
    assert len(views) == len(chair.views)
    for pixels in views:
        # Neither blank nor blown out, with the product darker or brighter than its surroundings.
        assert 20 < pixels.mean() < 245
        assert pixels[150:450, 150:450].std() > 12
    assert np.abs(views[0] - views[1]).mean() > 5


def test_an_unknown_view_is_refused_with_the_ones_there_are():
    with pytest.raises(ValueError, match=r"mug-01 has no view 'back'; it has front, side"):
        render(product("mug-01"), "back")


def test_query_photos_are_not_in_the_catalogue():
    photos = query_photos()
    assert len(photos) >= 12
    assert len({photo.category for photo in photos}) == len(photos)
    first = photos[0]
    catalogue = render(product(first.product_id), "front")
    difference = np.asarray(first.image, np.float64) - np.asarray(catalogue, np.float64)
    assert np.abs(difference).mean() > 5


def test_a_product_is_written_as_the_bucket_wants_it(tmp_path: Path):
    lamp = product("lamp-01")
    paths = write_product(lamp, tmp_path)
    assert [p.relative_to(tmp_path).as_posix() for p in paths] == [
        f"lamp-01/{view}.jpg" for view in lamp.views
    ]
    for path in paths:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            assert image.format == "JPEG"
            assert image.size == (SIDE, SIDE)
    document = json.loads((tmp_path / "lamp-01" / "product.json").read_text("utf-8"))
    assert document == {
        "title": lamp.title,
        "category": "lamp",
        "price": lamp.price,
        "colour": "navy",
        "material": "ceramic",
    }


@pytest.mark.slow
def test_the_whole_catalogue_is_written_by_two_processes_as_by_one(tmp_path: Path):
    seen: list[tuple[int, int]] = []
    paths = write_catalogue(tmp_path, on_progress=lambda *n: seen.append(n), workers=2)
    expected = [f"{p.product_id}/{view}.jpg" for p in products() for view in p.views]
    assert [p.relative_to(tmp_path).as_posix() for p in paths] == expected
    assert seen[-1] == (len(expected), len(expected))
    alone = write_product(product("ball-02"), tmp_path / "alone")
    for path in alone:
        assert path.read_bytes() == (tmp_path / "ball-02" / path.name).read_bytes()


def test_a_camera_sees_the_whole_product_in_the_share_it_was_asked_for():
    mesh = assemble([sphere(0.5, Material(plain("#808080")))])
    camera = look(mesh.points, 30, 20, fill=0.6)
    place, depth = camera.project(mesh.points)
    assert (depth > 0).all()
    extent = place.max(axis=1) - place.min(axis=1)
    np.testing.assert_allclose(extent.max(), 0.6, atol=0.005)
    np.testing.assert_allclose((place.max(axis=1) + place.min(axis=1)) / 2, 0.5, atol=0.005)


def test_a_rasterised_sphere_covers_its_disc_and_shows_its_near_side():
    mesh = assemble([sphere(0.5, Material(plain("#808080")), count=128)])
    camera = look(mesh.points, 0, 0, fill=0.8)
    place, depth = camera.project(mesh.points)
    found = rasterise(place, depth, mesh.faces, mesh.two_sided, 400)
    assert len(np.unique(found.pixel)) == len(found.pixel)
    np.testing.assert_allclose(len(found.pixel), np.pi * (0.4 * 400) ** 2, rtol=0.01)
    # The nearest point of a unit sphere is one radius nearer than its centre.
    centre = float(np.linalg.norm(camera.eye - np.array([0, 0, 1])))
    np.testing.assert_allclose(found.depth.min(), centre - 1, atol=0.01)


def test_fragments_carry_perspective_correct_weights():
    # One triangle whose corners lie at depths 1, 2 and 4: along its first edge the image's midpoint
    # is at 1/3 of the edge (1/w is linear in the image: w = 4/3).
    place = np.array([[0.1, 0.9, 0.1], [0.1, 0.1, 0.9]])
    depth = np.array([1.0, 2.0, 4.0])
    faces = np.array([[0, 1, 2]])
    found = rasterise(place, depth, faces, np.array([True]), 1000)
    middle = np.argmin(np.abs(found.pixel - (100 * 1000 + 500)))
    np.testing.assert_allclose(found.depth[middle], 4 / 3, rtol=0.01)
    np.testing.assert_allclose(found.second[middle], 1 / 3, atol=0.01)


def test_of_two_surfaces_the_nearer_is_drawn():
    place = np.array([[0.1, 0.9, 0.1, 0.1, 0.9, 0.1], [0.1, 0.1, 0.9, 0.1, 0.1, 0.9]])
    depth = np.array([3.0, 3.0, 3.0, 2.0, 2.0, 2.0])
    faces = np.array([[0, 1, 2], [3, 4, 5]])
    found = rasterise(place, depth, faces, np.array([True, True]), 100)
    assert len(found.pixel) > 1000
    assert set(found.triangle.tolist()) == {1}


def test_a_roof_hides_the_sky_below_it_and_not_beside_it():
    spread = np.linspace(-0.5, 0.5, 40)
    x, y = np.meshgrid(spread, spread)
    roof = np.stack([x.ravel(), y.ravel(), np.ones(x.size)], -1).astype(np.float32)
    points = np.array([[0, 0, 0], [2, 0, 0]], np.float32)
    up = np.array([[0, 0, 1]], np.float32)
    np.testing.assert_array_equal(visibility(points, roof, up), [0, 1])


def test_a_box_has_outward_unit_normals_and_its_size():
    parts = box((1.0, 2.0, 3.0), Material(plain("#808080")), bevel=0.1)
    points = np.concatenate([part.points.reshape(-1, 3) for part in parts])
    normals = np.concatenate([part.normals.reshape(-1, 3) for part in parts])
    np.testing.assert_allclose(points.max(axis=0) - points.min(axis=0), [1, 2, 3], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    assert (np.sum(points * normals, axis=1) > 0).all()
