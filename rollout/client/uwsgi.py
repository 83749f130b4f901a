"""What uWSGI says of itself to the Python it embeds; nothing where no uWSGI runs us.

It forks its workers after the application is loaded and runs none of Python's fork hooks, so that a thread of the
parent's may leave a worker that hangs. Unless it is told to, it runs an application's threads only while a request
of the same worker waits.
"""

from __future__ import annotations

import sys
from typing import Any


def forks_later() -> bool:
    """Tell whether this process loads an application for the workers that it forks afterwards."""
    host = _host()
    try:
        return host is not None and not (host.worker_id() or host.mule_id() or host.i_am_the_spooler())
    except Exception:  # noqa: BLE001 - something else of that name
        return False


def without_threads() -> bool:
    """Tell whether this process was told to run no threads of the application's."""
    host = _host()
    if host is None:
        return False
    try:
        options = {name.decode() if isinstance(name, bytes) else str(name) for name in host.opt}
    except Exception:  # noqa: BLE001 - as above
        return False
    return not options & {"enable-threads", "threads"}


def _host() -> Any:
    found = sys.modules.get("uwsgi")
    return found if found is not None and hasattr(found, "worker_id") else None
