# First program of a node: builds the node's root and becomes its first process.
# $1 root (kept over reboots), $2 logs, $3 Kubernetes' programs, $4 the first process's program, $5 name.
# The machine's own files cannot be written from inside: pods with a hostPath of / see the node's.
set -eu
PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
umask 022
root=$1 logs=$2 programs=$3 init=$4 name=$5
mount --make-rprivate /
printf '%s\n' "$name" >/proc/sys/kernel/hostname
mount --bind "$root" "$root"
cd "$root"
mkdir -p usr etc var opt home root run tmp srv mnt proc sys dev programs .old
for link in bin sbin lib lib32 lib64 libx32; do
    [ ! -L "/$link" ] || [ -L "$link" ] || cp -P "/$link" .
    [ -L "/$link" ] || [ ! -d "/$link" ] || { mkdir -p "$link"; mount --bind "/$link" "$link"; }
done
mount --bind /usr usr
mount -o remount,bind,ro usr
mount --bind "$programs" programs
mount -o remount,bind,ro programs
mkdir -p var/lib/kubelet var/lib/containerd var/log/node var/tmp
[ -e var/run ] || ln -s /run var/run
mount --bind "$logs" var/log/node
: >.first
mount --bind "$init" .first
mount -o remount,bind,ro .first
# A boot: these are empty.
mount -t tmpfs -o mode=0755 tmpfs run
mkdir run/lock run/netns
: >run/xtables.lock
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /sys/fs/cgroup sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs -o mode=1777 tmpfs dev/shm
# Settings of the machine that kubelet wants to change, and the boot's id: the node has its own.
mkdir run/.settings
setting() {
    printf '%s\n' "$2" >"run/.settings/$(printf %s "$1" | tr / -)"
    mount --bind "run/.settings/$(printf %s "$1" | tr / -)" "proc/sys/$1"
}
setting vm/overcommit_memory 1
setting vm/panic_on_oom 0
setting kernel/panic 10
setting kernel/panic_on_oops 1
setting kernel/keys/root_maxkeys 1000000
setting kernel/keys/root_maxbytes 25000000
setting kernel/random/boot_id "$(cat /proc/sys/kernel/random/uuid)"
pivot_root . .old
cd /
umount -l /.old
mount --make-rshared /
exec /.first --first-process-of-node
