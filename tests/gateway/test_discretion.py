"""What of LiteLLM's output is kept. The real one is asked in test_litellm."""

from pathlib import Path

import pytest

from rollout.gateway.discretion import LEFT_OUT, Discretion

ENVIRONMENT = Path("/data/litellm")
START = b"yaml: a word of the start\nLiteLLM: Proxy initialized with Config, Set models:\n"
HEAD = b"02:28:38 - LiteLLM Proxy:ERROR: common.py:1687 - litellm.proxy.handle(): "
CALL = b"litellm_call_id=24bf402d-7ae5-4a01-9908-571439ed97da"
RECORD = (
    HEAD + b"Exception occured - " + CALL + b" - litellm.APIError: Original Response: {\n"
    b' "content": "a secret word\n'
    b"of two lines\n"
    b'  File "/home/anna/secret.py", line 3, in secret\n'
    b"Traceback (most recent call last):\n"
    b'  File "/data/litellm/lib/main.py", line 687, in acompletion\n'
    b'    response = await ask("secret")\n'
    b"a.b.MaskedHTTPStatusError: Server error '500 secret' for url\n"
    b"litellm.APIError: Original Response: secret\n"
)


def kept(output: bytes, step: int = 1_000_000) -> bytes:
    pieces: list[bytes] = []
    with Discretion(pieces.append, environment=ENVIRONMENT) as discretion:
        for start in range(0, len(output), step):
            discretion.write(output[start : start + step])
    return b"".join(pieces)


@pytest.mark.parametrize("step", [1, 7, 1_000_000])
def test_an_error_is_kept_by_name_and_place_and_never_in_its_words(step: int) -> None:
    said = kept(START + RECORD, step)
    assert said.startswith(START)
    assert said.split(b"--\n")[1].splitlines() == [
        b"02:28:38 - LiteLLM Proxy:ERROR: common.py:1687 - litellm.proxy.handle() "
        + CALL
        + b" litellm.APIError "
        + LEFT_OUT,
        b"Traceback (most recent call last):",
        b'  File "/data/litellm/lib/main.py", line 687, in acompletion',
        b"a.b.MaskedHTTPStatusError: HTTP 500",
        b"litellm.APIError",
    ]


def test_all_of_a_start_is_kept_for_nobody_was_served_yet() -> None:
    said = b"Traceback (most recent call last):\n  any words\nOSError: port 4000 is taken"
    assert kept(said) == said + b"\n"


def test_what_answers_is_serving_whatever_it_says_of_itself() -> None:
    pieces: list[bytes] = []
    with Discretion(pieces.append, environment=ENVIRONMENT) as discretion:
        discretion.serving()
        discretion.write(b"a question of mine\n")
    assert b"question" not in b"".join(pieces)


@pytest.mark.parametrize("step", [1_000, 16_384, 10_000_000])
def test_a_line_without_end_is_held_back_in_part_and_kept_in_none(step: int) -> None:
    long = HEAD + b"x" * 20_000 + b"\nsecret" + b"s" * 100_000 + b" litellm.SecretError: secret\nKeyError: 'secret'\n"
    said = kept(START + long, step)
    assert b"ecret" not in said
    assert said.endswith(HEAD.removesuffix(b": ") + b" " + LEFT_OUT + b"\nKeyError\n")
