"""The Chalice app: every function of Lookalike, one blueprint a file in ``chalicelib``."""

from __future__ import annotations

from chalice.app import Chalice

from chalicelib import (
    catalogue,
    clusters,
    compact,
    description,
    embed,
    explanations,
    feedback,
    findings,
    health,
    project,
    query,
    recluster,
    reindex,
    rollup,
    sweep,
    uploads,
)
from chalicelib.api import problems_of_the_framework
from chalicelib.log import log_requests

# Logging is set up in chalicelib.log; Chalice's own handler would write every line twice.
app = Chalice(app_name="lookalike", configure_logs=False)
# Bodies of bytes are chalicelib.api's affair.
app.api.binary_types = []
app.register_middleware(log_requests, "http")
app.register_middleware(problems_of_the_framework, "http")
http = (query, explanations, catalogue, clusters, findings, feedback, uploads, description)
scheduled = (sweep, compact, reindex, recluster, project, health, rollup)
for part in (*http, embed, *scheduled):
    app.register_blueprint(part.blueprint)
