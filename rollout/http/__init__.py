"""The control plane over HTTP: API, health, admin pages; the only FastAPI and Pydantic code."""
