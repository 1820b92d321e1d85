#!/usr/bin/env bash
# An ARM machine for qemu-aarch64: FOLDER gets Debian's C and C++ library and Python, unpacked, and beside them, each a
# folder for PYTHONPATH, FOLDER/litert and, where that Python is 3.11, FOLDER/tflite_runtime; FOLDER/executorch is only
# unpacked, for C++. This system's packages stay as they are. Needs Debian 12 or 13, and pip for any Python:
#   tests/make_arm64_root.sh FOLDER PYTHON REQUIREMENT...    which requirements are FOLDER/tflite_runtime's
set -euo pipefail
folder=$(realpath -m "$1") python=$2
shift 2
cd "$(dirname "$0")/.."
case "$(. /etc/os-release && echo "${VERSION_CODENAME:-}")" in
  bookworm) version=3.11 ;;
  trixie) version=3.13 ;;
  *)
    echo "met: neither Debian 12 nor 13, whose Python for arm64 is wanted; do: run this in a container of one" >&2
    exit 1
    ;;
esac

rm -rf "$folder"
mkdir -p "$folder/apt/state/lists/partial" "$folder/apt/cache/archives/partial"
touch "$folder/apt/state/status"
apt() {
  apt-get -q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State="$folder/apt/state" \
    -o Dir::State::status="$folder/apt/state/status" -o Dir::Cache="$folder/apt/cache" \
    -o Debug::NoLocking=1 -o APT::Sandbox::User= "$@" >"$folder/apt/log" || { cat "$folder/apt/log" >&2; exit 1; }
}
apt update
apt install -y --download-only --no-install-recommends libstdc++6 "python$version-minimal" "libpython$version-stdlib"
for package in "$folder"/apt/cache/archives/*.deb; do
  dpkg -x "$package" "$folder"
done
rm -rf "$folder/apt"

pin() { # a requirement as pyproject.toml has it
  sed -n "s/.*\"\\($1[=><][^\"]*\\)\".*/\\1/p" pyproject.toml | head -n 1
}
unpack() { # into a folder, these requirements
  "$python" -m pip install -q --no-deps --only-binary=:all: --python-version "$version" --implementation cp \
    --platform manylinux_2_17_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_28_aarch64 \
    --platform manylinux_2_34_aarch64 --target "$folder/$1" "${@:2}"
}
unpack litert "$(pin ai-edge-litert)" "$(pin numpy)" flatbuffers
[ "$version" != 3.11 ] || unpack tflite_runtime "$@" # it has no wheel for later ones
unpack executorch "$(pin executorch)"
touch "$folder/.ready"
