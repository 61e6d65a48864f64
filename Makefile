# The verbs of a checkout. Each may be run twice.

.POSIX:
.PHONY: help up down destroy test soak bench dist

CARGO_TARGET_DIR ?= $(HOME)/.cache/platformer/target
export CARGO_TARGET_DIR

help:
	@echo "make up       build the platform and start it (on Docker; as one process where none answers)"
	@echo "make down     stop it; data stays"
	@echo "make destroy  take it away with its data (asks; FORCE=1 does not)"
	@echo "make test     all tests"
	@echo "make soak     readers fuzzed, lb beside nginx, haproxy and caddy, slow attacks, 10,000 idle clients and as many"
	@echo "              flips under every protocol, then deploys under load with random kills, 10 minutes"
	@echo "              (PLATFORMER_SOAK_SECONDS, _SEED)"
	@echo "make bench    the numbers of docs/benchmarks.md (SECTION=lb for one of them)"
	@echo "make dist     the release archive, in bin/"

up:
	@compose/up.sh

down:
	@compose/down.sh

destroy:
	@compose/destroy.sh

test:
	@tests/build.sh
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --cargo-profile ci --workspace; \
	else \
		cargo test --profile ci --workspace; \
	fi

soak:
	@tests/build.sh
	cargo test --profile ci -p lb-core --test fuzz -- --ignored --nocapture
	cargo test --profile ci --workspace --test daemon -- --ignored --nocapture
	cargo test --profile ci --workspace --test soak -- --ignored --nocapture

bench:
	@tests/bench.sh $(SECTION)

dist:
	@compose/dist.sh
