# SPDX-License-Identifier: MIT OR Apache-2.0
# make            build/dkms, the static release binary
# make install    into DESTDIR, for a FAMILY of distributions (detected)
# make deb        a package for Debian and its family in build/
# make rpm        a package for Fedora and its kin in build/
# make pkg        a package for Arch Linux and its kin in build/
# make clear      the content of a bundle for Clear Linux in build/
# make check      format, lints, shell scripts, unit and golden tests, some damaged inputs for every reader
# make test       everything; installs what it needs when run as root, and says so
# make test-packages  twelve *-dkms packages of Debian's, ours beside dkms: an hour or more
# make test-boot  every boot loader with every fault, by booting
# make test-faults  dkms killed, or failing, at every call that changes a file: half an hour or more
# make test-kernel-install  every layout with every initramfs generator, three releases of systemd
# make fuzz       damaged inputs for every reader, FUZZ_SECONDS (600) for each, and figures
# make demo       a kernel installation in a throw-away root
# make bench      speed and memory beside the bare work and, where installed, dkms 3

SHELL := /bin/bash
PREFIX ?= /usr
DESTDIR ?=
CARGO ?= cargo

TARGET := $(shell rustc -vV | sed -n 's/^host: //p')
# musl where it is installed; else the gnu target, linked statically. The explicit --target keeps
# crt-static away from proc macros, which cannot be static.
MUSL := $(subst -gnu,-musl,$(TARGET))
ifneq ($(wildcard $(shell rustc --print sysroot)/lib/rustlib/$(MUSL)/lib),)
TARGET := $(MUSL)
endif
STATIC := RUSTFLAGS="-C target-feature=+crt-static" $(CARGO) build --release --locked --target $(TARGET) \
	--target-dir target/static

.PHONY: all build/dkms install deb rpm pkg clear check test test-boot test-kernel-install test-packages test-faults demo \
	fuzz bench clean

all: build/dkms

build/dkms:
	$(STATIC) --bin dkms
	@mkdir -p build
	@cmp -s target/static/$(TARGET)/release/dkms build/dkms || install -m 755 target/static/$(TARGET)/release/dkms build/dkms

install: build/dkms
	@packaging/install.sh "$(DESTDIR)" "$(PREFIX)" "$(FAMILY)"

deb: build/dkms
	@packaging/deb.sh

rpm: build/dkms
	@packaging/rpm.sh

pkg: build/dkms
	@packaging/pkg.sh

clear: build/dkms
	@packaging/clear.sh

check:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	@tests/lib/shellcheck.sh
	$(CARGO) test --locked --lib --bins
	$(MAKE) build/dkms
	$(CARGO) test --locked --test golden --test fuzz

# All but golden and fuzz, which are part of check, and what takes long.
TESTS := $(patsubst tests/%.rs,--test %,$(filter-out tests/golden.rs tests/fuzz.rs tests/boot_matrix.rs,$(wildcard tests/*.rs)))

# Tests in the lab are ignored unless asked for: they want root and the distribution's packages.
# What takes an hour is a target of its own.
test: check
	@if reason=$$(tests/lib/lab.sh blocked root); then \
		echo "SKIPPED: all tests in the lab: $$reason"; \
		$(CARGO) test --locked $(TESTS); \
	else \
		$(CARGO) test --locked --no-fail-fast $(TESTS) -- --include-ignored --skip twelve_packages \
			--skip with_every_generator; \
	fi

test-packages: build/dkms
	$(CARGO) test --locked --test packages -- --include-ignored --nocapture twelve_packages

# Twenty-five machines and some seventy boots: see tests/boot_matrix.rs.
test-boot:
	$(CARGO) test --locked --test boot_matrix -- --include-ignored --test-threads 2

test-faults:
	DKMS_FAULTS=all $(CARGO) test --locked --test faults

# What is not in test for its time: see tests/kernel_install_suites.rs.
test-kernel-install:
	$(CARGO) test --locked --test kernel_install_suites -- --include-ignored --test-threads 2

# One reader only: make fuzz READER=grub. The two evaluators of confs are held against each other as long.
FUZZ_SECONDS ?= 600
fuzz:
	FUZZ_SECONDS=$(FUZZ_SECONDS) $(CARGO) test --locked --test fuzz -- $(if $(READER),--exact $(READER))
	$(if $(READER),,FUZZ_SECONDS=$(FUZZ_SECONDS) $(CARGO) test --locked --test conf_differential)

demo: build/dkms
	@tests/demo.sh

bench: build/dkms
	@benches/bench.sh

clean:
	$(CARGO) clean
	rm -rf build
