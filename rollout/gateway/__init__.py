"""LiteLLM as another process: its environment, its configuration, its supervision. Never imported."""
