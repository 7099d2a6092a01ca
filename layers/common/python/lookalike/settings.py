"""Settings of the functions, read once from the environment.

The one place that reads ``LOOKALIKE_*``.

The AWS SDK's own variables (``AWS_ENDPOINT_URL``, region, credentials) are left to boto3.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

PREFIX = "LOOKALIKE_"

Policy = TypeVar("Policy")

# Annotations are text here (PEP 563).
_TYPES: dict[Any, Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
}


@dataclass(frozen=True, slots=True)
class Settings:
    """Each field is the environment variable ``LOOKALIKE_<FIELD IN UPPER CASE>``."""

    images_bucket: str = "lookalike-images"
    """Bucket that product photos are uploaded to."""
    index_bucket: str = "lookalike-index"
    """Bucket for everything that is made of photos and searches, and for query uploads."""
    products_table: str = "lookalike-products"
    """Table of product records."""
    failures_table: str = "lookalike-failures"
    """Table of objects that could not be indexed."""
    registry_table: str = "lookalike-registry"
    """Table of appended segments and manifests."""
    generations_table: str = "lookalike-generations"
    """Table of each catalogue's generations and counts."""
    searches_table: str = "lookalike-searches"
    """Table of the search log."""
    api_keys_table: str = "lookalike-api-keys"
    """Table of API keys and of how much each was used within the minute."""
    clusters_table: str = "lookalike-clusters"
    """Table of what scheduled work has made of each catalogue, and how far it is."""
    feedback_table: str = "lookalike-feedback"
    """Table of clicks, purchases and complaints about results."""
    rollups_table: str = "lookalike-rollups"
    """Table of hourly and daily aggregates of the search log."""
    ingest_queue_url: str = ""
    """URL of the queue that bucket events arrive in."""
    max_receives: int = 5
    """Deliveries of one ingest message before it goes to the dead-letter queue."""
    encoder: str = "efficientnet-lite2"
    """Encoder of catalogues that are new; those that exist keep their generation's."""
    precision: str = "fp32"
    """``fp32`` or ``int8``: which ONNX graph of the encoder is run."""
    pooling: str = "border"
    """``border`` (border saliency) or ``gap`` (plain average), for catalogues that are new."""
    model_dir: str = ""
    """Folder of ONNX graphs; empty means the user's cache folder."""
    encoder_threads: int = 1
    """Threads of one ONNX Runtime session."""
    max_image_bytes: int = 25_000_000
    """Largest image file that is indexed, in bytes."""
    max_image_pixels: int = 100_000_000
    """Largest image that is decoded, in pixels; half of it for AVIF, HEIF and WebP."""
    max_decode_s: float = 5.0
    """Seconds of CPU time that decoding one image may take, or all images of one search."""
    max_decode_bytes: int = 1_000_000_000
    """Memory that decoding one image may take, in bytes (bounded on Linux alone)."""
    max_document_bytes: int = 65_536
    """Largest ``product.json``, in bytes."""
    require_api_key: bool = False
    """``true``: requests need an API key (the template's default); ``false``: everybody may ask."""
    api_key_refresh_s: float = 10.0
    """Seconds after which a function asks again whether a key is still valid."""
    refresh_s: float = 0.5
    """Seconds after which a query asks again for new segments and for its generation."""
    derived_refresh_s: float = 5.0
    """Seconds after which a query asks again for clusters and calibration."""
    nprobe: int = 26
    """Inverted lists that a query reads at least; of n shards √n times as many."""
    index_threads: int = 1
    """Threads that search rows in no base; a base is scanned by one."""
    cache_dir: str = ""
    """Folder for copies of bases; empty means one in the system's temporary folder."""
    cache_bytes: int = 400_000_000
    """Most bytes that copies of bases take in that folder."""
    merge_segments: int = 32
    """Appended segments of a scope from which compaction merges them."""
    base_rows: int = 1_000
    """Rows from which a shard gets a base; fewer are searched exactly as they are."""
    flat_rows: int = 20_000
    """Rows up to which a base is one flat list; larger ones have inverted lists."""
    shard_rows: int = 500_000
    """Rows that a shard is meant for; a new generation gives a catalogue more shards in time."""
    head_rows: int = 1_000
    """Rows from which a catalogue gets a fitted head (centring and PCA); 0 turns that off."""
    head_dim: int = 256
    """Length of an indexed embedding under a fitted head."""
    settle_s: float = 90.0
    """Seconds after which every append that had begun has ended: embed's timeout and a margin."""
    grace_s: float = 900.0
    """Seconds for which swapped-out index files are kept for those who still read them."""
    keep_generation_s: float = 86_400.0
    """Seconds for which the generation before the current one is kept for a rollback."""
    url_expires_s: int = 3600
    """Seconds for which image URLs in answers open."""
    search_retention_days: int = 90
    """Days after which an entry of the search log may be dropped."""
    query_retention_s: float = 86_400.0
    """Seconds for which a search can be explained: its photos are kept so long; 0 keeps nothing."""
    sweep_backlog: int = 1_000
    """Messages in the ingest queue above which a sweep waits before it asks for more."""
    quiet_s: float = 20.0
    """Seconds without a new photo after which clusters, map and findings may be made anew."""
    pause_s: float = 600.0
    """Seconds between two renewals for which photos that keep arriving put the next one off."""
    renew_share: float = 0.1
    """Share of a catalogue's products that came or went from which all of that is made anew."""
    renew_s: float = 86_400.0
    """Seconds after which all of that is made anew if anything has changed."""
    clusters: int = 0
    """How many clusters a catalogue is divided into, up to 1,000; 0 lets the catalogue say."""
    map_method: str = "tsne"
    """``tsne``, ``pca`` or ``umap`` (with the extra of that name): how the map is laid out."""
    map_rows: int = 20_000
    """Products that are laid out by that; those beyond are placed among them."""
    map_perplexity: float = 30.0
    """Neighbours that t-SNE and UMAP keep a product close to, about."""
    log_level: str = "INFO"
    """Level of the structured log."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings.

        Raises
        ------
        ValueError
            A variable holds something that is not of its type; the message names it.
        """
        source = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for item in fields(cls):
            name = PREFIX + item.name.upper()
            text = source.get(name)
            if text is None or text == "":
                continue
            try:
                values[item.name] = _TYPES[item.type](text)
            except (ValueError, KeyError):
                raise ValueError(f"{name}={text!r} is not of type {item.type}") from None
        return cls(**values)


def policy_of(kind: Callable[..., Policy], settings: Settings) -> Policy:
    """The part of the settings that a planner knows, by the names of its parameters."""
    return kind(**{name: getattr(settings, name) for name in inspect.signature(kind).parameters})
