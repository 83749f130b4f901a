"""Which backend a command reaches: the API of a running server, or the database. Each is loaded when it is needed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

import click

from rollout.cli.backend import Backend
from rollout.cli.frame import environ_of, settings_of
from rollout.domain.errors import InvalidRequest
from rollout.settings import Settings


def backend_of(context: click.Context) -> Backend:
    """Open the backend this process's environment names, until the command ends."""
    return context.with_resource(open_backend(settings_of(context), environ_of(context)))


def open_backend(settings: Settings, environ: Mapping[str, str]) -> AbstractContextManager[Backend]:
    """Open the API where ROLLOUT_URL is set, else the database.

    Raises:
        InvalidRequest: ROLLOUT_URL cannot be read, so which installation is meant is not known.
    """
    if any(problem.variable == "ROLLOUT_URL" for problem in settings.problems):
        # the database would be another installation than the one that was meant
        raise InvalidRequest("ROLLOUT_URL cannot be read; set it to http(s)://host:port, or unset it. Nothing was done")
    if settings.url is not None:
        from rollout.cli.backend_api import open_api

        return open_api(settings)
    from rollout.cli.backend_database import open_database

    return open_database(settings, environ)
