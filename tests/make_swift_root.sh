#!/usr/bin/env bash
# A Debian 13 with Swift, unpacked, which tests/enter_root.sh runs in and tests/swift.py builds Swift packages
# in: 2.4 GB, a minute and a half. Needs Debian 12 or 13:
#   tests/make_swift_root.sh FOLDER
set -euo pipefail
folder=$(realpath -m "$1")
"$(dirname "$0")/unpack_debian.sh" "$folder" amd64 trixie swiftlang libc6-dev libstdc++-14-dev binutils-gold dash coreutils
ln -sf dash "$folder/usr/bin/sh"
touch "$folder/.ready"
