"""Base images, the Rust builder and the benchmark tools image, made of Debian packages."""

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from docker.models.images import Image

from rustimg_lab.engine import client, images, podman
from rustimg_lab.errors import LabError
from rustimg_lab.host import machine, process, proxy
from rustimg_lab.host.tools import KEYRING, REMEDIES, buildx_command, install, user_namespace_refusal
from rustimg_lab.model.matrix import BUILDER, DEBIAN, WITHOUT_UPX

SOURCE = "Debian packages"
BUILDER_FOLDER = Path(__file__).parent / "builder"
MADE_OF = {
    "tools": "the load generator wrk, valgrind, dnsmasq and Python, from Debian's packages; starter",
    "oha": "the load generator of an open loop, from the crate registry (some minutes, once)",
}
MEASURE_FOLDER = Path(__file__).parent.parent / "measure"  # `tools` and `oha`: the benchmark tools images
PATH = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # in every image that is imported
# What debian:*-slim leaves out (debuerreotype, .slimify-excludes) and, of that, keeps (.slimify-includes).
SLIM = (
    *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*"
      for folder in ("doc", "groff", "info", "linda", "lintian", "locale", "man")),
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
)  # fmt: skip

# dpkg's database is empty where packages are only unpacked; like the official distroless images, ours name them there,
# with the files of each.
_STATUS = """
mkdir -p "$1/var/lib/dpkg/status.d"
for deb in "$1"/var/cache/apt/archives/*.deb; do
    status="$1/var/lib/dpkg/status.d/$(dpkg-deb --field "$deb" Package)"
    dpkg-deb --field "$deb" > "$status"
    dpkg-deb --info "$deb" md5sums > "$status.md5sums" 2> /dev/null || rm -f "$status.md5sums"
done
"""
# apt brings what the packages depend on; what only sets others up, and in a static image every library, the official
# images leave out.
_LEAVE_OUT = """
for deb in "$1"/var/cache/apt/archives/*.deb; do
    case "$(dpkg-deb --field "$deb" Package)" in {cases} esac
    dpkg-deb --fsys-tarfile "$deb" | tar --list | grep -v '/$' | (cd "$1" && xargs rm -f)
    rm "$deb"
done
"""
_DISTROLESS = _LEAVE_OUT.format(cases="debconf | mawk | openssl | openssl-provider-legacy) ;; *) continue ;;")
_STATIC = _LEAVE_OUT.format(cases="base-files | netbase | tzdata | media-types | ca-certificates) continue ;;")
# What ca-certificates does when it is set up.
_CA_BUNDLE = 'cat "$1"/usr/share/ca-certificates/mozilla/*.crt > "$1/etc/ssl/certs/ca-certificates.crt"'
_ALPINE = """
ln -s usr/bin "$1/bin"
ln -s usr/lib "$1/lib"
ln -s busybox "$1/usr/bin/sh"
"""
# mmdebstrap copies the first two from the machine that it runs on.
_CLEAN = 'rm -f "$1/etc/hostname" "$1/etc/resolv.conf" "$1/etc/fstab"'


# Two folders are owned by apt's user, which is root in any mode so: a layer does not depend on who made it. mmdebstrap
# removes this file at the end.
_AS_ROOT = """echo 'APT::Sandbox::User "root";' >> "$1/etc/apt/apt.conf.d/00mmdebstrap\""""

