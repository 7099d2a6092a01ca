from __future__ import annotations

import json

from lookalike.core import cluster_names
from lookalike.core.cluster_names import WordCounts, named, words_of


def counted(*clusters: list[str]) -> WordCounts:
    """Each cluster as the titles of its products."""
    counts = WordCounts(len(clusters))
    for number, titles in enumerate(clusters):
        for title in titles:
            counts.add(number, words_of({"title": title}))
    return counts


def test_words_are_those_of_texts_that_say_what_it_is():
    words = words_of(
        {
            "title": "The Red-Hot BOOT, size 42 for you",
            "tags": ("Winter", "gefüttert"),
            "sku": "abc",
            "image_url": "x",
            "brand_id": "zz",
            "link": "y",
            "page": "https://shop.example/boots",
            "price": 12.5,
            "in_stock": True,
        }
    )
    assert words == {"red-hot", "boot", "size", "winter", "gefüttert"}
    assert len(words_of({"title": " ".join("ab" + chr(97 + n % 26) * n for n in range(99))})) <= 40


def test_names_are_of_words_that_tell_clusters_apart():
    counts = counted(
        ["nice leather boot"] * 9 + ["nice rubber boot"],
        ["nice wool hat"] * 5 + ["nice straw hat"] * 5,
        [""] * 10,
    )
    (boots, boot_words), (hats, hat_words), (nothing, no_words) = named(counts)
    assert boots == "boot, leather" and hats.startswith("hat, ")
    assert "nice" not in boot_words + hat_words and "rubber" in boot_words
    assert (nothing, no_words) == ("", ())


def test_two_clusters_of_one_kind_have_two_names():
    counts = counted(["dress"] * 10 + ["red dress"], ["dress"] * 10 + ["blue dress"], ["hat"] * 9)
    names = [name for name, _ in named(counts)]
    assert names[0] == "dress" and names[1] == "dress, blue" and names[2] == "hat"


def test_a_large_cluster_is_named_no_worse_than_a_small_one():
    counts = counted(["oak table"] * 500, ["oak chair"] * 5, ["pine chair"] * 5, ["lamp"] * 5)
    names = [name.split(", ")[0] for name, _ in named(counts)]
    assert names == ["table", "oak", "pine", "lamp"] or names[0] == "table"
    assert named(counts)[1][0] != named(counts)[2][0]


def test_the_only_cluster_has_a_name():
    assert named(counted(["green boot", "brown boot"]))[0][0].startswith("boot")
    assert named(WordCounts(0)) == []


def test_counts_survive_being_written():
    counts = counted(["a boot", "two boots"], ["hat"])
    again = WordCounts.from_json(json.loads(json.dumps(counts.as_json())))
    assert named(again) == named(counts) and again.products == [2, 1]
    again.add(1, {"hat"})
    assert again.words[1]["hat"] == 2


def test_words_are_bounded(monkeypatch):
    monkeypatch.setattr(cluster_names, "MAX_COUNTED", 100)
    counts = WordCounts(2)
    for number in range(2000):
        counts.add(number % 2, {f"rare{chr(97 + number % 26)}{number}", "usual"})
    assert sum(map(len, counts.words)) <= 100
    assert counts.words[0]["usual"] == 1000 and counts.products == [1000, 1000]
