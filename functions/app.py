"""The Chalice app: every function of Lookalike, one blueprint a file in ``chalicelib``."""

from __future__ import annotations

from chalice.app import Chalice

from chalicelib import catalogue, compact, description, embed, query, reindex, sweep, uploads
from chalicelib.api import BINARY_TYPES, problems_of_the_framework

# Logging is set up in chalicelib.log; Chalice's own handler would write every line twice.
app = Chalice(app_name="lookalike", configure_logs=False)
app.api.binary_types = BINARY_TYPES
app.register_middleware(problems_of_the_framework, "http")
for part in (query, catalogue, uploads, description, embed, sweep, compact, reindex):
    app.register_blueprint(part.blueprint)
