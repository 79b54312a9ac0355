#!/usr/bin/env bash
# rootfs.sh BINARIES OUT: the root file system of the image. Used by build.sh (no daemon) and by the Dockerfile, so that
# both make the same image: the three programs, the shared libraries they name, and the names of two users. No shell.
set -euo pipefail
bins="${1:?folder with the release binaries}" out="${2:?folder to make}"
rm -rf "$out"
mkdir -p "$out"/{usr/local/bin,etc,tmp,var/lib/keelson,lib64,lib}
chmod 1777 "$out/tmp"
for program in keelson-broker keelson-operator keelson-bench; do
  install -m 0755 "$bins/$program" "$out/usr/local/bin/$program"
  strip --strip-debug "$out/usr/local/bin/$program" 2>/dev/null || true
  # "libc.so.6 => /lib/…/libc.so.6 (0x…)" and "/lib64/ld-linux-x86-64.so.2 (0x…)"
  ldd "$bins/$program" | sed -nE 's/^.* => (\/[^ ]+) .*$/\1/p; s/^\s+(\/[^ ]+) .*$/\1/p'
done | sort -u | while read -r library; do
  mkdir -p "$out$(dirname "$library")"
  cp -L "$library" "$out$library"
done
# The name service of glibc reads files and DNS without further libraries since 2.34.
printf 'root:x:0:0:root:/:/none\nkeelson:x:65532:65532:keelson:/var/lib/keelson:/none\n' >"$out/etc/passwd"
printf 'root:x:0:\nkeelson:x:65532:\n' >"$out/etc/group"
printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$out/etc/nsswitch.conf"
# Each program must start from these files alone.
for program in keelson-broker keelson-operator keelson-bench; do
  if [[ $EUID == 0 ]]; then chroot "$out" "/usr/local/bin/$program" --help >/dev/null; fi
done
