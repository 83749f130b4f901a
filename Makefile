# rollout: everything a checkout can do. `make help` lists it.

SET_UP     = python=$$(PYTHON='$(PYTHON)' sh bin/find-python) && "$$python" bin/setup.py
IN_VENV    = .venv/bin/python
UV_COMPILE = UV_NO_CONFIG=1 uv pip compile --universal --python-version 3.11 --generate-hashes \
             --no-header --no-annotate --quiet
UNIT_TESTS = tests/domain tests/resilience tests/wire tests/client tests/control tests/test_floors.py tests/test_settings.py
FAST_TESTS = not postgres and not litellm and not browser and not processes and not slow

.DEFAULT_GOAL := help
.PHONY: help run test soak check bench locks clean

help: ## list what can be done
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

run: ## set up, then run the control plane, the completions endpoint and LiteLLM (ARGS=... for rollout up)
	@$(SET_UP) .venv locks/run.txt locks/dev.txt
	@exec .venv/bin/rollout up $(ARGS)

test: ## set up, then run every test, the real parts included, with coverage (ARGS=... for pytest)
	@$(SET_UP) .venv locks/dev.txt
	@exec $(IN_VENV) bin/test.py $(ARGS)

soak: ## set up, then minutes of mixed faults under load, beside LiteLLM alone
	@$(SET_UP) .venv locks/dev.txt
	@exec $(IN_VENV) bin/test.py -m soak -s

check: ## formatter, linter, types and the unit tests, under a minute
	@$(SET_UP) .venv locks/dev.txt
	$(IN_VENV) -m ruff format --check .
	$(IN_VENV) -m ruff check .
	$(IN_VENV) -m mypy --explicit-package-bases
	$(IN_VENV) -m pytest -q -m "$(FAST_TESTS)" $(UNIT_TESTS)

bench: ## benchmarks with peers side by side (ARGS=... for bench)
	@$(SET_UP) .bench-venv locks/bench.txt
	@.bench-venv/bin/python -m rollout.gateway.install --into .cache/litellm
	@.bench-venv/bin/python -m bench.portkey
	@exec .bench-venv/bin/python -m bench $(ARGS)

locks: ## make the hash locks anew from pyproject.toml (needs uv and npm)
	$(UV_COMPILE) --extra server --extra postgres pyproject.toml -o locks/server.txt
	$(UV_COMPILE) --extra server --extra postgres --group build pyproject.toml -o locks/run.txt
	$(UV_COMPILE) --extra server --extra postgres --group dev pyproject.toml -o locks/dev.txt
	$(UV_COMPILE) --extra server --extra postgres --group build --group bench pyproject.toml -o locks/bench.txt
	$(UV_COMPILE) locks/litellm.in -o locks/litellm.txt
	$(UV_COMPILE) --group build pyproject.toml locks/openai2.in -o locks/openai2.txt
	$(UV_COMPILE) --group build pyproject.toml locks/applications.in -o locks/applications.txt
	cd tests/applications/ai_sdk && npm install --package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund
	$(UV_COMPILE) --group build pyproject.toml locks/prefork.in -o locks/prefork.txt

clean: ## remove environments and caches; ./data stays
	rm -rf .venv .bench-venv .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
