"""Decide which path a user takes: pure, total, and the first rule that applies wins.

    1 kill                      -> openrouter   DISABLED         kill_switch
    2 override of this user     -> on / off     TARGETING_MATCH  override
    3 flag disabled             -> openrouter   DISABLED         flag_disabled
    4 (rules on attributes have their place here)
    5 share 0 or 100 %          -> off / on     STATIC           percentage
    6 no targeting key          -> openrouter   DEFAULT          no_targeting_key
    7 bucket < share            -> on / off     SPLIT            percentage
    - nothing known             -> openrouter   DEFAULT          no_snapshot
    - the flag cannot be read   -> openrouter   ERROR            broken_flag

A flag is compiled once into a `Decider` and asked often. Nothing here raises: on any doubt the answer is the
direct path, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from math import inf
from typing import Final, NamedTuple, TypeGuard

import mmh3

from rollout.domain.bucketing import HASH_VERSION, bucket_of, salt_prefix
from rollout.domain.flag import MAIN_FLAG, PUBLISHED_SALT, BrokenFlag, Flag, Path, Variant
from rollout.domain.identity import user_id
from rollout.domain.local import SILENT, LocalOverrides
from rollout.domain.share import WHOLE


class Reason(StrEnum):
    """Why, in the words of OpenFeature."""

    STATIC = "STATIC"
    TARGETING_MATCH = "TARGETING_MATCH"
    SPLIT = "SPLIT"
    DISABLED = "DISABLED"
    DEFAULT = "DEFAULT"
    ERROR = "ERROR"


class Cause(StrEnum):
    """Why, in this product's words; finer than the reason."""

    KILL_SWITCH = "kill_switch"
    OVERRIDE = "override"
    FLAG_DISABLED = "flag_disabled"
    PERCENTAGE = "percentage"
    NO_TARGETING_KEY = "no_targeting_key"
    NO_SNAPSHOT = "no_snapshot"
    BROKEN_FLAG = "broken_flag"
    UNKNOWN_FLAG = "unknown_flag"


class Evaluation(NamedTuple):
    """One decision with its evidence.

    `bucket` is an integer in [0, 100000), None where the decision needed none. `share` is in parts per
    100,000. `revision` is the flag's own (0 without a snapshot), `snapshot_age` in seconds (None without one).
    """

    flag: str
    path: Path
    variant: Variant
    value: bool
    reason: Reason
    cause: Cause
    bucket: int | None
    share: int
    revision: int
    snapshot_age: float | None
    hash_version: int


Side = tuple[Path, Variant, bool]

_ON: Final[Side] = Path.LITELLM, Variant.ON, True
_OFF: Final[Side] = Path.OPENROUTER, Variant.OFF, False


class Decider:
    """A flag compiled together with what the process's environment says of it.

    `evaluate(targeting_key, now, snapshot_age)` returns the decision with its evidence; `is_on(targeting_key,
    now)` returns the same decision's value alone. `targeting_key` is the user's id: a string, or something
    whose `str()` is the id; None and empty are nobody. `now` is in seconds since the epoch, for overrides that
    expire; `snapshot_age`, in seconds, is carried into the evaluation.

    Args:
        flag: the flag as stored, a broken one, or None where no snapshot was ever seen.
        local: this process's overrides; they matter for `enableLiteLLM` alone.
        key: the flag's key, needed only where `flag` is None.
        salt: the salt where `flag` is None; the published constant unless the installation chose another.
    """

    __slots__ = ("_prefix", "evaluate", "is_on")

    evaluate: Callable[[object, float, float | None], Evaluation]
    is_on: Callable[[object, float], bool]

    def __init__(
        self,
        flag: Flag | BrokenFlag | None,
        local: LocalOverrides = SILENT,
        *,
        key: str = MAIN_FLAG,
        salt: str = PUBLISHED_SALT,
    ) -> None:
        key = flag.key if flag is not None else key
        local = local if key == MAIN_FLAG else SILENT
        stored = flag if isinstance(flag, Flag) else None
        share = local.share if local.share is not None else stored.share if stored else 0
        killed = local.killed or bool(stored and stored.killed)
        self._prefix: bytes = salt_prefix(stored.salt if stored else salt)
        self.evaluate, self.is_on = _compile(
            key=key,
            killed=killed,
            # a killed flag answers before it asks who is forced, of whom there may be very many
            forced={} if killed else _forced(flag, local),
            constant=_constant(flag, local, share),
            prefix=self._prefix,
            share=share,
            revision=stored.revision if stored else 0,
        )

    def bucket(self, targeting_key: object) -> int | None:
        """Return where a user stands whatever the decision is; None for nobody."""
        user = targeting_key if type(targeting_key) is str else user_id(targeting_key)
        return bucket_of(self._prefix, user) if user else None


