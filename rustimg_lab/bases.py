"""Where a base image comes from, and its provenance.

Two sources so far: an image that the local engine has (the official reference, or one that the user names), and Debian
packages, of which a root file system is made and imported.
"""

import hashlib
import io
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import docker.errors

from rustimg_lab import engine, host
from rustimg_lab.errors import LabError, unknown
from rustimg_lab.matrix import BUILDER, BUILDER_REFERENCE, Base

DEBIAN = "trixie"
BUILDER_FOLDER = Path(__file__).parent / "builder"
# What debian:*-slim leaves out (debuerreotype, .slimify-excludes) and, of that, keeps (.slimify-includes).
SLIM = (
    *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*"
      for folder in ("doc", "groff", "info", "linda", "lintian", "locale", "man")),
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
)  # fmt: skip

# dpkg's database is empty where packages are only unpacked; like the official distroless images, ours name them there.
_STATUS = """
mkdir -p "$1/var/lib/dpkg/status.d"
for deb in "$1"/var/cache/apt/archives/*.deb; do
    dpkg-deb --field "$deb" > "$1/var/lib/dpkg/status.d/$(dpkg-deb --field "$deb" Package)"
done
"""
# apt brings what the packages depend on; these four, which only set others up, the official image leaves out too.
_DISTROLESS = """
for name in debconf mawk openssl openssl-provider-legacy; do
    for deb in "$1"/var/cache/apt/archives/"$name"_*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar --list | grep -v '/$' | (cd "$1" && xargs rm -f)
        rm "$deb"
    done
done
"""
# What ca-certificates does when it is set up.
_CA_BUNDLE = 'cat "$1"/usr/share/ca-certificates/mozilla/*.crt > "$1/etc/ssl/certs/ca-certificates.crt"'
_ALPINE = """
ln -s usr/bin "$1/bin"
ln -s usr/lib "$1/lib"
ln -s busybox "$1/usr/bin/sh"
"""
# mmdebstrap copies the first two from the machine that it runs on.
_CLEAN = 'rm -f "$1/etc/hostname" "$1/etc/resolv.conf" "$1/etc/fstab"'


