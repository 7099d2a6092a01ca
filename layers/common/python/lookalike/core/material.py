"""What a search was made with, kept so that its results can be explained and parts of it searched.

A query embedding is q = Σ_p c_p·e_p over its parts: the photos, the views of stored products, the
views of products that it is not like. Owns the file (magic ``LKQM``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.core.container import (
    Container,
    FileKind,
    decode_container,
    encode_container,
    json_bytes,
)
from lookalike.core.errors import CorruptFile, InvalidRequest
from lookalike.core.feature_map import decode_map, encode_map

KIND = FileKind("query material", b"LKQM", 1)
MAX_PARTS = 128
"""Images that a search may be made of for it to be kept: the map of each takes 0.4 MB in memory."""

Float32 = npt.NDArray[np.float32]
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Photo:
    """An image as it was sent; ``crop`` is the part that was searched, as that was given."""

    body: bytes
    crop: Box | None = None


@dataclass(frozen=True, slots=True)
class QueryPart:
    """One image's share of a query.

    ``coefficient`` is c_p, below 0 for what the query is not like. ``embedding`` is e_p, (dim,)
    float32, L2-normalised, as the search used it. ``input`` numbers the input of the request that
    it came with: images, products, uploads, then the earlier search; -1 for ``not_like``.

    A photo has ``photo`` (its number in `QueryMaterial.photos`), ``maps`` (C, h, w) and ``weights``
    (h, w) that sum to 1. A view of a stored product has ``key``, ``etag`` and, when only a part of
    it was searched, ``weights``; its map is stored with the view. ``width`` and ``height`` are
    those of the upright image, or of its crop, in pixels.
    """

    coefficient: float
    embedding: Float32
    input: int
    photo: int | None = None
    maps: Float32 | None = None
    weights: Float32 | None = None
    width: int = 0
    height: int = 0
    key: str = ""
    etag: str = ""


@dataclass(frozen=True, slots=True)
class QueryMaterial:
    """One search. ``head`` is the digest of its head's file; times are epoch seconds.

    ``known_as`` is the `fingerprint` that its file says, "" of one that comes from no file.
    """

    query_id: str
    catalogue: str
    generation: str
    encoder: str
    head: str
    created_at: float
    expires_at: float
    parts: tuple[QueryPart, ...]
    photos: tuple[Photo, ...] = ()
    known_as: str = ""

    @property
    def embedding(self) -> Float32:
        """The query embedding that was searched with: (dim,) float32, L2-normalised."""
        return sum_of(self.parts)


def sum_of(parts: Sequence[QueryPart]) -> Float32:
    """Σ_p c_p·e_p: (dim,) float32."""
    coefficients = np.asarray([part.coefficient for part in parts], dtype=np.float32)
    embeddings = np.stack([part.embedding for part in parts])
    return np.asarray(coefficients @ embeddings, dtype=np.float32)


def normalized(parts: Sequence[QueryPart]) -> list[QueryPart]:
    """The parts with their coefficients scaled so that their sum has length one.

    Raises
    ------
    InvalidRequest
        Their sum is zero.
    """
    norm = float(np.linalg.norm(sum_of(parts)))
    if norm < 1e-6:
        raise InvalidRequest("The inputs cancel each other out: nothing is left to look for.")
    return scaled(parts, 1 / norm)


def scaled(parts: Sequence[QueryPart], factor: float) -> list[QueryPart]:
    """The parts with their coefficients times a factor."""
    return [replace(part, coefficient=part.coefficient * factor) for part in parts]


def encode_material(material: QueryMaterial) -> bytes:
    """The file of one search's material; its maps lose what `encode_map` says."""
    sections = {f"photo-{number}": photo.body for number, photo in enumerate(material.photos)}
    for number, part in enumerate(material.parts):
        if part.maps is not None:
            sections[f"map-{number}"] = encode_map(part.maps)
        if part.weights is not None:
            sections[f"weights-{number}"] = part.weights.astype("<f4").tobytes()
    embeddings = np.stack([part.embedding for part in material.parts])
    sections["embeddings"] = embeddings.astype("<f4").tobytes()
    header = {
        "query_id": material.query_id,
        "catalogue": material.catalogue,
        "generation": material.generation,
        "encoder": material.encoder,
        "head": material.head,
        "created_at": material.created_at,
        "expires_at": material.expires_at,
        "fingerprint": fingerprint(material),
        "photos": [{"crop": photo.crop} for photo in material.photos],
        "dim": embeddings.shape[1],
        "parts": [_described(part) for part in material.parts],
    }
    return encode_container(KIND, header, sections)


