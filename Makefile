# `make demo` and `make test` work in a fresh clone; everything is installed into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= out/demo
# System packages that Open3D needs.
APT := libusb-1.0-0 libgl1 libegl1 libx11-6

.PHONY: core demo test fuzz lint format install system chromium nerfstudio clean
.DEFAULT_GOAL := install

install: $(BIN)/.installed

core: $(BIN)/.core

# Installs again only when pyproject.toml has changed. The core is small; the extras include torch.
$(BIN)/.core: pyproject.toml | system
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	touch $@

$(BIN)/.installed: pyproject.toml | system
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev,batch,colmap,export,exr,heic,mast3r,record3d,sam]'
	touch $@

# Linux with apt only; elsewhere Open3D needs no system packages.
system:
	@command -v dpkg >/dev/null || exit 0; \
	missing=$$(for each in $(APT); do \
	    dpkg -s $$each 2>/dev/null | grep -q '^Status: .* installed' || echo $$each; done); \
	test -n "$$missing" || exit 0; \
	if [ "$$(id -u)" = 0 ]; then as_root=; \
	elif sudo -n true 2>/dev/null; then as_root='sudo -n'; \
	else echo "Open3D needs: sudo apt-get install $$missing" | tr '\n' ' ' >&2; echo >&2; exit 1; fi; \
	$$as_root apt-get update -qq && \
	$$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
	    $$missing >/dev/null

demo: core
	$(BIN)/lift3d demo --out $(OUT)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint chromium
	$(BIN)/pytest -q -n 2

# Damaged inputs for every reader, more of them than `make test` tries.
fuzz: install
	$(BIN)/python tests/fuzz/fuzz.py --inputs 5000 --seeds 6
	$(BIN)/python tests/fuzz/fuzz.py --inputs 1000 --models

# For the tests of the page, which are skipped where it cannot be installed.
chromium:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || { \
	command -v dpkg >/dev/null && { [ "$$(id -u)" = 0 ] || sudo -n true 2>/dev/null; } && \
	{ [ "$$(id -u)" = 0 ] && as_root= || as_root='sudo -n'; \
	  $$as_root apt-get update -qq && $$as_root env DEBIAN_FRONTEND=noninteractive \
	    apt-get install -qq -y --no-install-recommends chromium >/dev/null; }; } || \
	echo "the tests of the page are skipped; they need: apt-get install chromium" >&2

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Test our exports with nerfstudio's own data parsers: 2 GB, in a separate environment because
# nerfstudio pins old libraries. Not part of `make test`, where these tests skip without it.
NERFSTUDIO := $(VENV)/nerfstudio
nerfstudio: install
	test -x $(NERFSTUDIO)/bin/python || $(PYTHON) -m venv $(NERFSTUDIO)
	$(NERFSTUDIO)/bin/python -m pip install -qq --disable-pip-version-check 'torch==2.13.0' \
	    'numpy<2' rich rawpy 'opencv-python-headless==4.10.0.84' jaxtyping msgspec imageio \
	    tensorboard matplotlib tqdm requests appdirs scipy simplejson 'viser==0.2.7' open3d-cpu
	$(NERFSTUDIO)/bin/python -m pip install -qq --disable-pip-version-check --no-deps \
	    'nerfstudio==1.1.5'
	LIFT3D_NERFSTUDIO=$(NERFSTUDIO)/bin/python $(BIN)/pytest -q tests/test_export_nerfstudio.py

clean:
	rm -rf $(VENV) out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
