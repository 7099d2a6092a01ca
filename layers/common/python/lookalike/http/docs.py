"""The page that shows the API's description, in one file that needs nothing from elsewhere."""

from __future__ import annotations

import functools
from pathlib import Path

from lookalike.http.message import HttpAnswer

# The page shows images from presigned URLs, whose host is S3's; everything else comes from here.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src * data: blob:; base-uri 'none'; form-action 'none'"
)


@functools.cache
def docs_page() -> HttpAnswer:
    """The page; it reads ``openapi.json`` beside itself."""
    html = Path(__file__).with_name("docs.html").read_text(encoding="utf-8")
    headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
    return HttpAnswer(200, html, "text/html; charset=utf-8", headers)
