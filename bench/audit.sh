#!/bin/bash
# Make docs/reference/audit.md: every level of a running daemon, and a container of podman's with the same root file system.
#
#   bench/audit.sh ROOTFS.tar [IMAGE]   IMAGE: what the daemon knows it by (without: it is imported under a name of its own)
#
# The daemon needs a kernel for virtual machines. What is imported and made for it is removed again.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { printf 'bench/audit.sh: ROOTFS.tar is missing\n' >&2; exit 2; }

bulkhead=.venv/bin/bulkhead
archive=$(realpath "$1")
image=${2:-}
draft=$(mktemp -d)
made=()
clean() {
    rm -rf "$draft"
    [ ${#made[@]} -eq 0 ] || "$bulkhead" image rm "${made[@]}" > /dev/null
}
trap clean EXIT
if [ -z "$image" ]; then
    image=bench/audit
    "$bulkhead" image import "$archive" "$image" > /dev/null
    made+=("$image")
fi
"$bulkhead" build --unikernel -t bench/audit-unikernel "$image" sleep infinity > /dev/null
made+=(bench/audit-unikernel)
"$bulkhead" audit --all-levels --image "$image" --format json > "$draft/levels.json"
.venv/bin/python - "$draft/levels.json" <<'EOF'
import json, sys
missing = {"chroot", "container", "vm", "unikernel"} - {report["level"] for report in json.load(open(sys.argv[1]))}
sys.exit(f"bench/audit.sh: {', '.join(sorted(missing))} could not be audited: the page would lack it" if missing else 0)
EOF
.venv/bin/python -m bench.audit "$archive" > "$draft/podman.json"
.venv/bin/python scripts/make-audit --page "$draft/levels.json" "$draft/podman.json"
