"""The one account all requests share: its free quota and what it has spent.

The free quota is one bucket per account over all `:free` models and keys; it refills at the full minute and
at 00:00 UTC. Attempts that fail later count too; what the quota itself refuses does not.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final, NamedTuple

_MINUTE: Final = 60
_DAY: Final = 86_400


class Window(StrEnum):
    """Which of the two free quotas is meant."""

    MINUTE = "minute"
    DAY = "day"


class Exhausted(NamedTuple):
    """A free quota that is used up, with its limit and the epoch milliseconds at which it refills."""

    window: Window
    limit: int
    reset_ms: int


class Account:
    """Counts free requests and money.

    Attributes:
        per_minute: free requests in one minute; 0 means no limit.
        per_day: free requests in one UTC day; 0 means no limit.
        is_free_tier: False once ten credits were bought.
        spend_limit: the key's limit in US dollars, or None; at the limit paid models are refused.
        spent: US dollars spent so far.
    """

    def __init__(self, clock: Callable[[], float], *, per_minute: int = 0, per_day: int = 0) -> None:
        self._clock = clock
        self.per_minute = per_minute
        self.per_day = per_day
        self.is_free_tier = True
        self.spend_limit: float | None = None
        self.spent: float = 0.0
        self._minute = self._day = -1
        self._used_minute = self._used_day = 0

    def _roll(self) -> None:
        now = int(self._clock())
        if now // _MINUTE != self._minute:
            self._minute, self._used_minute = now // _MINUTE, 0
        if now // _DAY != self._day:
            self._day, self._used_day = now // _DAY, 0

    def take(self) -> Exhausted | None:
        """Count one free request; return the used-up quota that refuses it, if any (the day's first)."""
        self._roll()
        for window in (Window.DAY, Window.MINUTE):
            limit = self.limit(window)
            used = self._used_day if window is Window.DAY else self._used_minute
            if limit and used >= limit:
                return Exhausted(window, limit, self.reset_ms(window))
        self._used_minute += 1
        self._used_day += 1
        return None

    def limit(self, window: Window) -> int:
        """Return the limit of one quota; 0 means none."""
        return self.per_day if window is Window.DAY else self.per_minute

    def reset_ms(self, window: Window) -> int:
        """Say when a quota refills next, in epoch milliseconds."""
        length = _DAY if window is Window.DAY else _MINUTE
        return (int(self._clock()) // length + 1) * length * 1000

    @property
    def used_today(self) -> int:
        """Count the free requests since 00:00 UTC."""
        self._roll()
        return self._used_day

    @used_today.setter
    def used_today(self, used: int) -> None:
        self._roll()
        self._used_day = used

    @property
    def out_of_money(self) -> bool:
        """Tell whether the key's spend limit refuses paid models."""
        return self.spend_limit is not None and self.spent >= self.spend_limit

    def key_document(self) -> dict[str, Any]:
        """Write the answer of `GET /key`; a limit that is off reads null."""
        remaining = None if self.spend_limit is None else max(0.0, self.spend_limit - self.spent)
        used, limit = self.used_today, self.per_day or None
        return {
            "label": "sk-or-v1-sim...ted",
            "limit": self.spend_limit,
            "limit_remaining": remaining,
            "limit_reset": None,
            "usage": self.spent,
            "usage_daily": self.spent,
            "usage_weekly": self.spent,
            "usage_monthly": self.spent,
            "is_free_tier": self.is_free_tier,
            "is_provisioning_key": False,
            "free_model_daily_requests": {
                "used": used,
                "limit": limit,
                "remaining": None if limit is None else max(0, limit - used),
            },
        }

    def settings_document(self) -> dict[str, Any]:
        """Write what the control route shows and accepts."""
        return {
            "per_minute": self.per_minute,
            "per_day": self.per_day,
            "used_today": self.used_today,
            "is_free_tier": self.is_free_tier,
            "spend_limit": self.spend_limit,
            "spent": self.spent,
        }
