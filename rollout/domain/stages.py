"""The stages of the plan: forced testers only, early adopters, half, everybody."""

from __future__ import annotations

from typing import Final

STAGES: Final = (0, 10_000, 50_000, 100_000)
"""Shares in parts per 100,000."""
