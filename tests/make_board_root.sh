#!/usr/bin/env bash
# A board's system for tests/test_board.py: Debian for arm64 with Python, unpacked, which tests/enter_root.sh runs in,
# and libstdc++, which numpy's wheel takes from the system.
# Needs Debian 12 or 13; CODENAME is bookworm or trixie, this system's own if not given; a quarter of a minute:
#   tests/make_board_root.sh FOLDER [CODENAME]
set -euo pipefail
folder=$(realpath -m "$1")
codename=${2:-$(. /etc/os-release && echo "${VERSION_CODENAME:-}")}
"$(dirname "$0")/unpack_debian.sh" "$folder" arm64 "$codename" python3 python3-venv libstdc++6 dash coreutils
ln -sf dash "$folder/usr/bin/sh"
touch "$folder/.ready"
