"""Move an application's LLM traffic onto a new path, a share of users at a time."""
