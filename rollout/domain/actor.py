"""Who changed something: a name, and what kind of actor bears it.

A name alone proves little: a person may be called `rollout`, or `token deploy`. The kind says which door the actor
came through, and nobody can choose it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, Self


class ActorKind(StrEnum):
    """What kind of actor made a change."""

    PERSON = "person"  # a session, or an account of the operating system at the terminal
    TOKEN = "token"  # noqa: S105 - a kind's name
    SYSTEM = "system"  # the program by itself


class Actor(str):
    """An actor's name, with its kind; text without a kind is the name of a person."""

    __slots__ = ("kind",)
    kind: ActorKind

    def __new__(cls, name: str, kind: ActorKind) -> Self:
        """Name an actor."""
        made = super().__new__(cls, name)
        made.kind = kind
        return made

    def __getnewargs__(self) -> tuple[Any, ...]:  # copies and pickles keep the kind
        return str(self), self.kind


SYSTEM: Final = Actor("rollout", ActorKind.SYSTEM)
"""The actor of what the program does by itself."""


def kind_of(actor: str) -> ActorKind:
    """Return the kind of an actor."""
    return actor.kind if isinstance(actor, Actor) else ActorKind.PERSON


def kind_read(value: object) -> ActorKind | None:
    """Return the kind that an entry's text names; None if it names none, as entries before there were kinds."""
    try:
        return ActorKind(str(value))
    except ValueError:
        return None
