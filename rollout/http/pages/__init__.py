"""The admin pages: rendered here, working without scripts; htmx asks the same routes for pieces.

`router` holds the routes. `is_page` tells a page's request from a program's, and `page_error` answers its errors.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

from rollout.http.pages import audit, change, connect, flag, gateway, models, overrides, session, stop
from rollout.http.pages.failure import is_page, page_error

__all__ = ["PARTS", "is_page", "page_error", "router"]

PARTS: Final = tuple(part.router for part in (flag, change, stop, overrides, audit, gateway, models, connect, session))

router = APIRouter(include_in_schema=False)
for _part in PARTS:
    router.include_router(_part)
