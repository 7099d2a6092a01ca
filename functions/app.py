"""The Chalice app: every function of Lookalike, one blueprint a file in ``chalicelib``."""

from __future__ import annotations

from chalice.app import Chalice

from chalicelib import (
    catalogue,
    compact,
    description,
    embed,
    explanations,
    query,
    reindex,
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
http = (query, explanations, catalogue, uploads, description)
for part in (*http, embed, sweep, compact, reindex):
    app.register_blueprint(part.blueprint)
