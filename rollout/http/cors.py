"""Let pages of named origins call the completions endpoint from a browser (the Fetch standard's CORS protocol).

Without a setting there is none of this: a browser then asks with OPTIONS, hears 405, and sends nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.middleware.cors import CORSMiddleware

from rollout.http.security import App

EXPOSED: Final = (
    "Retry-After",
    "X-Rollout-Attempt-Log",
    "X-Rollout-Attempts",
    "X-Rollout-Bucket",
    "X-Rollout-Cause",
    "X-Rollout-Gateway-Rewrites",
    "X-Rollout-Model",
    "X-Rollout-Model-Substituted",
    "X-Rollout-Path",
    "X-Rollout-Reason",
    "X-Rollout-Request-Id",
    "X-Rollout-Revision",
    "X-Rollout-Served-By",
    "X-Rollout-Upstream",
    "X-Should-Retry",
)
"""What a page may read of an answer beside its body."""


def allow_origins(app: App, origins: Sequence[str]) -> App:
    """Put the answers to browsers around an app: preflights, and the origins that may read what it says.

    Credentials are not allowed: an access token travels in a header that the page sets itself, and the session's
    cookie opens nothing here. Any request header is allowed, because client libraries send their own.
    """
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=("*",),
        expose_headers=EXPOSED,
    )
