"""What every test may use."""

import pytest
from hypothesis import settings

# the same examples on every machine, however slow it is
settings.register_profile("rollout", deadline=None, derandomize=True)
settings.load_profile("rollout")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Asynchronous tests run on asyncio, the loop the product is made for."""
    return "asyncio"
