# First program of the cluster: a private view of the machine, then the first process ("$@").
# Everything it mounts is seen by nobody outside and goes away with the last process in here.
set -eu
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH
umask 022
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p /run/netns /run/lock /run/etcd /run/azure
: >/run/xtables.lock
ip link set lo up
exec "$@"
