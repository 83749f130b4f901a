import asyncio
import time

import pytest

from rollout.dispatch.within import Within


async def test_what_is_there_in_time_is_not_disturbed() -> None:
    with Within(5):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0)


async def test_what_is_late_is_cancelled_and_raises_and_leaves_no_cancellation_behind() -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError), Within(0.05):
        await asyncio.sleep(60)
    assert 0.04 < time.monotonic() - began < 5
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


@pytest.mark.parametrize("seconds", [0.0, -1.0])
async def test_no_time_at_all_is_late_at_the_first_wait(seconds: float) -> None:
    with pytest.raises(TimeoutError), Within(seconds):
        await asyncio.sleep(60)


async def test_each_of_many_limits_runs_out_at_its_own_time() -> None:
    ended: list[int] = []

    async def wait(number: int, seconds: float) -> None:
        try:
            with Within(seconds):
                await asyncio.sleep(60)
        except TimeoutError:
            ended.append(number)

    # the later ones first, so that the timer has to be set anew
    await asyncio.gather(*(wait(number, number * 0.03) for number in (4, 2, 3, 1)))
    assert ended == [1, 2, 3, 4]


async def test_a_cancellation_from_elsewhere_passes_as_one() -> None:
    async def block() -> None:
        with Within(60):
            await asyncio.sleep(60)

    task = asyncio.ensure_future(block())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_inner_limit_does_not_end_the_outer_block() -> None:
    with Within(60):
        with pytest.raises(TimeoutError), Within(0.01):
            await asyncio.sleep(60)
        await asyncio.sleep(0.01)
    with pytest.raises(TimeoutError), Within(0.01), Within(60):
        await asyncio.sleep(60)


async def test_another_error_passes() -> None:
    with pytest.raises(ZeroDivisionError), Within(60):
        raise ZeroDivisionError


def test_each_event_loop_has_its_own_timer() -> None:
    async def late() -> None:
        with pytest.raises(TimeoutError), Within(0.01):
            await asyncio.sleep(60)

    for _ in range(3):
        asyncio.run(late())
