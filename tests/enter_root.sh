#!/usr/bin/env bash
# Run COMMAND in a root of tests/make_device_roots.sh, as root of namespaces of its own, so that nothing of this machine
# changes and all of it ends with this process, by SIGKILL too; SHARED, a folder, is /mnt there, and of the environment
# nothing comes along. A root of arm64 runs by qemu-aarch64 through a binfmt_misc of that namespace: Linux 6.7. Root only:
#   tests/enter_root.sh ROOT SHARED COMMAND...
set -euo pipefail

if [ "$1" != --inside ]; then
  (
    own=$(readlink /proc/self/ns/user)
    until [ "$(readlink "/proc/$$/ns/user")" != "$own" ]; do sleep 0.02; done
    for map in uid_map gid_map; do echo '0 0 65536' >"/proc/$$/$map"; done
  ) &
  exec unshare --user -- bash -c '
    until read -r _ </proc/self/gid_map; do sleep 0.02; done
    exec unshare --mount --pid --fork --kill-child -- bash "$@"' bash "$0" --inside "$@"
fi

root=$2 shared=$3
shift 3
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount --bind "$shared" "$root/mnt"
mount -t proc proc "$root/proc"
for name in tmp home data run root; do mount -t tmpfs -o mode=755 "$name" "$root/$name"; done
chmod 1777 "$root/tmp"
mount -t tmpfs -o mode=777,size=512k small "$root/small"
mount -t tmpfs -o mode=777,noexec noexec "$root/noexec"
mkdir -p "$root/data/local/tmp" "$root/home/pi" "$root/run/sshd"
chown 1000:1000 "$root/home/pi"
if [ -e "$root/usr/lib/ld-linux-aarch64.so.1" ] && [ "$(uname -m)" != aarch64 ]; then
  mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
  magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
  mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
  echo ":aarch64:M::$magic:$mask:$(command -v qemu-aarch64):F" >/proc/sys/fs/binfmt_misc/register
fi
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root chroot "$root" "$@"
