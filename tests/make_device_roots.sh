#!/usr/bin/env bash
# Two machines for the tests of devices/, unpacked from Debian 13's packages: FOLDER/adb, of this machine's kind, with
# adbd and busybox; FOLDER/ssh, of arm64, with sshd and coreutils. tests/enter_root.sh starts what is in them. Nothing
# is installed, no package's script runs. Needs Debian 12 or 13; half a minute:
#   tests/make_device_roots.sh FOLDER
set -euo pipefail
folder=$(realpath -m "$1")
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
mirror=$(apt-get indextargets --format '$(REPO_URI)' "Codename: $codename" 2>/dev/null | head -n 1)
if [ -z "$mirror" ]; then
  echo "met: no Debian whose packages apt-get knows; do: run this in a container of Debian 12 or 13" >&2
  exit 1
fi

unpack() { # root, architecture, packages
  local root=$1 architecture=$2 state=$1/apt
  shift 2
  rm -rf "$root"
  mkdir -p "$state/state/lists/partial" "$state/cache/archives/partial"
  touch "$state/state/status"
  echo "deb $mirror trixie main" >"$state/sources.list"
  apt() {
    apt-get -q -o APT::Architecture="$architecture" -o APT::Architectures="$architecture" \
      -o Dir::State="$state/state" -o Dir::State::status="$state/state/status" -o Dir::Cache="$state/cache" \
      -o Dir::Etc::sourcelist="$state/sources.list" -o Dir::Etc::sourceparts=- -o Debug::NoLocking=1 \
      -o APT::Sandbox::User= "$@" >"$state/log" 2>&1 || { cat "$state/log" >&2; exit 1; }
  }
  apt update
  apt install -y --download-only --no-install-recommends "$@"
  for package in "$state"/cache/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" |
      tar -x -C "$root" --keep-directory-symlink --exclude='./usr/share/doc/*' --exclude='./usr/share/locale/*' --exclude='./usr/share/man/*'
  done
  rm -rf "$state"
  (
    cd "$root"
    mkdir -p dev proc sys tmp run mnt root home data small noexec etc usr/{bin,sbin,lib,lib64}
    for name in bin sbin lib lib64; do
      [ -e "$name" ] || ln -s "usr/$name" "$name"
    done
    printf '%s\n' root:x:0:0::/root:/bin/sh sshd:x:100:100::/run/sshd:/bin/false pi:x:1000:1000::/home/pi:/bin/sh >etc/passwd
    printf '%s\n' root:x:0: sshd:x:100: pi:x:1000: >etc/group
  )
}

unpack "$folder/adb" "$(dpkg --print-architecture)" adbd busybox-static
busybox=$folder/adb/usr/bin/busybox
for name in $("$busybox" --list); do
  [ -e "$folder/adb/usr/bin/$name" ] || ln -s busybox "$folder/adb/usr/bin/$name"
done
unpack "$folder/ssh" arm64 openssh-server dash coreutils grep
ln -sf dash "$folder/ssh/usr/bin/sh"
touch "$folder/.ready"
