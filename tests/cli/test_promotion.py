"""What an import would do and did, in sentences."""

import pytest

from rollout.cli.promotion import Change

ANNA = {"user": "anna", "variant": "on", "reason": "tester", "expires_at": None}
LATER = {"user": "anna", "variant": "off", "reason": None, "expires_at": "2026-12-01T02:00:00+02:00"}


@pytest.mark.parametrize(
    ("change", "done", "planned"),
    [
        (Change("cascade", None, {"models": ["a/b:free", "c/d:free"]}), "set", "set the cascade to a/b:free, c/d:free"),
        (
            Change("flag:f", {"percentage": 10}, {"percentage": 12.5}, "f"),
            "set",
            "set f from 10 % to 12.5 %",
        ),
        (
            Change("flag:f", {"enabled": True, "percentage": 10}, {"enabled": False, "percentage": 0}, "f"),
            "changed",
            "change f: enabled from yes to no, percentage from 10 % to 0 %",
        ),
        (Change("override:f", None, ANNA, "f", "anna"), "forced", "force anna on (tester) for f"),
        (
            Change("override:f", ANNA, LATER, "f", "anna"),
            "forced",
            "force anna off until 2026-12-01 00:00:00Z for f, instead of on (tester)",
        ),
        (Change("override:f", ANNA, None, "f", "anna"), "removed", "remove anna (forced on) from f"),
    ],
)
def test_a_difference_is_a_sentence_before_it_is_made_and_after(change: Change, done: str, planned: str) -> None:
    rest = planned.partition(" ")[2]
    assert change.sentence(planned=True, done=False) == f"would {planned}"
    assert change.sentence(planned=False, done=False) == f"did not {planned}"
    assert change.sentence(planned=False, done=True) == f"{done} {rest}"
