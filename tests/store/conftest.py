"""Both databases, for every test in this folder."""

from tests.databases import clock, database, door, empty, kind, postgres

__all__ = ["clock", "database", "door", "empty", "kind", "postgres"]