@dataclass(frozen=True)
class Recipe:
    """How a stand-in is made: an mmdebstrap variant, packages, hooks that get the root file system as `$1`."""

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
        (
            f"--extract-hook={_STATUS}{_ALPINE}{_CLEAN}",
        ),
        stand_in=True,
    ),
    "distroless": Recipe(
        "distroless/cc's packages, from Debian",
        "extract",
        # the list of packages of Google's cc image: github.com/GoogleContainerTools/distroless, cc/ and base/
        ("base-files", "netbase", "tzdata", "media-types", "ca-certificates", "libc6", "libssl3t64", "libgcc-s1",
         "libstdc++6", "libgomp1"),
        (
            f"--extract-hook={_DISTROLESS}{_STATUS}{_CA_BUNDLE}\n{_CLEAN}",
        ),
    ),
    "debian": Recipe("debian slim, from Debian packages", "minbase", (), (*SLIM, f"--customize-hook={_CLEAN}")),
    BUILDER: Recipe(
        "Rust builder, from Debian packages",
        "minbase",
        ("rustc-web", "cargo-web", "rust-web-src", "gcc", "g++", "libc6-dev", "make", "musl-tools", "musl-dev",
         "ca-certificates", "binutils"),
        (*SLIM, f"--customize-hook={_CLEAN}"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Provenance:
    """Where an image came from. `image` is what a build names; `digest` the engine's id of it; `packages` by name."""

    name: str
    image: str
    digest: str
    source: str
    label: str
    release: str
    stand_in: bool
    packages: dict[str, str]

    def as_dict(self) -> dict:
        """For the environment of a run: without the name of the image, which holds this clone's id."""
        fields = asdict(self)
        if self.source == "Debian packages":
            del fields["image"]
        return fields


def resolve(
    base: Base | None, named: dict[str, str], say: Callable[[str], None], ca: Path | None = None
) -> Provenance | None:
    """The image for `base`, made when the engine has none; the Rust builder for None, and None for scratch.

    `named` are the images that the user gave by base name. `ca` is the CA bundle for the builder's crate registry.
    Raises LabError when a named image is missing or of another architecture, or packages cannot be had.
    """
    name, reference = (base.name, base.reference) if base else (BUILDER, BUILDER_REFERENCE)
    if reference is None:
        return None
    if name in named:
        image = engine.find_image(named[name])
        if image is None:
            raise LabError(f"--base {name}={named[name]}: the engine has no such image; pull or load it first")
        return _describe(name, named[name], image, "local image, named by the user")
    if image := engine.find_image(reference):
        return _describe(name, reference, image, "local image")
    image = _from_packages(name, RECIPES[name], say, ca)
    return _describe(name, image.tags[0], image, "Debian packages")


def parse_named(options: list[str]) -> dict[str, str]:
    """`NAME=IMAGE` options as a dict. Raises LabError on a name that is no base with an image, or an empty image."""
    named = {}
    for option in options:
        name, separator, image = option.partition("=")
        if not separator or not image:
            raise LabError(f"--base {option}: give it as NAME=IMAGE, for example --base alpine=alpine:3.24")
        if name == "scratch":
            raise LabError("--base scratch=...: scratch is empty and has no image")
        if name not in RECIPES:
            raise unknown("base", name, RECIPES)
        named[name] = image
    return named


def _describe(name: str, reference: str, image: engine.Image, source: str) -> Provenance:
    if image.attrs["Architecture"] not in ("amd64", "x86_64"):
        raise LabError(f"image {reference} is for {image.attrs['Architecture']}; the lab builds for x86_64 only")
    made = source == "Debian packages"
    packages, release = read_packages(image.id)
    return Provenance(
        name=name,
        image=reference,
        digest=image.id,
        source=source,
        label=RECIPES[name].label if made else reference,
        release=release or (f"Debian {DEBIAN}" if made else "unknown"),
        stand_in=made and RECIPES[name].stand_in,
        packages=packages,
    )


def read_packages(image: str) -> tuple[dict[str, str], str]:
    """The packages that an image's own database names (version by name), and its release as in os-release."""
    container = engine.create_container(image, command=["nothing"])
    try:
        status, status_d, apk, release = (
            _read(container, path)
            for path in (
                "/var/lib/dpkg/status",
                "/var/lib/dpkg/status.d",
                "/lib/apk/db/installed",
                "/usr/lib/os-release",
            )
        )
    finally:
        container.remove(force=True)
    packages = {}
    for paragraph in f"{status}\n\n{status_d}".split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        if "Package" in fields and "Version" in fields:
            packages[fields["Package"]] = fields["Version"]
    for paragraph in apk.split("\n\n"):
        fields = dict(line.split(":", 1) for line in paragraph.splitlines() if ":" in line)
        if "P" in fields and "V" in fields:
            packages[fields["P"]] = fields["V"]
    pretty = [line.split("=", 1)[1].strip('"') for line in release.splitlines() if line.startswith("PRETTY_NAME=")]
    return dict(sorted(packages.items())), pretty[0] if pretty else ""


def _read(container: engine.Container, path: str) -> str:
    """The text of a file in a container, or of all files of a folder with an empty line between; "" if absent."""
    try:
        archive = io.BytesIO(b"".join(container.get_archive(path)[0]))
    except docker.errors.NotFound:
        return ""
    with tarfile.open(fileobj=archive) as files:
        texts = [files.extractfile(member).read().decode(errors="replace") for member in files if member.isfile()]
    return "\n\n".join(texts)


def _from_packages(name: str, recipe: Recipe, say: Callable[[str], None], ca: Path | None) -> engine.Image:
    key = hashlib.sha256(repr((DEBIAN, recipe, _builder_sources() if name == BUILDER else "")).encode()).hexdigest()
    tag = f"{DEBIAN}-{key[:12]}"
    finished = f"{engine.repository(name)}:{tag}"
    if image := engine.find_image(finished):
        return image
    if not shutil.which("mmdebstrap"):
        raise LabError(f"mmdebstrap is missing: {host.REMEDIES['mmdebstrap']}")

    say(f"{name}: {host.as_root()}mmdebstrap makes a root file system of Debian packages")
    rootfs_name = f"{name}-rootfs" if name == BUILDER else name
    changes = ["ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    if name == "distroless":
        changes.append("ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt")
    with engine.work_folder() as folder:
        archive = folder / "rootfs.tar"
        # A fixed time makes the archive, and with it the image's layer, the same whenever the packages are.
        include = [f"--include={','.join(recipe.packages)}"] if recipe.packages else []
        engine.run(
            ["mmdebstrap", f"--variant={recipe.variant}", "--quiet", "--skip=output/dev", *include, *recipe.options,
             DEBIAN, str(archive)],
            env={"SOURCE_DATE_EPOCH": "0"},
        )  # fmt: skip
        image = engine.import_rootfs(str(archive), rootfs_name, tag, changes)
    if name != BUILDER:
        return image

    say(f"{name}: compiling the standard library for musl (about a minute)")
    secret = ["--secret", f"id=ca,src={ca}"] if ca else []
    engine.run(
        [*host.buildx_command(), "build", "--builder=default", "--output=type=docker", *secret, "--tag", finished,
         "--build-arg", f"ROOTFS={image.tags[0]}", "--label", f"{engine.IMAGE_LABEL}={engine.lab_id()}",
         str(BUILDER_FOLDER)],
    )  # fmt: skip
    return engine.find_image(finished)


def _builder_sources() -> str:
    return "".join(path.read_text() for path in sorted(BUILDER_FOLDER.iterdir()))


def needs_packages(bases: list[Base], named: dict[str, str]) -> bool:
    """Whether any of `bases`, or the builder, will have to be made of Debian packages."""
    wanted = {BUILDER: BUILDER_REFERENCE} | {base.name: base.reference for base in bases if base.reference}
    return any(name not in named and not engine.find_image(reference) for name, reference in wanted.items())
