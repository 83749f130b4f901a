"""Who is asking: named in a block, kept across await and threads, and put back."""

import asyncio
import contextvars
import threading

from rollout.client.user import current_user, user, user_from_header


def test_a_block_names_the_user_and_its_end_puts_the_one_before_back() -> None:
    assert current_user() is None
    with user("ada") as named:
        assert named == current_user() == "ada"
        with user("bob"):
            assert current_user() == "bob"
        with user(None):
            assert current_user() is None
        assert current_user() == "ada"
    assert current_user() is None


def test_a_number_is_named_by_its_text_and_nothing_by_nothing() -> None:
    with user(42):
        assert current_user() == "42"
    with user("") as nobody:
        assert nobody is None


def test_one_object_may_be_entered_twice() -> None:
    ada = user("ada")
    with ada, user("bob"), ada:
        assert current_user() == "ada"
    assert current_user() is None


async def test_tasks_side_by_side_never_see_each_others_user() -> None:
    async def ask(name: str) -> str | None:
        with user(name):
            await asyncio.sleep(0)
            return current_user()

    names = [f"user-{number}" for number in range(50)]
    assert await asyncio.gather(*map(ask, names)) == names


async def test_a_copied_context_takes_the_user_into_a_thread() -> None:
    with user("ada"):
        assert await asyncio.to_thread(current_user) == "ada"
        seen: list[str | None] = []
        copied = contextvars.copy_context()
        thread = threading.Thread(target=lambda: seen.append(copied.run(current_user)))
        thread.start()
        thread.join()
    assert seen == ["ada"]


def test_a_block_left_in_another_context_raises_nothing() -> None:
    block = user("ada")
    contextvars.copy_context().run(block.__enter__)
    block.__exit__(None, None, None)
    assert current_user() is None


def test_headers_read_as_utf_8_else_as_latin_1() -> None:
    assert user_from_header(" sørén ".encode()) == "sørén"
    assert user_from_header("sørén".encode("latin-1")) == "sørén"
