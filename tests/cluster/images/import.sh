# Fills containerd's root $1 from the image archives "$@" (after the shift); its words go to standard error.
# In namespaces of its own: nothing of it stays but the folder.
set -eu
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH
root=$1
shift
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
cat >/run/config.toml <<END
version = 2
root = "$root"
state = "/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "/run/containerd.sock"
END
containerd --config /run/config.toml >/run/log 2>&1 &
tries=0
until ctr -a /run/containerd.sock version >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 200 ] || { cat /run/log >&2; exit 1; }
    sleep 0.05
done
for archive; do
    ctr -a /run/containerd.sock -n k8s.io images import "$archive" >&2
done
kill $!
wait $! || :
