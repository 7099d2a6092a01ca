"""The shapes of requests: one struct each, from which both validation and OpenAPI follow."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from lookalike.core.health import KINDS
from lookalike.core.keys import DEFAULT_CATALOGUE, MAX_NAME_BYTES
from lookalike.core.material import MAX_PARTS
from lookalike.services.catalogue import MAX_PAGE
from lookalike.services.clusters import MAX_NAME
from lookalike.services.search_request import MAX_CELLS, MAX_INPUTS, MAX_K

DEFAULT_K = 10
DEFAULT_PAGE = 50
MAX_FILTER_CHARACTERS = 8192
MAX_WEIGHT = 1e6

Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_BYTES)]
ProductId = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_BYTES, examples=["boot-7"])]
UploadKey = Annotated[
    str, Meta(min_length=1, max_length=64, examples=["01J0000000000000000000000G"])
]
QueryId = Annotated[str, Meta(min_length=1, max_length=64, examples=["01JD9Y3V5Q4ZP0GQ3B0V9F4K7M"])]
Cell = Annotated[list[Annotated[int, Meta(ge=0)]], Meta(min_length=2, max_length=2)]
Base64 = Annotated[str, Meta(min_length=1, extra_json_schema={"contentEncoding": "base64"})]
Box = Annotated[list[float], Meta(min_length=4, max_length=4)]

Catalogue = Annotated[
    Name,
    Meta(
        description="The catalogue: the first part of the bucket's keys.",
        extra_json_schema={"default": DEFAULT_CATALOGUE},
        examples=[DEFAULT_CATALOGUE],
    ),
]
K = Annotated[
    int,
    Meta(
        ge=1,
        le=MAX_K,
        description=f"How many products to return, from 1 to {MAX_K}.",
        extra_json_schema={"default": DEFAULT_K},
        examples=[DEFAULT_K],
    ),
]
MinScore = Annotated[
    float,
    Meta(
        ge=-1,
        le=1,
        description="Leave out results whose cosine similarity is lower, from -1 to 1.",
        examples=[0.2],
    ),
]
FilterText = Annotated[
    str,
    Meta(
        max_length=MAX_FILTER_CHARACTERS,
        description="A filter on attributes: `category=shoes,price<=50`, with `AND`, `OR`, `NOT`, "
        "parentheses and double quotes (`brand=acme AND NOT (price>50 OR sale=true)`), or the "
        "JSON form.",
        examples=["category=shoes,price<=50"],
    ),
]
ClusterId = Annotated[
    str,
    Meta(
        max_length=64,
        description="Only products in this cluster, by its `cluster_id`.",
        examples=["c3"],
    ),
]
Limit = Annotated[int, Meta(ge=1, le=MAX_PAGE, description=f"Rows a page, from 1 to {MAX_PAGE}.")]
Cursor = Annotated[
    str, Meta(max_length=4096, description="`cursor` of the page before; none for the first.")
]
Exact = Annotated[
    bool,
    Meta(
        description="Score every row rather than the nearest lists of the index: slow on large "
        "catalogues, and the reference that quicker answers are compared with.",
        extra_json_schema={"default": False},
        examples=[False],
    ),
]
Explain = Annotated[
    bool,
    Meta(
        description="Keep what explanations of the results need (the photos too) until "
        "`explanations_expire_at`; `false` keeps nothing, and no result has an `explanation_url`.",
        extra_json_schema={"default": True},
        examples=[True],
    ),
]


class SearchParameters(Struct, kw_only=True, forbid_unknown_fields=True):
    """Query parameters of a search; fields of the body win over them."""

    k: K | UnsetType = UNSET
    catalogue: Catalogue | UnsetType = UNSET
    filter: FilterText | UnsetType = UNSET
    min_score: MinScore | UnsetType = UNSET
    exact: Exact | UnsetType = UNSET
    explain: Explain | UnsetType = UNSET


class SearchBody(Struct, kw_only=True, forbid_unknown_fields=True):
    """What to search for. At least one of `image`, `product_id`, `upload_key` and `query_id`."""

    image: (
        Annotated[
            Base64 | Annotated[list[Base64], Meta(max_length=MAX_INPUTS)],
            Meta(description="One image file or several, in base64."),
        ]
        | UnsetType
    ) = UNSET
    product_id: (
        Annotated[
            ProductId | Annotated[list[ProductId], Meta(max_length=MAX_INPUTS)],
            Meta(description="Stored products to search with."),
        ]
        | UnsetType
    ) = UNSET
    upload_key: (
        Annotated[
            UploadKey | Annotated[list[UploadKey], Meta(max_length=MAX_INPUTS)],
            Meta(description="Images uploaded with the help of `POST /uploads`."),
        ]
        | UnsetType
    ) = UNSET
    query_id: (
        Annotated[
            QueryId,
            Meta(
                description="An earlier search to search with again, or with the part of it that "
                "`cells` or `crop` says. The network does not run for that. The query may be made "
                f"of {MAX_PARTS} images then, each view of a product being one."
            ),
        ]
        | UnsetType
    ) = UNSET
    cells: (
        Annotated[
            list[Cell],
            Meta(
                min_length=1,
                max_length=MAX_CELLS,
                description="Cells of the search `query_id`, as `[row, column]` of the grid that "
                "its explanations have for `query`. With several images their grids stand one "
                "below the other.",
                examples=[[[3, 3], [3, 4], [4, 3], [4, 4]]],
            ),
        ]
        | UnsetType
    ) = UNSET
    crop: (
        Annotated[
            list[float | Box | None],
            Meta(
                max_length=MAX_INPUTS,
                description="`[x, y, width, height]` of the one image, in pixels, or in fractions "
                "when all four are at most 1; or a list of such boxes (or null), one for each "
                "image, then each upload, then the search `query_id`.",
                examples=[[0.25, 0.1, 0.5, 0.8]],
            ),
        ]
        | UnsetType
    ) = UNSET
    weights: (
        Annotated[
            list[Annotated[float, Meta(ge=0, le=MAX_WEIGHT)]],
            Meta(
                max_length=MAX_INPUTS,
                description="How much each input counts, in the order images, products, uploads, "
                "earlier search. None is negative, not all are zero. An input that counts 0 is not "
                "looked at; a product is then only left out of the results.",
                examples=[[1, 0.5]],
            ),
        ]
        | UnsetType
    ) = UNSET
    k: K | UnsetType = UNSET
    filter: (
        Annotated[
            dict[str, Any] | FilterText,
            Meta(
                description="A filter on attributes; all its parts must hold. Tests: eq, ne, in, "
                "lt, lte, gt, gte, exists; a list is a set. `and` and `or` take lists of filters, "
                "`not` takes one. As text: `category=shoes,price<=50`.",
                examples=[
                    {"category": "shoes", "price": {"lte": 50}},
                    {"or": [{"brand": ["acme", "apex"]}, {"not": {"sale": True}}]},
                ],
            ),
        ]
        | UnsetType
    ) = UNSET
    not_like: (
        Annotated[
            list[ProductId],
            Meta(max_length=MAX_INPUTS, description="Products that results should not look like."),
        ]
        | UnsetType
    ) = UNSET
    min_score: MinScore | UnsetType = UNSET
    exact: Exact | UnsetType = UNSET
    explain: Explain | UnsetType = UNSET
    catalogue: Catalogue | UnsetType = UNSET


class SimilarParameters(Struct, kw_only=True, forbid_unknown_fields=True):
    """Query parameters of `GET /products/{product_id}/similar`."""

    k: K = DEFAULT_K
    filter: FilterText | None = None
    exact: Exact = False
    explain: Explain = True
    catalogue: Catalogue = DEFAULT_CATALOGUE


class ProductParameters(Struct, kw_only=True, forbid_unknown_fields=True):
    """Query parameters where a product is named."""

    catalogue: Catalogue = DEFAULT_CATALOGUE


class PageParameters(Struct, kw_only=True, forbid_unknown_fields=True):
    """Query parameters of `GET /products`."""

    catalogue: Catalogue = DEFAULT_CATALOGUE
    status: Annotated[
        Literal["live", "failed"],
        Meta(description="`live`: products that are searchable; `failed`: objects that are not."),
    ] = "live"
    cluster: ClusterId | None = None
    limit: Limit = DEFAULT_PAGE
    cursor: Cursor | None = None


class ClustersParameters(Struct, kw_only=True, forbid_unknown_fields=True):
    """Query parameters of `GET /clusters` and of `PATCH /clusters/{cluster_id}`."""

    catalogue: Catalogue = DEFAULT_CATALOGUE


class FindingsParameters(Struct, kw_only=True, forbid_unknown_fields=True):
    """Query parameters of `GET /findings`."""

    catalogue: Catalogue = DEFAULT_CATALOGUE
    kind: (
        Annotated[
            str,
            Meta(
                max_length=40,
                description="What kind of findings to list; without it, how many there are of "
                "each.",
                extra_json_schema={"enum": list(KINDS)},
                examples=[KINDS[0]],
            ),
        ]
        | None
    ) = None
    limit: Limit = DEFAULT_PAGE
    cursor: Cursor | None = None


class ClusterName(Struct, kw_only=True, forbid_unknown_fields=True):
    """What a cluster is to be called."""

    name: Annotated[
        str | None,
        Meta(
            description=f"A name of 1 to {MAX_NAME} characters, which stays with the cluster when "
            "products are grouped anew; null for the one found for it.",
            examples=["Summer dresses"],
        ),
    ]


class NoParameters(Struct, forbid_unknown_fields=True):
    """No query parameters."""
