"""Logs: one line per record, and no secret in any of them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from rollout.logs import set_up_logging

SECRET = 'sk-or-v1-"quoted"-åäö'


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Give the process its logging back."""
    root, quiet = logging.getLogger(), logging.getLogger("httpx")
    before, level, quiet_level = root.handlers[:], root.level, quiet.level
    root.handlers = []
    yield
    logging.captureWarnings(capture=False)
    root.handlers, root.level, quiet.level = before, level, quiet_level


def test_a_record_is_one_line_of_json_with_its_extras() -> None:
    stream = io.StringIO()
    set_up_logging(json=True, stream=stream)
    logging.getLogger("rollout.x").warning("two\nlines %s", 5, extra={"revision": 7, "who": object})
    document = json.loads(stream.getvalue())
    assert stream.getvalue().count("\n") == 1
    assert (document["level"], document["logger"], document["message"]) == ("warning", "rollout.x", "two\nlines 5")
    assert document["revision"] == 7
    assert document["ts"].endswith("Z")


@pytest.mark.parametrize("as_json", [True, False])
def test_a_secret_never_passes_whatever_carries_it(*, as_json: bool) -> None:
    stream = io.StringIO()
    set_up_logging(json=as_json, stream=stream, secrets=[SECRET, None, "", "abc"])
    log = logging.getLogger("rollout.x")
    log.error("abc %s", SECRET, extra={"key": SECRET})
    try:
        raise ValueError(SECRET)
    except ValueError:
        log.exception("it failed")
    said = stream.getvalue()
    assert "quoted" not in said
    assert said.count("***") >= 2
    assert "abc" in said, "a value too short to be a secret blanks nothing out"


def test_setting_up_again_replaces_what_was_there() -> None:
    first, second = io.StringIO(), io.StringIO()
    set_up_logging(json=False, stream=first)
    set_up_logging(json=False, stream=second, level="WARNING")
    logging.getLogger("rollout").warning("once")
    logging.getLogger("rollout").info("never")
    assert first.getvalue() == ""
    assert second.getvalue().endswith("WARNING rollout: once\n")
    assert second.getvalue().count("\n") == 1
