#!/bin/sh
# Makes an archive, as `docker save` writes it, of an image of Debian's PostgreSQL: ./postgres.sh postgres.tar
# It needs mmdebstrap, and root or a user namespace. No registry is asked. The image's command starts a database that is
# set up already, as the user postgres, on port 5432 of the container's loopback, and trusts whoever connects there.
set -eu
output=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# What it has is gone with its container, so no write waits for a disk. The compiler of queries is left out.
setup='cd "$1" &&
rm -rf var/lib/postgresql/17 usr/lib/*/libLLVM* usr/lib/*/libz3* usr/lib/llvm-* usr/lib/postgresql/17/lib/bitcode &&
chroot . su postgres -c "/usr/lib/postgresql/17/bin/initdb --pgdata=/var/lib/postgresql/data --auth=trust \
    --encoding=UTF8 --locale=C --no-sync" &&
printf "%s\n" "fsync = off" "jit = off" "unix_socket_directories = \"/tmp\"" | tr \" "\047" \
    >> var/lib/postgresql/data/postgresql.conf'
SOURCE_DATE_EPOCH=0 mmdebstrap --variant=minbase --include=postgresql-17 --skip=output/dev \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' --customize-hook="$setup" trixie "$folder/layer.tar"
digest=$(sha256sum "$folder/layer.tar" | cut -d' ' -f1)
cat > "$folder/config.json" <<END
{"architecture": "$(dpkg --print-architecture)", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ["sha256:$digest"]},
 "config": {"User": "postgres", "ExposedPorts": {"5432/tcp": {}},
  "Env": ["PATH=/usr/lib/postgresql/17/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
  "Cmd": ["postgres", "-D", "/var/lib/postgresql/data"]}}
END
echo '[{"Config": "config.json", "RepoTags": null, "Layers": ["layer.tar"]}]' > "$folder/manifest.json"
tar --create --file "$output" --directory "$folder" manifest.json config.json layer.tar
