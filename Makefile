STUDY ?= configs/study/quick.yaml
export FORCE

.PHONY: study test setup test-setup clean

study: setup  ## install what is missing, run the study, write its report
	@.venv/bin/python -m launch study $(STUDY)

test: test-setup  ## ruff, mypy --strict, all tests
	@.ci/test

setup:  ## the .venv and the system packages it needs
	@.ci/setup

test-setup:
	@.ci/setup test

clean:  ## remove caches; runs/, data/ and .venv stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache build *.egg-info
	find pretrain launch eval tests -name __pycache__ -type d -prune -exec rm -rf {} +
