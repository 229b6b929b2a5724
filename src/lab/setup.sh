# First program of a lab: runs as pid 1 of the new namespaces and becomes the program ("$@").
# Everything it mounts is seen by nobody outside and goes away with the last process in here.
set -eu
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH
umask 022
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p /run/netns /run/lock /run/lanyard-lab
printf '%s\n' "${LAB_OUTER-}" >/run/lanyard-lab/outer-pid
unset LAB_OUTER
# Debian's legacy iptables refuses to start without it.
: >/run/xtables.lock
printf '127.0.0.1 localhost\n' >/run/lanyard-lab/hosts
mount --bind /run/lanyard-lab/hosts /etc/hosts
# Names that are not in the hosts file fail at once instead of waiting for a server out there.
if [ -f /etc/resolv.conf ]; then
    printf 'nameserver 127.0.0.1\noptions timeout:1 attempts:1\n' >/run/lanyard-lab/resolv.conf
    mount --bind /run/lanyard-lab/resolv.conf /etc/resolv.conf
fi
ip link set lo up
exec "$@"
