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
    "results": [
        {
            "rank": 1,
            "product_id": "boot-7",
            "view": "front",
            "score": 0.912345,
            "image_url": "https://images.example/default/boot-7/front.jpg?X-Amz-Expires=3600",
            "thumbnail_url": "https://index.example/thumbnails/0b1c.webp?X-Amz-Expires=3600",
            "title": "Leather boot",
            "category": "shoes",
            "cluster": None,
            "attributes": {"title": "Leather boot", "category": "shoes", "price": 49.9},
            "explanation_url": None,
        }
    ],
}
