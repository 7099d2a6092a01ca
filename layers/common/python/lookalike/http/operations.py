"""Every route of the API: what it takes, what it answers, what can go wrong."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import Struct

from lookalike.core.access import Right
from lookalike.core.material import MAX_PARTS
from lookalike.http.explanation_parameters import PictureParameters
from lookalike.http.feedback_parameters import FeedbackBody
from lookalike.http.parameters import (
    ClusterName,
    ClustersParameters,
    FindingsParameters,
    NoParameters,
    PageParameters,
    ProductParameters,
    SearchParameters,
    SimilarParameters,
)
from lookalike.services.catalogue import FailurePage, Health, ProductInfo, ProductPage, Stats
from lookalike.services.clusters import ClusterInfo, ClusterList
from lookalike.services.explanation_answer import ExplanationAnswer
from lookalike.services.findings import FindingsPage, FindingsSummary
from lookalike.services.query import SearchResponse
from lookalike.services.query_material import MAX_PHOTO_BYTES
from lookalike.services.uploads import UploadForm

SEARCH, EXPLANATIONS, PRODUCTS, SERVICE = "Search", "Explanations", "Products", "Service"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path. Callers need the right ``right``; None is open to all.

    ``takes_search`` is for the body of a search, in its three kinds; ``body`` is the shape of one
    that is JSON alone. ``answers`` are the types of its JSON answer (one of them), empty when it
    answers no JSON; ``media_types`` are those of any other answer. With ``cached`` it says in
    ``X-Cache`` whether it had to compute. ``elsewhere`` is a status that sends the client to
    another URL, 0 for none. ``problems`` are statuses of problem documents, beside those of keys.
    """

    method: str
    path: str
    right: Right | None
    id: str
    tag: str
    summary: str
    description: str = ""
    parameters: type[Struct] = NoParameters
    takes_search: bool = False
    body: type[Struct] | None = None
    status: int = 200
    answers: tuple[type, ...] = ()
    media_types: tuple[str, ...] = ()
    cached: bool = False
    elsewhere: int = 0
    problems: tuple[int, ...] = (500,)


