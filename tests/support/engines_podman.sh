#!/bin/bash
# Podman's service in a root file system, and in network, mount and pid namespaces, of its own: the machine's engine and its
# network stay untouched. As root, on Debian; needs mmdebstrap, slirp4netns, iproute2 and util-linux.
#   engines_podman.sh up DIR [SUITE]    makes DIR/root once (Podman 5 is in trixie and later), starts the service, prints its version
#   engines_podman.sh in DIR COMMAND... runs it in the service's network, with DOCKER_HOST set and a `podman` first on PATH
#   engines_podman.sh down DIR          ends the service and all of its containers; what it stored stays in DIR
# DIR should be a short path (a socket's name has 107 bytes at most) on a file system that overlay mounts stand on.
set -eu
what=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)
shift 2
root=$dir/root socket=$dir/podman.sock netns=podman-$(basename "$dir")

make_root() {  # SUITE
    [ ! -e "$root/usr/bin/podman" ] || return 0
    local mirror
    mirror=$(sed -n 's#^\(deb\|URIs:\)[^h]*\(https\{0,1\}://[^ ]*debian\)/\{0,1\}\( .*\)\{0,1\}$#\2#p' \
        /etc/apt/sources.list /etc/apt/sources.list.d/* 2> "$dir/sources.log" | head -n 1)
    rm -rf "$root"
    mmdebstrap --variant=minbase --quiet --skip=output/dev --aptopt='Acquire::Check-Valid-Until "false"' \
        --include=podman,crun,netavark,aardvark-dns,nftables,iptables,conmon,ca-certificates,tini "$1" "$root" "$mirror" \
        > "$dir/mmdebstrap.log" 2>&1
    mkdir -p "$dir/bin"
    # The client, on the caller's file system: its libraries are those of the root file system.
    cat > "$dir/bin/podman" <<END
#!/bin/sh
exec "$root/lib64/ld-linux-x86-64.so.2" --library-path "$root/usr/lib/x86_64-linux-gnu" "$root/usr/bin/podman" "\$@"
END
    chmod 755 "$dir/bin/podman"
}

service() {  # in the new namespaces: the root file system, with DIR in it under the same name
    mount --make-rprivate /
    umount /sys/fs/cgroup/unified || true # Podman refuses the hybrid of both cgroup versions
    mount --bind "$root" "$root"
    mount --rbind /dev "$root/dev"
    mount --rbind /sys "$root/sys"
    mount -t proc proc "$root/proc"
    mount -t tmpfs tmpfs "$root/run"
    mount -t tmpfs tmpfs "$root/tmp"
    cp --remove-destination "$dir/resolv.conf" "$root/etc/resolv.conf"
    # A build asks for more open files than a machine without CAP_SYS_RESOURCE may give.
    printf '[containers]\ndefault_ulimits = ["nofile=%s:%s", "nproc=%s:%s"]\n' \
        "$(ulimit -Hn)" "$(ulimit -Hn)" "$(ulimit -Hu)" "$(ulimit -Hu)" > "$root/etc/containers/containers.conf"
    # Docker speaks plain HTTP with every registry on loopback, Podman with those that are named.
    printf '[[registry]]\nlocation = "127.0.0.1:5000"\ninsecure = true\n' > "$root/etc/containers/registries.conf.d/loopback.conf"
    mkdir -p "$root$dir" "$dir/data" "$root/run/netns" "$root/old"
    mount --bind "$dir" "$root$dir"
    cd "$root"
    pivot_root . old
    umount -l /old
    exec tini -s -- podman --root "$dir/data" --cgroup-manager=cgroupfs system service --time=0 "unix://$socket"
}

case $what in
up)
    make_root "${1:-trixie}"
    rm -f "$socket"
    echo "nameserver 10.0.2.3" > "$dir/resolv.conf" # slirp4netns' own
    ip netns add "$netns"
    ip netns exec "$netns" ip link set lo up
    slirp4netns --configure --mtu=1400 --disable-host-loopback --netns-type=path "/run/netns/$netns" tap0 > "$dir/slirp.log" 2>&1 &
    echo $! > "$dir/slirp.pid"
    nsenter --net="/run/netns/$netns" unshare --mount --pid --fork --kill-child --mount-proc \
        env PODMAN_IGNORE_CGROUPSV1_WARNING=1 "$0" service "$dir" > "$dir/podman.log" 2>&1 &
    echo $! > "$dir/unshare.pid"
    for _ in $(seq 100); do
        if [ -S "$socket" ] && "$dir/bin/podman" --url "unix://$socket" version --format '{{.Server.Version}}' 2> "$dir/wait.log"; then
            exit 0
        fi
        sleep 0.3
    done
    tail -n 5 "$dir/podman.log" >&2
    exit 1
    ;;
service) service ;;
in) exec nsenter --net="/run/netns/$netns" env "DOCKER_HOST=unix://$socket" "PATH=$dir/bin:$PATH" "$@" ;;
down) # the namespace's init goes, and all that is in it
    child=$(ps -o pid= --ppid "$(cat "$dir/unshare.pid")" | tr -d ' ')
    [ -z "$child" ] || kill -KILL "$child"
    kill "$(cat "$dir/slirp.pid")" || true
    sleep 0.5
    ip netns delete "$netns"
    ;;
esac
