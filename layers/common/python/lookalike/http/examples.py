"""Examples that the API's description shows. A test sends and checks each."""

from __future__ import annotations

from typing import Any

_PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGD4DwABBAEAwS2OUAAAAABJRU5ErkJg"
    "gg=="
)

SEARCH_BODIES: dict[str, dict[str, Any]] = {
    "image": {
        "summary": "With an image",
        "value": {"image": _PIXEL, "k": 5},
    },
    "product": {
        "summary": "With a stored product, filtered",
        "value": {
            "product_id": "boot-7",
            "k": 10,
            "filter": {"category": "shoes", "price": {"lte": 50}},
        },
    },
    "filter": {
        "summary": "With a filter of several parts, scoring every row",
        "value": {
            "product_id": "boot-7",
            "filter": {
                "category": "shoes",
                "or": [{"price": {"lt": 50}}, {"sale": True}],
                "not": {"brand": ["acme", "apex"]},
            },
            "exact": True,
        },
    },
    "crop": {
        "summary": "With a part of an uploaded image",
        "value": {"upload_key": "01J0000000000000000000000G", "crop": [0.25, 0.1, 0.5, 0.8]},
    },
    "region": {
        "summary": "With a few cells of an earlier search",
        "value": {
            "query_id": "01JD9Y3V5Q4ZP0GQ3B0V9F4K7M",
            "cells": [[3, 3], [3, 4], [4, 3], [4, 4]],
        },
    },
    "region-crop": {
        "summary": "With a part of an earlier search's photo, and keeping nothing for explanations",
        "value": {
            "query_id": "01JD9Y3V5Q4ZP0GQ3B0V9F4K7M",
            "crop": [0.25, 0.25, 0.5, 0.5],
            "explain": False,
        },
    },
    "several": {
        "summary": "Like this photo, a little like that product, not like the other",
        "value": {
            "image": _PIXEL,
            "product_id": "boot-7",
            "weights": [1, 0.5],
            "not_like": ["boot-9"],
            "min_score": 0.2,
        },
    },
}

SEARCH_RESPONSE: dict[str, Any] = {
    "query_id": "01JD9Y3V5Q4ZP0GQ3B0V9F4K7M",
    "catalogue": "default",
    "encoder": "efficientnet-lite2-border-v1",
    "generation": "efficientnet-lite2-border-v1",
    "took_ms": {"index": 1.2, "decode": 3.1, "encode": 17.4, "search": 0.3, "total": 24.9},
    "explanations_expire_at": 1736157600.0,
    "verdict": "match",
    "results": [
        {
            "rank": 1,
            "product_id": "boot-7",
            "view": "front",
            "score": 0.912345,
            "match": 0.8812,
            "image_url": "https://images.example/default/boot-7/front.jpg?X-Amz-Expires=3600",
            "thumbnail_url": "https://index.example/thumbnails/0b1c.webp?X-Amz-Expires=3600",
            "title": "Leather boot",
            "category": "shoes",
            "cluster": "c3",
            "attributes": {"title": "Leather boot", "category": "shoes", "price": 49.9},
            "explanation_url": "https://api.example/explanations/01JD9Y3V5Q4ZP0GQ3B0V9F4K7M/boot-7",
        }
    ],
}

_SIDE: dict[str, Any] = {
    "grid": [2, 2],
    "contributions": [[0.4, 0.3], [0.15, 0.062345]],
    "gradcam": [[1.0, 0.6], [0.1, 0.0]],
    "pulls": [[0.03, 0.01], [-0.01, -0.03]],
    "foreground": [[True, True], [False, False]],
    "foreground_share": 0.767252,
}
_TRUST = {
    "deletion_auc": 0.61,
    "insertion_auc": 0.83,
    "chance_deletion": 0.72,
    "chance_insertion": 0.73,
    "centre_deletion": 0.66,
    "centre_insertion": 0.79,
    "better_than_chance": True,
}
_EXPLAINED = "https://api.example/explanations/01JD9Y3V5Q4ZP0GQ3B0V9F4K7M/boot-7"

EXPLANATION: dict[str, Any] = {
    "query_id": "01JD9Y3V5Q4ZP0GQ3B0V9F4K7M",
    "catalogue": "default",
    "product_id": "boot-7",
    "view": "front",
    "score": 0.912345,
    "encoder": "efficientnet-lite2-border-v1",
    "generation": "efficientnet-lite2-border-v1",
    "query": _SIDE,
    "result": _SIDE,
    "result_square": [0.0625, 0.171875, 0.875, 0.65625],
    "matches": [
        {
            "share": 0.31,
            "contribution": 0.282827,
            "part": 0,
            "query_cells": [[0, 0], [0, 1]],
            "result_cells": [[0, 0]],
        }
    ],
    "differs": [{"side": "result", "cells": [[1, 0], [1, 1]], "pull": -0.04}],
    "foreground_share": 0.64,
    "background_share": 0.08,
    "inputs": [
        {
            "part": 0,
            "input": 0,
            "kind": "photo",
            "product_id": None,
            "view": None,
            "rows": [0, 2],
            "square": [0.0625, 0.171875, 0.875, 0.65625],
            "coefficient": 1.0,
            "share": 1.0,
        }
    ],
    "trust": {"better_than_chance": True, "part": 0, "query": _TRUST, "result": _TRUST},
    "changed_since": False,
    "expires_at": 1732118400.0,
    "overlays": {of: f"{_EXPLAINED}/{of}.png" for of in ("query", "result", "pair")},
}