def decode_material(data: bytes | memoryview, name: str) -> QueryMaterial:
    """Read a query material file; ``name`` is for the error.

    Raises
    ------
    CorruptFile
        The bytes are not a whole, unaltered file of a known format version, or not what their
        header says, or say that there are more than `MAX_PARTS` parts or photos.
    """
    file = decode_container(KIND, data, name)
    try:
        if max(len(file.header["parts"]), len(file.header["photos"])) > MAX_PARTS:
            raise ValueError("there are too many parts or photos")
        return _material(file, name)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise CorruptFile(f"{KIND.name} {name} does not hold what its header says") from error


def _material(file: Container, name: str) -> QueryMaterial:
    header = file.header
    photos = tuple(
        Photo(
            bytes(file.section(f"photo-{number}")),
            tuple(photo["crop"]) if photo["crop"] else None,
        )
        for number, photo in enumerate(header["photos"])
    )
    embeddings = np.frombuffer(file.section("embeddings"), dtype="<f4")
    embeddings = embeddings.reshape(len(header["parts"]), header["dim"])
    parts = tuple(
        _part(file, number, row, embeddings[number], name)
        for number, row in enumerate(header["parts"])
    )
    if not {part.photo for part in parts} <= {None, *range(len(photos))}:
        raise ValueError("a part names a photo that is not there")
    return QueryMaterial(
        query_id=header["query_id"],
        catalogue=header["catalogue"],
        generation=header["generation"],
        encoder=header["encoder"],
        head=header["head"],
        created_at=header["created_at"],
        expires_at=header["expires_at"],
        parts=parts,
        photos=photos,
        known_as=header["fingerprint"],
    )


def fingerprint(material: QueryMaterial) -> str:
    """32 hex digits that name what a search was made with, whenever that was and whatever its id.

    Searches of equal fingerprints have the same embedding, made of the same parts.
    """
    if material.known_as:
        return material.known_as
    digest = hashlib.blake2b(digest_size=16)
    for part in material.parts:
        said = _described(part)
        if part.photo is not None:
            photo = material.photos[part.photo]
            said |= {"photo": hashlib.blake2b(photo.body).hexdigest(), "crop": photo.crop}
        if part.weights is not None:
            said["weights"] = hashlib.blake2b(part.weights.astype("<f4").tobytes()).hexdigest()
        said["embedding"] = part.embedding.astype("<f4").tobytes().hex()
        digest.update(json_bytes(said))
    scope = [material.catalogue, material.generation, material.encoder, material.head]
    digest.update(json_bytes(scope))
    return digest.hexdigest()


def _described(part: QueryPart) -> dict[str, Any]:
    """What a file's header says of a part; ``grid`` is that of its weights, if it has any."""
    return {
        "coefficient": part.coefficient,
        "input": part.input,
        "photo": part.photo,
        "grid": None if part.weights is None else part.weights.shape,
        "width": part.width,
        "height": part.height,
        "key": part.key,
        "etag": part.etag,
    }


def _part(
    file: Container, number: int, row: dict[str, Any], embedding: Float32, name: str
) -> QueryPart:
    weights = maps = None
    if row["grid"] is not None:
        weights = np.frombuffer(file.section(f"weights-{number}"), dtype="<f4")
        weights = weights.reshape(row["grid"])
    if row["photo"] is not None:
        maps = decode_map(file.section(f"map-{number}"), f"{number} of {name}")
    return QueryPart(
        coefficient=row["coefficient"],
        embedding=embedding,
        input=row["input"],
        photo=row["photo"],
        maps=maps,
        weights=weights,
        width=row["width"],
        height=row["height"],
        key=row["key"],
        etag=row["etag"],
    )
