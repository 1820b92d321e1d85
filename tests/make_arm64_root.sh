#!/usr/bin/env bash
# An ARM machine for qemu-aarch64: FOLDER gets Debian's C and C++ library and Python 3.11, unpacked, and beside them, each
# a folder for PYTHONPATH, FOLDER/litert and FOLDER/tflite_runtime; FOLDER/executorch is only unpacked, for C++. This
# system's packages stay as they are. Needs Debian 12, and pip for any Python:
#   tests/make_arm64_root.sh FOLDER PYTHON REQUIREMENT...    which requirements are FOLDER/tflite_runtime's
set -euo pipefail
folder=$(realpath -m "$1") python=$2
shift 2
cd "$(dirname "$0")/.."
if ! grep -qs '^VERSION_CODENAME=bookworm$' /etc/os-release; then
  echo "met: a system other than Debian 12, whose python3.11 for arm64 is wanted; do: run this in a container of it" >&2
  exit 1
fi

rm -rf "$folder"
mkdir -p "$folder/apt/state/lists/partial" "$folder/apt/cache/archives/partial"
touch "$folder/apt/state/status"
apt() {
  apt-get -q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State="$folder/apt/state" \
    -o Dir::State::status="$folder/apt/state/status" -o Dir::Cache="$folder/apt/cache" \
    -o Debug::NoLocking=1 -o APT::Sandbox::User= "$@" >"$folder/apt/log" || { cat "$folder/apt/log" >&2; exit 1; }
}
apt update
apt install -y --download-only --no-install-recommends libstdc++6 python3.11-minimal libpython3.11-stdlib
for package in "$folder"/apt/cache/archives/*.deb; do
  dpkg -x "$package" "$folder"
done
rm -rf "$folder/apt"

pin() { # a requirement as pyproject.toml has it
  sed -n "s/.*\"\\($1[=><][^\"]*\\)\".*/\\1/p" pyproject.toml | head -n 1
}
unpack() { # into a folder, these requirements
  "$python" -m pip install -q --no-deps --only-binary=:all: --python-version 3.11 --implementation cp \
    --platform manylinux_2_17_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_28_aarch64 \
    --platform manylinux_2_34_aarch64 --target "$folder/$1" "${@:2}"
}
unpack litert "$(pin ai-edge-litert)" "$(pin numpy)" flatbuffers
unpack tflite_runtime "$@"
unpack executorch "$(pin executorch)"
touch "$folder/.ready"
