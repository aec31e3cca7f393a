"""A distribution server of Rust on 127.0.0.1: real components, made of the lab's builder image, for a real rustup."""

import hashlib
import http.server
import io
import json
import ssl
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from rustimg_lab.engine import containers
from support.lab import MUSL, answering

HOST = "x86_64-unknown-linux-gnu"
# What rustup unpacks: per component, a folder with the list of its files. Debian has LLVM and other libraries of rustc
# and cargo in packages of their own: here they lie beside them, where rustup tells the loader to look. glibc and
# libgcc_s are the image's.
_COMPONENTS = r"""
set -eu
version=$(rustc -vV | sed -n 's/^release: //p')
lib=$(rustc --print sysroot)/lib/rustlib
mkdir /dist
echo "$version" > /dist/version

libraries() {
    ldd "$1" | awk '$2 == "=>" { print $3 }' | grep -vE '/lib(c|m|resolv|gcc_s)\.so' | sort -u
}
pack() {  # of what lies in /component
    package=$1-$version${3:+-$3}
    mkdir -p "/package/$package/$2"
    mv /component/* "/package/$package/$2"
    (cd "/package/$package/$2" && find . -type f -printf 'file:%P\n' > /manifest.in && mv /manifest.in .)
    echo 3 > "/package/$package/rust-installer-version"
    echo "$2" > "/package/$package/components"
    tar --create --directory /package "$package" | gzip -1 > "/dist/$package.tar.gz"
    rm -r /package
}
mkdir -p /component/bin /component/lib
cp /usr/bin/rustc /component/bin/
cp --dereference $(libraries /usr/bin/rustc) /component/lib/
pack rustc rustc HOST
mkdir -p /component/bin /component/lib
cp /usr/bin/cargo /component/bin/
for library in $(libraries /usr/bin/cargo); do
    libraries /usr/bin/rustc | grep -qxF "$library" || cp --dereference "$library" /component/lib/
done
pack cargo cargo HOST
for target in HOST MUSL; do
    mkdir -p /component/lib/rustlib
    cp --recursive --dereference "$lib/$target" /component/lib/rustlib/
    pack rust-std "rust-std-$target" "$target"
done
mkdir -p /component/lib/rustlib/src/rust
cp --recursive "$lib/src/rust/library" /component/lib/rustlib/src/rust/
pack rust-src rust-src ''
""".replace("HOST", HOST).replace("MUSL", MUSL)


@dataclass
class Distribution:
    """`address` for RUSTUP_DIST_SERVER; `version` of the one release that it has; `authority`: the certificate, as PEM,
    that its own is issued by; `served`: the names of the files that were asked for."""

    address: str
    version: str
    authority: bytes
    served: list[str] = field(default_factory=list)


@contextmanager
def serve(builder: str) -> Iterator[Distribution]:
    """Makes the components of what the image `builder` has, and serves them as long as the block lasts."""
    with (
        tempfile.TemporaryDirectory() as folder,
        _served(Path(folder), _make_components(builder, Path(folder))) as state,
    ):
        yield state


@contextmanager
def _served(folder: Path, version: str) -> Iterator[Distribution]:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    state = Distribution("", version, authority.cert_pem.bytes())

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_request(self, *_: object) -> None:
            state.served.append(self.path.rpartition("/")[2])

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    state.address = f"https://127.0.0.1:{server.server_port}"
    _write_manifest(folder / "dist", state)
    with answering(server):
        yield state


def _make_components(builder: str, folder: Path) -> str:
    container = containers.create_container(
        builder, command=["sh", "-c", _COMPONENTS], network_mode="none", mem_limit="2g"
    )
    try:
        container.start()
        assert container.wait()["StatusCode"] == 0, container.logs().decode()
        with tarfile.open(fileobj=io.BytesIO(b"".join(container.get_archive("/dist")[0]))) as archive:
            archive.extractall(folder, filter="data")
    finally:
        containers.remove_container(container)
    return (folder / "dist" / "version").read_text().strip()


def _write_manifest(folder: Path, state: Distribution) -> None:
    """What rustup reads first: which release a channel has, of what it consists, and where that is. As JSON inside, of
    which TOML takes strings and lists."""
    version = state.version
    packages = {"rustc": [HOST], "cargo": [HOST], "rust-std": [HOST, MUSL], "rust-src": ["*"]}
    lines = ['manifest-version = "2"', 'date = "2000-01-01"', f"[pkg.rust]\nversion = {json.dumps(version)}"]
    lines.append(f"[pkg.rust.target.{HOST}]\n{_found(folder, f'rustc-{version}-{HOST}', state.address)}")
    for kind, members in (
        ("components", [("rustc", HOST), ("cargo", HOST), ("rust-std", HOST)]),
        ("extensions", [("rust-std", MUSL), ("rust-src", "*")]),
    ):
        for name, target in members:
            lines.append(f'[[pkg.rust.target.{HOST}.{kind}]]\npkg = "{name}"\ntarget = "{target}"')
    for name, targets in packages.items():
        lines.append(f"[pkg.{name}]\nversion = {json.dumps(version)}")
        for target in targets:
            archive = f"{name}-{version}" + (f"-{target}" if target != "*" else "")
            lines.append(f'[pkg.{name}.target."{target}"]\n{_found(folder, archive, state.address)}')
    lines.append('[profiles]\nminimal = ["rustc", "cargo", "rust-std"]')
    manifest = folder / f"channel-rust-{version}.toml"
    manifest.write_text("\n".join(lines) + "\n")
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    manifest.with_name(f"{manifest.name}.sha256").write_text(f"{digest}  {manifest.name}\n")


def _found(folder: Path, archive: str, address: str) -> str:
    name = f"{archive}.tar.gz"
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    return f'available = true\nurl = "{address}/dist/{name}"\nhash = "{digest}"'