OPERATIONS = (
    Operation(
        method="POST",
        path="/search",
        right="read",
        id="search",
        tag=SEARCH,
        summary="Search with images, stored products, uploads or a part of an earlier search",
        description="One image, or several inputs with weights. A product is named once, by its "
        "best view; products that are searched with are left out. `match` of a result is how "
        "likely it is a good match, and `verdict` what that makes of the search: `match`, "
        "`low_confidence` or `no_good_match`; both are null until the catalogue has been looked "
        "at. `cluster` is the group of products that the result is in. `query_id` with `cells` or "
        "`crop` searches with a part of what was searched before. Fields of the body win over "
        "query parameters. Image URLs open for an hour. Explanation URLs answer until "
        "`explanations_expire_at`, when the first of the searches that this one was made of "
        "expires. Both are null when nothing is kept: with `explain=false`, where searches are not "
        f"kept at all, of more than {MAX_PHOTO_BYTES // 10**6} MB of photos or {MAX_PARTS} images "
        "(each view of a product is one), and when it could not be written in time.",
        parameters=SearchParameters,
        takes_search=True,
        answers=(SearchResponse,),
        problems=(400, 404, 410, 413, 415, 422, 500, 503),
    ),
    Operation(
        method="GET",
        path="/products/{product_id}/similar",
        right="read",
        id="similar",
        tag=SEARCH,
        summary="Products similar to a stored one",
        parameters=SimilarParameters,
        answers=(SearchResponse,),
        problems=(404, 422, 500, 503),
    ),
    Operation(
        method="POST",
        path="/uploads",
        right="read",
        id="createUpload",
        tag=SEARCH,
        summary="Get a form for an image that is too large for a request",
        description="POST the image as multipart/form-data to `url`: all of `fields` first, then "
        "the file as `file`. Then search with `upload_key`. Uploads are deleted after a day.",
        status=201,
        answers=(UploadForm,),
        problems=(422, 500, 503),
    ),
    Operation(
        method="POST",
        path="/feedback",
        right="read",
        id="giveFeedback",
        tag=SEARCH,
        summary="Say what a shopper did with a result",
        description="A product that was opened, bought, or that is not what was looked for, with "
        "the rank that the answer gave it. Sending it again changes nothing. It counts in what is "
        "said of searches, and in what `match` means once 50 searches have been judged.",
        body=FeedbackBody,
        status=204,
        problems=(400, 404, 410, 415, 422, 500, 503),
    ),
    Operation(
        method="GET",
        path="/explanations/{query_id}/{product_id}",
        right="read",
        id="explain",
        tag=EXPLANATIONS,
        summary="Why a product matches a search",
        description="Numbers by cells of each side that add up to the score; regions that made the "
        "match, and those that differ. Any product of the searched catalogue can be asked for, "
        "also one that was not found. It is explained by the photos that it has now.",
        answers=(ExplanationAnswer,),
        cached=True,
        problems=(404, 410, 422, 500, 503),
    ),
    Operation(
        method="GET",
        path="/explanations/{query_id}/{product_id}/{picture}",
        right="read",
        id="explainInPictures",
        tag=EXPLANATIONS,
        summary="The same drawn on the photos",
        description="`query` and `result` are one photo each, `pair` has both side by side with "
        "the regions that match numbered, at 800 by 640 pixels each. The others have the photo's "
        "own resolution, up to 24 million pixels and 8,000 a side. Pictures over 4.4 MB are "
        "answered with the URL of the file.",
        parameters=PictureParameters,
        media_types=("image/png", "image/webp"),
        cached=True,
        elsewhere=303,
        problems=(404, 410, 413, 415, 422, 500, 503),
    ),
    Operation(
        method="GET",
        path="/products",
        right="read",
        id="listProducts",
        tag=PRODUCTS,
        summary="A page of products, or of objects that could not be indexed",
        description="`status=live` lists products in order of id, all or those of a `cluster`; "
        "`status=failed` objects in order of key, each with the reason. Pass `cursor` on until it "
        "is null.",
        parameters=PageParameters,
        answers=(ProductPage, FailurePage),
        problems=(404, 422, 500, 503),
    ),
    Operation(
        method="GET",
        path="/products/{product_id}",
        right="read",
        id="getProduct",
        tag=PRODUCTS,
        summary="One product with its views and attributes",
        parameters=ProductParameters,
        answers=(ProductInfo,),
        problems=(404, 422, 500, 503),
    ),
    Operation(
        method="DELETE",
        path="/products/{product_id}",
        right="write",
        id="deleteProduct",
        tag=PRODUCTS,
        summary="Delete a product",
        description="Deletes its objects from the bucket and takes it out of the results.",
        parameters=ProductParameters,
        status=204,
        problems=(404, 422, 500, 503),
    ),
    Operation(
        method="GET",
        path="/clusters",
        right="read",
        id="listClusters",
        tag=PRODUCTS,
        summary="The groups that a catalogue's products fall into",
        description="The largest first. A cluster keeps its id when products are grouped anew. "
        "There are none until a catalogue has some twenty products and a minute's rest.",
        parameters=ClustersParameters,
        answers=(ClusterList,),
        problems=(404, 422, 500, 503),
    ),
    Operation(
        method="PATCH",
        path="/clusters/{cluster_id}",
        right="write",
        id="renameCluster",
        tag=PRODUCTS,
        summary="Give a cluster a name, or take it back",
        parameters=ClustersParameters,
        body=ClusterName,
        answers=(ClusterInfo,),
        problems=(400, 404, 415, 422, 500, 503),
    ),
    Operation(
        method="GET",
        path="/findings",
        right="read",
        id="listFindings",
        tag=PRODUCTS,
        summary="What is likely wrong with a catalogue",
        description="Photos that are there twice, products in a category that they do not look "
        "like, bad photos, products that no search has shown, thin categories; each with the "
        "reason. Without `kind`, how many there are of each. With it, a page of findings, the "
        "worst first; what has been mended since is left out.",
        parameters=FindingsParameters,
        answers=(FindingsSummary, FindingsPage),
        problems=(404, 422, 500, 503),
    ),
    Operation(
        method="GET",
        path="/health",
        right=None,
        id="health",
        tag=SERVICE,
        summary="Whether the service can answer",
        answers=(Health,),
        problems=(422, 500, 503),
    ),
    Operation(
        method="GET",
        path="/stats",
        right="read",
        id="stats",
        tag=SERVICE,
        summary="What the caller's catalogues hold",
        answers=(Stats,),
        problems=(422, 500, 503),
    ),
    Operation(
        method="GET",
        path="/openapi.json",
        right=None,
        id="openapi",
        tag=SERVICE,
        summary="This description",
        media_types=("application/json",),
    ),
    Operation(
        method="GET",
        path="/docs",
        right=None,
        id="docs",
        tag=SERVICE,
        summary="This description as a page",
        media_types=("text/html",),
    ),
    Operation(
        method="GET",
        path="/",
        right=None,
        id="root",
        tag=SERVICE,
        summary="Redirects to the page",
        status=302,
    ),
)

RIGHTS = {(operation.method, operation.path): operation.right for operation in OPERATIONS}
"""What a caller needs for each route."""
