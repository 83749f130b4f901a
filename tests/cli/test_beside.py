"""The first cascade, ours until a person sets one; and where the simulator listens."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rollout.cli.beside import MAX_PORT, first_cascade, simulator_port
from rollout.control.installation import establish, set_cascade
from rollout.domain.actor import Actor, ActorKind
from rollout.domain.cascade import ListedModel
from rollout.store.door import Door
from rollout.store.engine import database_url, open_engine
from rollout.store.flags import read_cascade
from rollout.store.migrate import upgrade

SIMULATED = (ListedModel("lumen/one:free", free=True), ListedModel("lumen/two:free", free=True))
REAL = (ListedModel("author/real:free", free=True, tools=True), ListedModel("author/paid", free=False))


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    engine = open_engine(database_url(None, tmp_path))
    upgrade(engine)
    door = Door(engine)
    establish(door, new_id=lambda: "installation")
    yield door
    engine.dispose()


def cascade(door: Door) -> tuple[str, ...]:
    with door.reading() as connection:
        return read_cascade(connection).models


def test_the_first_cascade_is_what_is_free_today(door: Door) -> None:
    first_cascade(door, REAL)
    assert cascade(door) == ("author/real:free",)


def test_a_cascade_chosen_for_the_simulator_gives_way_to_the_real_upstreams(door: Door) -> None:
    first_cascade(door, SIMULATED)
    first_cascade(door, REAL)
    assert cascade(door) == ("author/real:free",)


def test_a_cascade_that_still_works_in_part_is_left_alone(door: Door) -> None:
    first_cascade(door, SIMULATED)
    first_cascade(door, (SIMULATED[1], *REAL))
    assert cascade(door) == ("lumen/one:free", "lumen/two:free")


def test_a_cascade_that_a_person_set_is_never_touched(door: Door) -> None:
    set_cascade(door, ["author/mine:free"], actor="eva")
    first_cascade(door, REAL)
    assert cascade(door) == ("author/mine:free",)


@pytest.mark.parametrize("name", ["rollout", Actor("rollout", ActorKind.TOKEN)])
def test_a_cascade_set_by_somebody_with_our_name_is_never_touched_either(door: Door, name: str) -> None:
    set_cascade(door, ["author/mine:free"], actor=name)
    first_cascade(door, REAL)
    assert cascade(door) == ("author/mine:free",)


def test_an_upstream_without_free_models_changes_nothing(door: Door) -> None:
    first_cascade(door, (ListedModel("author/paid", free=False),))
    assert cascade(door) == ()


def two_free_ports() -> int:
    """Return a port of which the next two are free."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            ours: int = probe.getsockname()[1]
        try:
            with socket.create_server(("127.0.0.1", ours + 1)), socket.create_server(("127.0.0.1", ours + 2)):
                return ours
        except (OSError, OverflowError):
            continue


def test_the_simulator_listens_next_to_us_and_never_where_litellm_will() -> None:
    ours = two_free_ports()
    assert simulator_port(ours, taken=None) == ours + 1
    assert simulator_port(ours, taken=4000) in (ours + 1, ours + 2)
    assert simulator_port(ours, taken=ours + 1) == ours + 2
    with socket.create_server(("127.0.0.1", ours + 2)):
        assert simulator_port(ours, taken=ours + 1) == 0
    assert simulator_port(0, taken=None) == simulator_port(MAX_PORT, taken=None) == 0
