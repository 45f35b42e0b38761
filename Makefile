# All tasks of this project. `make` alone lists them.
#
# `build`, `demo`, `test`, `check` and `bench` install what they need: each works as the first command
# on a new machine.

export PATH := $(PATH):$(HOME)/.cargo/bin
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
SERIATIM   := $(TARGET_DIR)/release/seriatim
CARGO      := cargo
RUNS       ?= 100
# The number of random histories of the storage that `make proof` runs, and the seed of the first one.
HISTORIES  ?= 20000
# The number of simulated clusters that `make sim` runs.
SEEDS      ?= 10000
SEED       ?= 0
# Which end-to-end tests `make e2e` runs, and which decoders `make fuzz`. Empty: all of them.
ONLY       ?=
comma      := ,
# For each loop of `make fuzz`, for `make once` and `make chaos`, and for the busy machine of `make failover`.
MINUTES    ?= 1

.DEFAULT_GOAL := help
.PHONY: help deps first-build build certs demo test e2e scenario kill failover once upgrade power chaos disk-full hostile proof sim sim-faults fuzz prose update-golden check bench bench-cluster test-clients test-page test-decoders proto proto-check proto-baseline clean package package-debian11 test-package

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## install what the build needs from the system (apt, dnf, pacman, zypper, apk)
	@dist/deps.sh

first-build:
	@ls '$(TARGET_DIR)'/release/build/grpcio-sys-*/output >/dev/null 2>&1 || printf '%s\n' \
	    "First build: gRPC's C++ core is compiled once. This takes about 10 minutes on two idle cores, and 2 GB of disk." \
	    "At grpcio-sys, nothing is printed for some minutes. Later builds compile this program only."

build: deps first-build ## compile the program: $CARGO_TARGET_DIR/release/seriatim
	@$(CARGO) build --release --locked

certs: build ## issue development certificates into certs/ (never overwrites a CA)
	@if [ ! -e certs/ca.pem ]; then \
	    $(SERIATIM) certs --out certs --hosts localhost,127.0.0.1,$$(uname -n) --clients root,nobody; \
	elif [ ! -e certs/$$(uname -n)/peer.pem ]; then \
	    $(SERIATIM) certs --out certs --use-ca --peers $$(uname -n); \
	else \
	    echo "certs/ca.pem exists: nothing to do (start over with: git clean -xdf certs)"; \
	fi

demo: build ## three nodes, a real file, a killed leader, two equal checksums (FILE=... chooses the file)
	@SERIATIM='$(SERIATIM)' FILE='$(FILE)' dist/demo.sh

test: deps first-build ## run all tests, including a short kill loop
	@$(CARGO) test --release --locked

e2e: deps first-build ## run the end-to-end tests only; ONLY=name chooses some
	@$(CARGO) test --release --locked --test e2e -- $(ONLY)

scenario: deps first-build ## a scripted session with three nodes, and with one, RUNS times
	@SERIATIM_TEST_SCENARIO_RUNS=$(RUNS) $(CARGO) test --release --locked --test e2e scenario:: -- --nocapture --test-threads=1

kill: deps first-build ## kill -9 of random nodes under load, RUNS times with three nodes and with one
	@SERIATIM_TEST_KILL_RUNS=$(RUNS) $(CARGO) test --release --locked --test e2e kill:: -- --nocapture --test-threads=1

failover: deps first-build ## time without a leader: RUNS kills, a fifth as many stops, a tenth as many pauses; then MINUTES on a busy machine
	@SERIATIM_TEST_FAILOVER_RUNS=$(RUNS) SERIATIM_TEST_BUSY_MINUTES=$(MINUTES) \
	    $(CARGO) test --release --locked --test e2e failover:: -- --nocapture --test-threads=1

fuzz: deps first-build ## mutate the input of every decoder, MINUTES each, two at a time; ONLY=name chooses one
	@SERIATIM_FUZZ_MINUTES=$(MINUTES) $(CARGO) test --release --locked --lib fuzz::$(ONLY) -- \
	    --nocapture --test-threads=2 --skip mutates_and_measures

once: deps first-build ## eight producers while nodes are killed, stopped and trimmed, for MINUTES: each record is there once
	@SERIATIM_TEST_ONCE_MINUTES=$(MINUTES) $(CARGO) test --release --locked --test e2e exactly_once:: -- --nocapture

upgrade: deps first-build ## upgrade a cluster of the last version (REVISION chooses another one) under load
	@SERIATIM_TEST_OLDER="$$(dist/build-older.sh $(REVISION))" $(CARGO) test --release --locked --test e2e upgrade:: -- --nocapture --test-threads=1

power: deps first-build ## simulated power cuts of real processes, RUNS times with one node and half as often with three
	@SERIATIM_TEST_POWER_RUNS=$(RUNS) $(CARGO) test --release --locked --test e2e power:: -- --nocapture --test-threads=1

chaos: deps first-build ## real processes under random faults (kills, partitions, full and damaged disks, new nodes) for MINUTES; SEED=n repeats a schedule, ONLY=kill,disk chooses faults (needs root)
	@SERIATIM_TEST_NETNS=required SERIATIM_TEST_TMPFS=required SERIATIM_TEST_CHAOS_MINUTES=$(MINUTES) \
	    SERIATIM_TEST_CHAOS_ONLY='$(ONLY)' SEED=$(SEED) \
	    $(CARGO) test --release --locked --test e2e chaos::promises -- --nocapture

