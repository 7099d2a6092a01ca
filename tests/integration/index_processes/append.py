"""One embed function: uploads, overwrites and deletes products, some of which others write too.

Prints, as JSON, what it left in the bucket: object key → name of the photo, null for deleted; and
how long its longest append took.
"""

from __future__ import annotations

import json
import random
import sys
import time

from shop import CATALOGUE, draw

from lookalike.wiring import services

BATCH = 4


def main() -> None:
    worker, batches = sys.argv[1], int(sys.argv[2])
    rng = random.Random(worker)
    own: list[str] = []
    left: dict[str, str | None] = {}
    longest_s = 0.0
    images = services().stores.images
    for batch in range(batches):
        keys = [f"{CATALOGUE}/{worker}-{batch}-{number}.jpg" for number in range(BATCH)]
        # A view of its own on a product that every process writes to: records are contended.
        keys.append(f"{CATALOGUE}/common-{batch % 5}/{worker}-{batch}.jpg")
        if own:
            keys += rng.sample(own, min(2, len(own)))
        for key in keys:
            if key in left and rng.random() < 0.4:
                images.delete(key)
                left[key] = None
            else:
                left[key] = f"{key} {batch}"
                images.put(key, draw(left[key]), "image/jpeg")
        own += keys[:BATCH]
        while keys:
            start = time.monotonic()
            keys = list(services().ingest.reconcile(keys))
            longest_s = max(longest_s, time.monotonic() - start)
    print(json.dumps({"left": left, "longest_s": longest_s}))


if __name__ == "__main__":
    main()
