#!/usr/bin/env bash
# A root of Debian's packages and what they need, unpacked: nothing is installed, no package's script runs, this system's
# packages stay as they are. It has /etc/passwd with root, sshd and pi, and no manuals. Needs Debian 12 or 13:
#   tests/unpack_debian.sh ROOT ARCHITECTURE CODENAME PACKAGE...
set -euo pipefail
root=$(realpath -m "$1") architecture=$2 codename=$3 state=$(realpath -m "$1")/apt
shift 3
here=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
mirror=$(apt-get indextargets --format '$(REPO_URI)' "Codename: $here" 2>/dev/null | head -n 1)
if [ -z "$mirror" ]; then
  echo "met: no Debian whose packages apt-get knows; do: run this in a container of Debian 12 or 13" >&2
  exit 1
fi

rm -rf "$root"
mkdir -p "$state/state/lists/partial" "$state/cache/archives/partial"
mkdir -p "$root"/{dev,proc,sys,tmp,run,mnt,root,home,data,small,noexec,etc} "$root"/usr/{bin,sbin,lib,lib64}
for name in bin sbin lib lib64; do ln -s "usr/$name" "$root/$name"; done # as Debian's own installer does
touch "$state/state/status"
echo "deb $mirror $codename main" >"$state/sources.list"
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
cd "$root"
printf '%s\n' root:x:0:0::/root:/bin/sh sshd:x:100:100::/run/sshd:/bin/false pi:x:1000:1000::/home/pi:/bin/sh >etc/passwd
printf '%s\n' root:x:0: sshd:x:100: pi:x:1000: >etc/group
