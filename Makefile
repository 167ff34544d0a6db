# Each target bootstraps what it needs from a bare python3 (3.11 or newer, with its venv module) and make.
UV := .tools/bin/uv
RUN := $(UV) run --frozen --all-extras

# Modules are compiled once, not at every start of a process, whatever the caller's environment says.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test slow check bench clean

demo: .venv/ready
	$(RUN) malpighi run mini --work runs/demo

test: .venv/ready
	$(RUN) pytest

slow: .venv/ready
	$(RUN) pytest -m slow

check: .venv/ready
	$(RUN) ruff format --check src tests benchmarks
	$(RUN) ruff check src tests benchmarks
	$(RUN) mypy

bench: .venv/ready
	for script in benchmarks/*.py; do $(RUN) python $$script --quick || exit 1; done

clean:
	rm -rf .venv .tools runs

$(UV):
	@command -v python3 >/dev/null || { echo "python3 (3.11 or newer) is needed; install it and run make again"; exit 1; }
	@python3 -m venv .tools || { echo "python3's venv module is needed (Debian: apt install python3-venv)"; exit 1; }
	.tools/bin/pip install --quiet --disable-pip-version-check uv==0.13.8

.venv/ready: $(UV) pyproject.toml uv.lock
	$(UV) sync --frozen --all-extras
	@touch $@
