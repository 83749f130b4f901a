"""A real Chromium, started the same way by every test."""

from __future__ import annotations

import os
import shutil

from playwright.sync_api import Browser, Playwright

# without these it looks for its makers' hosts at every start
_QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def launch(playwright: Playwright) -> Browser:
    """Start a headless Chromium: the one the test runner found, one on the PATH, or Playwright's own."""
    path = os.environ.get("ROLLOUT_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    return playwright.chromium.launch(executable_path=path, args=_QUIET)
