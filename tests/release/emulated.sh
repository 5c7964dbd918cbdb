#!/bin/sh
# Runs a command in a Debian of another architecture, by an emulator that only this process, and what it
# starts, know of: `unshare` has made a user namespace, which has a binfmt_misc of its own. Arguments:
# the folder of that Debian, a folder that is to be seen in there at the same place, the command.
set -e
root=$1 folder=$2
shift 2
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
emulator=$(command -v qemu-aarch64-static)
printf '%s' ":arm64:M::$magic:$mask:$emulator:F" >/proc/sys/fs/binfmt_misc/register
mount -t tmpfs tmpfs "$root/tmp"
mkdir -p "$root/$folder"
mount --bind "$folder" "$root/$folder"
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
exec chroot "$root" "$@"
