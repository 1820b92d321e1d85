#!/usr/bin/env bash
# Two machines for the tests of devices/, unpacked from Debian 13's packages: FOLDER/adb, of this machine's kind, with
# adbd and busybox; FOLDER/ssh, of arm64, with sshd and coreutils. tests/enter_root.sh starts what is in them. Nothing
# is installed, no package's script runs. Needs Debian 12 or 13; half a minute:
#   tests/make_device_roots.sh FOLDER
set -euo pipefail
folder=$(realpath -m "$1")
unpack=$(dirname "$0")/unpack_debian.sh

"$unpack" "$folder/adb" "$(dpkg --print-architecture)" trixie adbd busybox-static
busybox=$folder/adb/usr/bin/busybox
for name in $("$busybox" --list); do
  [ -e "$folder/adb/usr/bin/$name" ] || ln -s busybox "$folder/adb/usr/bin/$name"
done
"$unpack" "$folder/ssh" arm64 trixie openssh-server dash coreutils grep
ln -sf dash "$folder/ssh/usr/bin/sh"
touch "$folder/.ready"
