"""A query function: searches for products that never change until standard input is closed.

Prints, as lines of JSON, each generation when it first answers, and at the end how many searches
there were and what went wrong.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading

from shop import ANCHORS, CATALOGUE, draw

from lookalike.core.keys import parse_key
from lookalike.services.search_request import QueryInput, SearchRequest
from lookalike.wiring import services


def main() -> None:
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    generations: list[str] = []
    wrong: list[str] = []
    searches = 0
    for key in itertools.cycle(ANCHORS):
        if ended.is_set():
            break
        request = SearchRequest(CATALOGUE, (QueryInput(image=draw(key)),), k=5)
        try:
            answer = services().query.search(request)
        except Exception as error:
            wrong.append(f"{key}: {error!r}")
            continue
        found = [item.product_id for item in answer.results]
        if found[:1] != [parse_key(key).product_id] or len(set(found)) != 5:
            wrong.append(f"{key}: {found} in {answer.generation}")
        if answer.generation not in generations:
            generations.append(answer.generation)
            print(json.dumps(answer.generation), flush=True)
        searches += 1
    print(json.dumps({"searches": searches, "wrong": wrong}))


if __name__ == "__main__":
    main()
