"""The tree of errors, as its module draws it."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rollout.domain import errors
from rollout.domain.errors import (
    InvalidValue,
    PreflightFailed,
    RateLimited,
    RolloutError,
    SendingFailed,
    StaleChange,
    StoreUnreachable,
)
from rollout.domain.failure import AttemptRecord, FailureKind
from rollout.domain.flag import Flag, Path


def drawn() -> dict[str, str]:
    """Return each error of the drawing with the one it hangs on."""
    assert errors.__doc__ is not None
    line: list[str] = []
    found: dict[str, str] = {}
    for text in errors.__doc__.splitlines():
        match = re.match(r"^    (.*?)([A-Z]\w+)(  |$)", text)
        if match is None:
            continue
        depth = len(match[1]) // 4
        line[depth:] = [match[2]]
        if depth:
            found[match[2]] = line[depth - 1]
    return found


def test_the_tree_is_the_one_that_is_drawn() -> None:
    real = {
        name: thing.__base__.__name__
        for name, thing in vars(errors).items()
        if isinstance(thing, type) and issubclass(thing, RolloutError) and thing is not RolloutError and thing.__base__
    }
    assert drawn() == real
    assert len(real) >= 15


def test_every_error_says_its_sentence_and_what_was_sent() -> None:
    refused = InvalidValue("say which", field="user")
    assert (refused.message, refused.field, tuple(refused.attempts)) == ("say which", "user", ())
    assert StoreUnreachable("the database does not answer").message == str(
        StoreUnreachable("the database does not answer")
    )
    assert RolloutError().message == "RolloutError"


@pytest.mark.parametrize("error", [SendingFailed, RateLimited])
def test_what_failed_on_the_way_keeps_its_attempts(error: type[SendingFailed]) -> None:
    failed = error("no one answered", attempts=["first", "second"], status=429, retry_after=1.5, decision="direct")
    assert (failed.attempts, failed.status, failed.retry_after) == (("first", "second"), 429, 1.5)
    assert failed.decision == "direct"


def test_refused_changes_carry_what_the_caller_needs_next() -> None:
    stale = StaleChange("changed meanwhile", current={"share": 1}, seen=2, now=3)
    assert (stale.current, stale.seen, stale.now, stale.message) == ({"share": 1}, 2, 3, "changed meanwhile")
    preflight = PreflightFailed(["one", "two"])
    assert preflight.problems == ("one", "two")
    assert "one; two" in preflight.message


ATTEMPT = AttemptRecord(Path.LITELLM, "a/b:free", 503, FailureKind.SERVER_ERROR, 12.0)
ARGUMENTS: dict[type[RolloutError], dict[str, Any]] = {
    StaleChange: {"current": Flag("enableLiteLLM", "salt"), "seen": 2, "now": 3},
    SendingFailed: {"attempts": [ATTEMPT], "status": 503, "retry_after": 1.5, "decision": ("a", 1)},
    errors.InvalidRequest: {"field": "user"},
}


def tree(root: type[RolloutError] = RolloutError) -> Iterator[type[RolloutError]]:
    yield root
    for kind in root.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield from tree(kind)


def made(kind: type[RolloutError]) -> RolloutError:
    if kind is PreflightFailed:
        return PreflightFailed(["one", "two"])
    return kind("the sentence", **next((ARGUMENTS[each] for each in kind.__mro__ if each in ARGUMENTS), {}))


@pytest.mark.parametrize("again", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("kind", list(tree()))
def test_every_error_survives_a_process_pool_and_a_copy(
    kind: type[RolloutError], again: Callable[[RolloutError], RolloutError]
) -> None:
    error = made(kind)
    error.attempts = (ATTEMPT,)
    error.add_note("a note")
    copied = again(error)
    assert type(copied) is kind
    assert (copied.message, str(copied), copied.args) == (error.message, str(error), error.args)
    assert vars(copied) == vars(error)
    assert copied.attempts == (ATTEMPT,)
