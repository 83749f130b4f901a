"""The breakers of single callers and bodies: how many are kept, and for how long."""

from rollout.resilience.own import MOST, OwnScopes
from rollout.resilience.scope import LONGEST_REST
from rollout.resilience.source import Mark


class Asked:
    """A request that counts how often it was looked at."""

    def __init__(self, mark: Mark) -> None:
        self.looked_at = 0
        self._mark = mark

    def mark(self) -> Mark:
        self.looked_at += 1
        return self._mark


def test_nobody_is_looked_at_until_somebody_fails() -> None:
    own, asked = OwnScopes(None), Asked(Mark(1, 2))
    assert own.mark_of(asked) is None
    own.of(Mark(3, 4), 0.0)
    assert (own.mark_of(asked), asked.looked_at) == (Mark(1, 2), 1)


def test_a_caller_and_a_body_have_breakers_of_their_own_and_an_unknown_caller_its_bodys() -> None:
    own = OwnScopes(None)
    caller, body = own.of(Mark(1, 2), 0.0)
    assert own.known(Mark(1, 9), 0.0) == [caller]
    assert own.known(Mark(8, 2), 0.0) == [body]
    assert own.known(Mark(2, 1), 0.0) == [], "a caller is no body, whatever its number"
    assert len(own.of(Mark(5, 5), 0.0)) == 1


def test_only_so_many_are_kept_and_those_that_fail_on_stay() -> None:
    own = OwnScopes(None)
    first = own.of(Mark(0, 0), 0.0)
    for each in range(1, 3 * MOST):
        own.of(Mark(each, each), 0.0)
        assert own.of(Mark(0, 0), 0.0) == first
    assert sum(bool(own.known(Mark(each, each), 0.0)) for each in range(3 * MOST)) == MOST


def test_they_are_forgotten_some_time_after_the_last_failure() -> None:
    own = OwnScopes(None)
    own.of(Mark(1, 2), 10.0)
    assert own.known(Mark(1, 2), 10.0 + LONGEST_REST)
    assert own.known(Mark(1, 2), 11.0 + LONGEST_REST) == []
    assert own.mark_of(Asked(Mark(1, 2))) is None
