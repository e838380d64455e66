#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Runs shellcheck over every shell file of the repository; installs it when run as root.
set -euo pipefail
cd "$(dirname "$0")/../.."
if ! command -v shellcheck >/dev/null; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "shellcheck is not installed; install it with your package manager" >&2
        exit 1
    fi
    echo "installing shellcheck with apt-get"
    apt-get -qq update && apt-get -qq install -y shellcheck >/dev/null
fi
git ls-files -co --exclude-standard | while read -r file; do
    if [ -f "$file" ] && head -n 2 "$file" | grep -qE '^#(!.*\b(ba)?sh\b| shellcheck shell=)'; then
        printf '%s\0' "$file"
    fi
done | xargs -0 shellcheck -x -P SCRIPTDIR