# As root, mmdebstrap mounts what programs of packages need. In namespaces of its own no process and no mount is left of
# it, however the lab ends; what it wrote is in a folder that the next lab removes.
_APART = ("setpriv", "--pdeathsig=KILL", "--", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


@dataclass(frozen=True)
class Recipe:
    """How a base is made: an mmdebstrap variant, packages, hooks that get the root file system as `$1`.

    A `stand_in` has not the packages of the official image; its label says what it has.
    """

    label: str
    variant: str
    packages: tuple[str, ...]
    options: tuple[str, ...] = ()
    stand_in: bool = False


RECIPES = {
    "alpine": Recipe(
        "stand-in for alpine: Debian's musl and busybox",
        "extract",
        ("musl", "busybox-static"),
        (f"--extract-hook={_STATUS}{_ALPINE}{_CLEAN}",),
        stand_in=True,
    ),
    "distroless": Recipe(
        "distroless/cc's packages",
        "extract",
        # the list of packages of Google's cc image: github.com/GoogleContainerTools/distroless, cc/ and base/
        ("base-files", "netbase", "tzdata", "media-types", "ca-certificates", "libc6", "libssl3", "libgcc-s1",
         "libstdc++6", "libgomp1"),
        (f"--extract-hook={_DISTROLESS}{_STATUS}{_CA_BUNDLE}\n{_CLEAN}",),
    ),
    "static": Recipe(
        "distroless/static's packages",
        "extract",
        ("base-files", "netbase", "tzdata", "media-types", "ca-certificates"),  # as above, static/
        (f"--extract-hook={_STATIC}{_STATUS}{_CA_BUNDLE}\n{_CLEAN}",),
    ),
    "debian": Recipe("debian slim", "minbase", (), (*SLIM, f"--customize-hook={_CLEAN}")),
    BUILDER: Recipe(
        "Rust builder",
        "minbase",
        ("rustc-web", "cargo-web", "rust-web-src", "gcc", "g++", "libc6-dev", "make", "musl-tools", "musl-dev",
         "ca-certificates", "binutils", "upx-ucl"),
        (*SLIM, f"--customize-hook={_CLEAN}"),
    ),
}  # fmt: skip
RENAMED = {"trixie": {"libssl3": "libssl3t64"}}  # since the transition to a 64-bit time_t
# Releases before trixie merge /bin into /usr by a program in perl, unless that is done for them, as the official are.
MERGED_USR = {"bookworm": ("--hook-dir=/usr/share/mmdebstrap/hooks/maybe-merged-usr",)}


def make(name: str, debian: str, say: Callable[[str], None], ca: Path | None) -> str:
    """Make the image of a base, or of the Rust builder, of a Debian release's packages, when the engine has none.

    Returns the name that the lab gave it. An image may have other names too, which their owner may remove at any time:
    builds take this one. `ca` is the CA bundle for the builder's crate registry. Raises LabError when packages cannot
    be had.
    """
    recipe = RECIPES[name]
    debian = DEBIAN if recipe.stand_in else debian
    names = [RENAMED.get(debian, {}).get(package, package) for package in recipe.packages
             if package != "upx-ucl" or debian not in WITHOUT_UPX]  # fmt: skip
    options = [*recipe.options, *(MERGED_USR.get(debian, ()) if recipe.variant == "minbase" else ())]
    changes = [PATH]
    if name in ("distroless", "static"):
        changes.append("ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt")
    if recipe.stand_in:  # wherever the image goes, this goes with it
        changes.append(f'LABEL {client.STAND_IN_LABEL}="{recipe.label}"')
    made_of = (debian, recipe.variant, names, options, changes, _sources(BUILDER_FOLDER) if name == BUILDER else "")
    tag = f"{debian}-{hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]}"
    finished = f"{client.repository(name)}:{tag}"
    if images.find_image(finished):
        return finished
    there = {"mmdebstrap": shutil.which("mmdebstrap"), "debian-archive-keyring": Path(KEYRING).exists()}
    if missing := [package for package, found in there.items() if not found]:
        install(missing, say)
    if os.geteuid() and (refusal := user_namespace_refusal()):
        remedy = REMEDIES["user namespace"]
        raise LabError(f"{name}: mmdebstrap cannot run without root here ({refusal}): {remedy}")

    say(f"{name}: {machine.as_root()}mmdebstrap makes a root file system of Debian packages ({debian})")
    rootfs_name = f"{name}-rootfs" if name == BUILDER else name
    with process.work_folder() as folder:
        archive = folder / "rootfs.tar"
        # A fixed time makes the archive, and with it the image's layer, the same whenever the packages are.
        include = [f"--include={','.join(names)}"] if names else []
        _mmdebstrap(name, [f"--variant={recipe.variant}", *include, *options, debian, str(archive)], folder)
        images.import_rootfs(archive, archive.stat().st_size, rootfs_name, tag, changes)
    if name != BUILDER:
        return finished

    say(f"{name}: compiling the standard library for musl (about a minute)")
    build_folder(BUILDER_FOLDER, finished, {"ROOTFS": f"{client.repository(rootfs_name)}:{tag}"}, ca)
    return finished


def _mmdebstrap(name: str, arguments: list[str], folder: Path) -> None:
    """Run mmdebstrap, as root or in a user namespace. Raises LabError with what it printed as the cause.

    In a user namespace its ids are others, which a user's home is closed to: it works where programs put what is
    temporary, and only its output, which it writes as the user, goes into the lab's `folder`.
    """
    apart, mode = _can_be_apart(), ["--mode=unshare"] if os.geteuid() else []
    command = [*(_APART if apart else ()), "mmdebstrap", *mode, f"--setup-hook={_AS_ROOT}", "--skip=output/dev"]
    environment = {"SOURCE_DATE_EPOCH": "0"} | ({"TMPDIR": str(folder)} if apart else {})
    try:
        process.run([*command, *arguments], env=environment, cwd=Path("/") if mode else None)
    except process.CommandError as error:  # what failed is said first; then comes all that failed with it
        if error.disk_full:
            raise
        said = [line.removeprefix("E: ") for line in error.stderr.splitlines() if line.startswith("E: ")]
        raise LabError(
            f"{name}: mmdebstrap could not make a root file system ({proxy.redact(said[0]) if said else error}); name "
            f"a registry, an image or an archive: --registry HOST, --base {name}=SOURCE"
        ) from None


def _can_be_apart() -> bool:
    """Whether this process may make namespaces so: as root, and not in a container that may not."""
    if os.geteuid():
        return False
    try:
        process.run([*_APART, "true"])
    except LabError:
        return False
    return True


def make_tools(name: str, base: str, rust: str, say: Callable[[str], None], ca: Path | None) -> Image:
    """Make an image of the benchmark tools, by its folder's name, on an image of Debian, when the engine has none;
    `rust` compiles what is compiled. That of `oha` stands on that of `tools`. Raises LabError when packages or crates
    cannot be had."""
    argument = "DEBIAN_IMAGE"
    if name != "tools":
        tags = map(images.plain_name, make_tools("tools", base, rust, say, ca).tags)
        base, argument = next(tag for tag in tags if tag.startswith(client.repository("tools"))), "TOOLS_IMAGE"
    folder = MEASURE_FOLDER / name
    made_of = (images.contents_digest(base), images.contents_digest(rust), _sources(folder))
    finished = f"{client.repository(name)}:{hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]}"
    if image := images.find_image(finished):
        return image
    say(f"{name}: {MADE_OF[name]}")
    return build_folder(folder, finished, {argument: base, "RUST_IMAGE": rust}, ca)


def build_folder(folder: Path, name: str, arguments: dict[str, str], ca: Path | None) -> Image:
    """The image `name` of a folder with a Dockerfile of the lab's own, with its label and `arguments` (build args)."""
    secrets = [f"id=ca,src={ca}"] if ca else []
    if client.is_podman():
        podman.build_folder(folder, name, arguments, secrets)
    else:
        options = [option for key, value in arguments.items() for option in ("--build-arg", f"{key}={value}")]
        options += [option for secret in secrets for option in ("--secret", secret)]
        options += [*proxy.build_options(), "--label", f"{client.IMAGE_LABEL}={client.lab_id()}"]
        command = [*buildx_command(), "build", f"--builder={client.own_builder()}", "--provenance=false"]
        process.run([*command, "--output=type=docker", "--tag", name, *options, str(folder)])
    return images.find_image(name)


def _sources(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.iterdir()) if path.is_file())
