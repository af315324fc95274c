#!/bin/bash
# Builds the trimmed kernel, inside the throw-away root file system that boot/trim.py asks for. The source package's
# archive and trim.config are beside this script.
#   trim.sh OUT          makes OUT/vmlinux and OUT/release; OUT/config is what it was made with
#   trim.sh OUT config   stops at OUT/config
# Lines "I: ..." on stdout are shown as progress, "E: ..." is what it fails with.
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD out=$1 until=${2:-}
archive=$(echo linux-source-*.tar.xz)
source=${archive%.tar.xz}
wanted=$here/trim.config

fail() { printf 'E: %s\n' "$1"; exit 1; }

# The same bytes from the same package: nothing of this build's time, user and host is in it.
KBUILD_BUILD_TIMESTAMP="@$(stat -c %Y "$archive")"
export KBUILD_BUILD_TIMESTAMP KBUILD_BUILD_USER=bulkhead KBUILD_BUILD_HOST=bulkhead KBUILD_BUILD_VERSION=1
export LC_ALL=C TZ=UTC
unset MAKEFLAGS MAKELEVEL

echo "I: unpacking the kernel's source"
tar -xf "$archive"
cd "$source"

echo "I: configuring the kernel"
make -s KCONFIG_ALLCONFIG="$wanted" allnoconfig > "$out/log" 2>&1 || fail "no config: $(tail -n 1 "$out/log")"
cp .config "$out/config"
# The kernel's rules leave out an option whose needs are not met, and say nothing. Nothing may get lost so.
lost=""
while read -r line; do
    name=${line#\# }
    name=${name%%[ =]*}
    case $line in
        CONFIG_*) grep -qxF "$line" .config || lost+=" $line" ;;
        "# CONFIG_"*" is not set") ! grep -q "^$name=" .config || lost+=" $name=n" ;;
    esac
done < "$wanted"
[ -z "$lost" ] || fail "this source does not take of trim.config:$lost"
[ "$until" != config ] || exit 0

echo "I: compiling the kernel"
count=0
# Instances come first.
nice -n 19 make -j"$(nproc)" vmlinux 2>> "$out/log" | while read -r _ path _; do
    count=$((count + 1))
    [ $((count % 50)) -ne 0 ] || printf 'I: compiling the kernel: %d files, %s\n' "$count" "$path"
done || fail "the kernel cannot be compiled: $(grep -m 1 -i error "$out/log" || tail -n 1 "$out/log")"
# As in a bzImage: without symbols.
objcopy -R .comment -S vmlinux "$out/vmlinux"
make -s kernelrelease > "$out/release"