def _forced(flag: Flag | BrokenFlag | None, local: LocalOverrides) -> dict[str, tuple[Side, float]]:
    """Map users to what is forced on them and until when; the environment comes first and has no end."""
    if not _readable(flag):
        return {}  # it may be a killed one: nobody is forced on
    forced: dict[str, tuple[Side, float]] = {}
    if flag is not None:
        for user, override in flag.overrides.items():
            until = override.expires_at.timestamp() if override.expires_at else inf
            forced[user] = side = (_ON if override.variant is Variant.ON else _OFF, until)
            forced.setdefault(user_id(user), side)  # one that was stored before ids were trimmed
    forced.update(dict.fromkeys(map(user_id, local.force_users), (_ON, inf)))
    forced.pop("", None)  # nobody cannot be forced
    return forced


def _readable(flag: Flag | BrokenFlag | None) -> TypeGuard[Flag | None]:
    return not isinstance(flag, BrokenFlag) and (flag is None or flag.hash_version == HASH_VERSION)


def _constant(flag: Flag | BrokenFlag | None, local: LocalOverrides, share: int) -> tuple[Side, Reason, Cause] | None:
    """Return the answer that is the same for everybody who is not forced, None where buckets decide."""
    if not _readable(flag):
        return _OFF, Reason.ERROR, Cause.BROKEN_FLAG
    if flag is None and local.enabled is None and local.share is None:
        return _OFF, Reason.DEFAULT, Cause.NO_SNAPSHOT
    # an environment that names a share and nothing else means it
    enabled = local.enabled if local.enabled is not None else flag.enabled if flag else True
    if not enabled:
        return _OFF, Reason.DISABLED, Cause.FLAG_DISABLED
    if share <= 0:
        return _OFF, Reason.STATIC, Cause.PERCENTAGE
    if share >= WHOLE:
        return _ON, Reason.STATIC, Cause.PERCENTAGE
    return None


def _compile(
    *,
    key: str,
    killed: bool,
    forced: dict[str, tuple[Side, float]],
    constant: tuple[Side, Reason, Cause] | None,
    prefix: bytes,
    share: int,
    revision: int,
) -> tuple[Callable[[object, float, float | None], Evaluation], Callable[[object, float], bool]]:
    # Closures over constants, and a tuple made into a NamedTuple directly: a third of the time that attribute
    # look-ups and the NamedTuple's own constructor take.
    new: Callable[[type[Evaluation], tuple[object, ...]], Evaluation] = tuple.__new__
    hashed, find = mmh3.mmh3_32_uintdigest, forced.get
    on, off, variant_on, variant_off = Path.LITELLM, Path.OPENROUTER, Variant.ON, Variant.OFF
    split, percentage = Reason.SPLIT, Cause.PERCENTAGE

    def fixed(side: Side, reason: Reason, cause: Cause, age: float | None) -> Evaluation:
        return Evaluation(key, *side, reason, cause, None, share, revision, age, HASH_VERSION)

    def evaluate(targeting_key: object, now: float, snapshot_age: float | None = None) -> Evaluation:
        user = targeting_key if type(targeting_key) is str else user_id(targeting_key)
        if killed:
            return fixed(_OFF, Reason.DISABLED, Cause.KILL_SWITCH, snapshot_age)
        if (entry := find(user)) is not None and now < entry[1]:
            return fixed(entry[0], Reason.TARGETING_MATCH, Cause.OVERRIDE, snapshot_age)
        if constant is not None:
            return fixed(*constant, snapshot_age)
        if not user:
            return fixed(_OFF, Reason.DEFAULT, Cause.NO_TARGETING_KEY, snapshot_age)
        # `bucket_of`, written out: a call less on the hottest line
        bucket = (hashed(prefix + user.encode("utf-8", "surrogatepass"), 0) * WHOLE) >> 32
        if bucket < share:
            made = (key, on, variant_on, True, split, percentage, bucket, share, revision, snapshot_age, HASH_VERSION)
        else:
            made = (
                key,
                off,
                variant_off,
                False,
                split,
                percentage,
                bucket,
                share,
                revision,
                snapshot_age,
                HASH_VERSION,
            )
        return new(Evaluation, made)

    def is_on(targeting_key: object, now: float) -> bool:
        user = targeting_key if type(targeting_key) is str else user_id(targeting_key)
        if killed:
            return False
        if (entry := find(user)) is not None and now < entry[1]:
            return entry[0][2]
        if constant is not None:
            return constant[0][2]
        if not user:
            return False
        return (hashed(prefix + user.encode("utf-8", "surrogatepass"), 0) * WHOLE) >> 32 < share

    return evaluate, is_on


def unknown_flag(key: str) -> Evaluation:
    """Answer for a flag nobody made: the direct path."""
    return Evaluation(key, *_OFF, Reason.ERROR, Cause.UNKNOWN_FLAG, None, 0, 0, None, HASH_VERSION)


text_key: Final = user_id
"""Return a targeting key as text; empty for None and for anything that cannot be said as text."""
