"""Words that say what is in a cluster: distinctive ones of its members' metadata (c-TF-IDF).

Owns which words a product has and how a name is put together; names that people give are kept
elsewhere. c-TF-IDF: Grootendorst, "BERTopic: Neural topic modeling with a class-based TF-IDF
procedure", 2022, section 3.3.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from lookalike.core.types import Attributes

MAX_WORDS = 5
"""Words of a cluster."""
MAX_COUNTED = 200_000
"""Different words of all clusters that are counted at once; then those that were seen once go."""

_NAME_WORDS = 3
_NAME_SHARE = 0.1  # of a cluster's products that have a word which is in its name
_STRONG = 0.5  # of the best word's weight, for a further one in the name
_LIFT = 1.5  # times a word's mean share over clusters
_WORDS_A_PRODUCT = 40
_WORD = re.compile(r"[^\W\d_]{2,}(?:[-'’][^\W\d_]+)*")
_TEXT_LENGTH = 400  # characters of an attribute that are looked at
# Attributes that say where something is or who it is, not what.
_OPAQUE = re.compile(r"(^|[_\- ])(id|ids|url|uri|link|sku|ean|gtin|upc|hash|key|path|file|date)s?$")
_STOP_WORDS = frozenset(
    {
        *("a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "has", "in", "is", "it"),
        *("its", "of", "on", "or", "our", "that", "the", "this", "to", "was", "with", "you"),
        *("your", "all", "new", "no", "not", "der", "die", "das", "den", "dem", "des", "ein"),
        *("eine", "einer", "eines", "und", "oder", "mit", "ohne", "für", "von", "zu", "im", "am"),
        *("aus", "auf", "bei", "ist", "le", "la", "les", "un", "une", "du", "de", "et", "ou"),
        *("avec", "sans", "pour", "par", "en", "au", "aux", "dans", "el", "los", "las", "una"),
        *("con", "sin", "para", "por", "del", "al", "il", "lo", "gli", "uno", "per", "di", "da"),
        *("http", "https", "www", "com", "true", "false", "none", "null"),
    }
)


def words_of(attributes: Attributes) -> set[str]:
    """The words of a product's metadata, in lower case: of its texts that say what it is.

    Each once, however often it is there. Attributes that hold ids, links and dates are left out,
    and so are values without letters.
    """
    found: dict[str, None] = {}
    for name, value in attributes.items():
        if _OPAQUE.search(name.lower()):
            continue
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str) and "://" not in text:
                found |= dict.fromkeys(_WORD.findall(text[:_TEXT_LENGTH].lower()))
    words = [word for word in found if word not in _STOP_WORDS]
    return set(words[:_WORDS_A_PRODUCT])


class WordCounts:
    """In how many products of each cluster a word is; bounded."""

    def __init__(self, clusters: int) -> None:
        self.products = [0] * clusters
        self.words: list[Counter[str]] = [Counter() for _ in range(clusters)]
        self._different = 0

    def add(self, cluster: int, words: Iterable[str]) -> None:
        """Count one product's words."""
        counts = self.words[cluster]
        before = len(counts)
        counts.update(words)
        self.products[cluster] += 1
        self._different += len(counts) - before
        if self._different > MAX_COUNTED:
            self._forget_rare()

    def as_json(self) -> dict[str, object]:
        """What `from_json` reads."""
        return {"products": self.products, "words": [dict(counts) for counts in self.words]}

    @classmethod
    def from_json(cls, value: Mapping[str, list[Any]]) -> WordCounts:
        """The counts that were written."""
        counts = cls(0)
        counts.products = [int(number) for number in value["products"]]
        counts.words = [Counter(words) for words in value["words"]]
        counts._different = sum(map(len, counts.words))
        return counts

    def _forget_rare(self) -> None:
        least = 2
        while self._different > MAX_COUNTED // 2:
            for counts in self.words:
                for word in [word for word, count in counts.items() if count < least]:
                    del counts[word]
            self._different = sum(map(len, self.words))
            least *= 2


def named(counts: WordCounts) -> list[tuple[str, tuple[str, ...]]]:
    """Each cluster's name and words, the most distinctive first; empty where there are none.

    The weight of a word is tf · log(1 + A / f): tf is the share of the cluster's products that have
    it, f the sum of tf over all clusters and A the mean over clusters of the sum of all their tf.
    Shares instead of counts, so that a large cluster's words are no more common than a small one's.
    A word is distinctive of a cluster where it is clearly more frequent than in clusters on
    average. A name has the words that weigh nearly as much as the first, and as many more as tell
    it from the names before.
    """
    tf = [
        {word: count / max(products, 1) for word, count in words.items()}
        for words, products in zip(counts.words, counts.products, strict=True)
    ]
    everywhere: defaultdict[str, float] = defaultdict(float)
    for shares in tf:
        for word, share in shares.items():
            everywhere[word] += share
    filled = max(sum(map(bool, tf)), 1)
    mean = sum(everywhere.values()) / filled
    usual = _LIFT / filled if filled > 1 else 0.0
    found: list[tuple[str, tuple[str, ...]]] = []
    for shares in tf:
        weights = {
            word: share * math.log1p(mean / everywhere[word])
            for word, share in shares.items()
            if share >= usual * everywhere[word]
        }
        words = sorted(weights, key=lambda word: (-weights[word], word))[:MAX_WORDS]
        strong = [
            word
            for word in words
            if shares[word] >= _NAME_SHARE and weights[word] >= _STRONG * weights[words[0]]
        ]
        found.append((_name(strong, words, {name for name, _ in found}), tuple(words)))
    return found


def _name(strong: list[str], words: list[str], taken: set[str]) -> str:
    chosen = strong[:_NAME_WORDS]
    if not chosen:
        return ""
    for word in words:
        if ", ".join(chosen) not in taken:
            break
        if word not in chosen:
            chosen.append(word)
    return ", ".join(chosen)
