#!/bin/bash
# Make docs/reference/audit.md: every level of a running daemon, and a container of podman's with the same root file system.
#
#   bench/audit.sh ROOTFS.tar [IMAGE]   IMAGE: what the daemon knows it by (without: it is imported under a name of its own)
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { printf 'bench/audit.sh: ROOTFS.tar is missing\n' >&2; exit 2; }

archive=$(realpath "$1")
image=${2:-}
draft=$(mktemp -d)
trap 'rm -rf "$draft"' EXIT
if [ -z "$image" ]; then
    image=bench/audit
    .venv/bin/bulkhead image import "$archive" "$image" > /dev/null
    trap 'rm -rf "$draft"; .venv/bin/bulkhead image rm bench/audit > /dev/null' EXIT
fi
.venv/bin/bulkhead audit --all-levels --image "$image" --format json > "$draft/levels.json"
.venv/bin/python -m bench.audit "$archive" > "$draft/podman.json"
.venv/bin/python scripts/make-audit --page "$draft/levels.json" "$draft/podman.json"