disk-full: deps first-build ## fill a small disk and trim it, RUNS times (needs root to mount a tmpfs)
	@SERIATIM_TEST_FULL_ROUNDS=$(RUNS) $(CARGO) test --release --locked --test e2e disk_full:: -- --nocapture --test-threads=1

hostile: deps first-build ## hostile clients, thousands of each kind, while an honest one works; prints its latency and the memory
	@SERIATIM_TEST_HOSTILE=full $(CARGO) test --release --locked --test e2e hostile:: -- --nocapture

proof: deps first-build ## random histories of the storage: HISTORIES of each kind, from SEED on, and every byte damaged
	@SERIATIM_HISTORIES=$(HISTORIES) SERIATIM_SEED=$(SEED) SERIATIM_SWEEP=1 $(CARGO) test --release --locked --lib storage::proof::

sim: deps first-build ## simulated clusters, SEEDS of them from SEED on; EVENTS=all or a part runs one and prints its trace
	@SERIATIM_SIM_SEEDS=$(SEEDS) SERIATIM_SIM_SEED=$(or $(filter-out 0,$(SEED)),1) $(if $(EVENTS),SERIATIM_SIM_EVENTS=$(EVENTS)) \
	    $(CARGO) test --release --locked --lib simulation::random -- --nocapture --show-output

sim-faults: deps first-build ## search for each deliberate fault in simulated clusters; ONLY=name chooses some, ONLY=all takes all
	@SERIATIM_SIM_FAULTS='$(ONLY)' $(CARGO) test --release --locked --lib simulation::faults::search -- --nocapture

# Needs the standard library only, so it is compiled without cargo.
prose: deps ## count phrases in comments and documents that this project avoids (LIST=1 prints where)
	@mkdir -p '$(TARGET_DIR)'
	@rustc --edition 2024 --test tests/e2e/prose.rs -o '$(TARGET_DIR)/prose'
	@LIST='$(LIST)' '$(TARGET_DIR)/prose' --nocapture --quiet
# Runs the library's tests; those that compare with golden files write them instead.
update-golden: deps first-build ## write golden files, dist/seriatim.toml and the generated parts of docs/ from the code
	@UPDATE_GOLDENFILES=1 SERIATIM_WRITE_GOLDEN=1 $(CARGO) test --release --locked --lib -- --skip fuzz:: --skip proof::
	@git --no-pager diff --stat

check: deps first-build proto-check ## what CI runs: format, clippy, rustdoc and buf with warnings denied, tests
	@$(CARGO) fmt --check
	@$(CARGO) clippy --release --locked --all-targets -- -D warnings
	@RUSTDOCFLAGS='-D warnings' $(CARGO) doc --release --locked --no-deps --quiet
	@$(CARGO) test --release --locked

bench: deps first-build ## each figure next to its ceiling; ONLY=part of a name chooses; all of them write docs/benchmarks
	@SERIATIM_BENCH='$(ONLY)' SERIATIM_BENCH_OUT=$(if $(ONLY),,$(CURDIR)/docs/benchmarks) \
	    $(CARGO) bench --profile release --locked --bench bench

bench-cluster: deps first-build ## three nodes beside raw ceilings and the peers on the PATH (NATS, etcd, Redis); ONLY=part of a name chooses; all of them write docs/benchmarks
	@SERIATIM_BENCH='$(ONLY)' SERIATIM_BENCH_OUT=$(if $(ONLY),,$(CURDIR)/docs/benchmarks) \
	    $(CARGO) bench --profile release --locked --bench cluster

test-clients: build ## the client libraries, generated code of six languages, grpcurl (downloads their packages)
	@SERIATIM='$(SERIATIM)' clients/test.sh

test-page: build ## the page of a node in a headless Chromium (SCREENSHOTS=DIR keeps what it looks like)
	@SERIATIM='$(SERIATIM)' SCREENSHOTS='$(SCREENSHOTS)' python3 tests/page/test_page.py

test-decoders: ## the protobuf decoders of other languages on golden responses (downloads them)
	@clients/decoders/test.sh

package: deps first-build ## a .deb, a .rpm and a tarball, in $CARGO_TARGET_DIR/package (ONLY=deb,rpm chooses; the tarball compiles gRPC's core once more)
	@dist/package.sh $(subst $(comma), ,$(ONLY))

package-debian11: ## a .deb, a .rpm and a tarball that also run on Debian 11 and RHEL 9, built in a Debian 11 of its own (needs root and debootstrap)
	@dist/package-debian11.sh

test-package: ## install the .deb in new systems with Debian 11, 12 and 13, and try it there (needs root and debootstrap)
	@dist/test-package.sh

proto: ## generate the clients' committed code (downloads the generators)
	@clients/generate.sh

proto-check: ## check proto/ with buf: its rules, and that nothing breaks (compiles buf once with Go, if there is Go)
	@clients/buf.sh

proto-baseline: ## write the API with which proto-check compares: at each release
	@clients/buf.sh baseline

clean: ## remove what was built
	@$(CARGO) clean
