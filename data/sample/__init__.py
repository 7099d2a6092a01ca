"""A sample catalogue that is drawn by code: products, their photos, and photos to search with."""

from __future__ import annotations

from data.sample.catalogue import (
    QueryPhoto,
    SampleProduct,
    products,
    query_photos,
    render,
    write_catalogue,
)

__all__ = ["QueryPhoto", "SampleProduct", "products", "query_photos", "render", "write_catalogue"]
