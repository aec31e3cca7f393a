"""Base images, the Rust builder and the benchmark tools image, made of Debian packages."""

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from docker.models.images import Image

from rustimg_lab.build.known import TEMPLATES
from rustimg_lab.build.origins import ImageRequest, Origin
from rustimg_lab.engine import client, images, podman
from rustimg_lab.engine.emulation import emulates
from rustimg_lab.errors import LabError
from rustimg_lab.host import files, machine, process, proxy
from rustimg_lab.host.tools import KEYRING, REMEDIES, buildx_command, install, user_namespace_refusal
from rustimg_lab.model import matrix, names
from rustimg_lab.model.architecture import NATIVE, Architecture
from rustimg_lab.model.bases import BUILDER, DEBIAN, Recipe, bases_and_builder, fill_release
from rustimg_lab.paths import BASES

SOURCE = "Debian packages"
BUILDER_FOLDER = Path(__file__).parent / "builder"
MADE_OF = {
    "tools": "the load generator wrk, curl, valgrind, dnsmasq and Python, from Debian's packages; starter",
    "oha": "the load generator of an open loop, from the crate registry (some minutes, once)",
}
MEASURE_FOLDER = Path(__file__).parent.parent / "measure"  # `tools` and `oha`: the benchmark tools images
PATH = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # in every image that is imported
# What debian:*-slim leaves out (debuerreotype, .slimify-excludes) and, of that, keeps (.slimify-includes).
_NOT_IN_SLIM = ("doc", "groff", "info", "linda", "lintian", "locale", "man")
SLIM = [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in _NOT_IN_SLIM]
SLIM.append("--dpkgopt=path-include=/usr/share/doc/*/copyright")

# Two folders are owned by apt's user, which is root in any mode so: a layer does not depend on who made it. mmdebstrap
# removes this file at the end.
_AS_ROOT = """echo 'APT::Sandbox::User "root";' >> "$1/etc/apt/apt.conf.d/00mmdebstrap\""""

# As root, mmdebstrap mounts what programs of packages need. In namespaces of its own no process and no mount is left of
# it, however the lab ends; what it wrote is in a folder that the next lab removes.
_APART = ("setpriv", "--pdeathsig=KILL", "--", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")

# Releases before trixie merge /bin into /usr by a program in perl, unless that is done for them, as the official are.
MERGED_USR = {"bookworm": ("--hook-dir=/usr/share/mmdebstrap/hooks/maybe-merged-usr",)}


def obtain(request: ImageRequest) -> Origin:
    """Make an image of packages unless the engine has it. Raises LabError as `make` does."""
    debian = request.sources.debian
    base, _ = names.parse_image_name(request.name)
    image_name = make(request.name, debian, request.say, request.ca)
    return request.obtained(image_name, source=SOURCE, reference=matrix.reference(base, debian))


def make(name: str, debian: str, say: Callable[[str], None], ca: Path | None) -> str:
    """Make the image of a base, or of the Rust builder (`names.parse_image_name`), of a Debian release's packages,
    unless the engine has it. Returns the name that the lab gave it, which builds use: the owner of another name may
    remove that at any time. `ca` is the CA bundle for the builder's crate registry. Raises LabError when packages
    cannot be had, or mmdebstrap cannot run."""
    base, architecture = names.parse_image_name(name)
    recipe = bases_and_builder()[base].packages
    if not recipe:
        raise LabError(f"{name}: {BASES.name} does not say of which Debian packages it can be made; name an image")
    recipe = _without_programs(recipe) if architecture is not NATIVE and not emulates(architecture.value) else recipe
    debian = DEBIAN if recipe.stand_in else debian
    packages = [package for text in recipe.names if (package := fill_release(text, debian))]
    options = [*_options(recipe, debian), *_foreign_options(architecture)]
    changes = [PATH, *(f"ENV {key}={value}" for key, value in recipe.environment)]
    if recipe.stand_in:  # wherever the image goes, this goes with it
        changes.append(f'LABEL {client.STAND_IN_LABEL}="{recipe.label}"')
    inputs = (debian, recipe.variant, packages, options, changes, _sources(BUILDER_FOLDER) if name == BUILDER else "")
    tag = f"{debian}-{hashlib.sha256(repr(inputs).encode()).hexdigest()[:12]}"
    image_name = f"{client.repository(name)}:{tag}"
    if images.find_image(image_name):
        return image_name
    requirements = {"mmdebstrap": shutil.which("mmdebstrap"), "debian-archive-keyring": Path(KEYRING).exists()}
    if missing_packages := [package for package, is_present in requirements.items() if not is_present]:
        install(missing_packages, say)
    if os.geteuid() and (refusal := user_namespace_refusal()):
        remedy = REMEDIES["user namespace"]
        raise LabError(f"{name}: mmdebstrap cannot run without root here ({refusal}): {remedy}")

    say(f"{name}: {machine.root_prefix()}mmdebstrap makes a root file system of Debian packages ({debian})")
    rootfs_name = f"{name}-rootfs" if name == BUILDER else name
    with process.work_folder() as folder:
        archive = folder / "rootfs.tar"
        # A fixed time makes the archive, and with it the image's layer, the same whenever the packages are.
        include = [f"--include={','.join(packages)}"] if packages else []
        _mmdebstrap(name, [f"--variant={recipe.variant}", *include, *options, debian, str(archive)], folder)
        import_rootfs(archive, archive.stat().st_size, rootfs_name, tag, changes, architecture)
    if name != BUILDER:
        return image_name

    say(f"{name}: compiling the standard library for musl (about a minute)")
    build_folder(BUILDER_FOLDER, image_name, {"ROOTFS": f"{client.repository(rootfs_name)}:{tag}"}, ca)
    return image_name


def import_rootfs(
    archive: Path, unpacked_bytes: int, name: str, tag: str, changes: list[str], architecture: Architecture
) -> Image:
    """Make an image of one layer from a root file system archive. For another architecture than this machine's the
    image is built, since Docker Engine 20.10 imports for its own alone."""
    if architecture is NATIVE:
        return images.import_rootfs(archive, unpacked_bytes, name, tag, changes)
    with process.work_folder() as folder:
        shutil.copyfile(archive, folder / "rootfs.tar")
        (folder / "Dockerfile").write_text("\n".join(["FROM scratch", "ADD rootfs.tar /", *changes]))
        return build_folder(folder, f"{client.repository(name)}:{tag}", {}, None, f"linux/{architecture.debian}")


def make_cross(name: str, builder: str, say: Callable[[str], None], ca: Path | None) -> Image:
    """Make the Rust builder `name` (`names.parse_image_name`) on the image `builder`, unless the engine has it. It has
    a cross compiler, and the standard library for glibc and musl. Raises LabError when packages cannot be had."""
    inputs = images.contents_digest(builder) + _sources(BUILDER_FOLDER)
    image_name = f"{client.repository(name)}:{hashlib.sha256(inputs.encode()).hexdigest()[:12]}"
    if image := images.find_image(image_name):
        return image
    _, architecture = names.parse_image_name(name)
    say(f"{name}: a cross compiler of Debian packages, and the standard library for musl (some minutes, once)")
    arguments = {"BUILDER": builder, "MACHINE": architecture.value, "ARCHITECTURE": architecture.debian}
    return build_folder(BUILDER_FOLDER, image_name, arguments, ca, file="Dockerfile.cross")


def _foreign_options(architecture: Architecture) -> list[str]:
    return [] if architecture is NATIVE else [f"--architectures={architecture.debian}", "--skip=check/qemu"]


def _without_programs(recipe: Recipe) -> Recipe:
    """The recipe for an architecture whose programs do not start here: packages are unpacked, and not set up."""
    if recipe.variant == "extract":
        return recipe
    label = f"{recipe.label}, unpacked and not set up (no emulator)"
    packages = ("?essential", "?priority(required)", "apt", *recipe.names)
    return replace(recipe, label=label, variant="extract", names=packages, stand_in=True)


def _options(recipe: Recipe, debian: str) -> list[str]:
    """The options of mmdebstrap for a recipe, beside its variant and packages."""
    hook = TEMPLATES.get_template("hook.sh.j2").render(recipe=recipe).rstrip()
    if recipe.variant == "extract":
        return [f"--extract-hook={hook}", *(SLIM if recipe.stand_in and not recipe.setup else ())]
    return [*SLIM, f"--customize-hook={hook}", *MERGED_USR.get(debian, ())]


def _mmdebstrap(name: str, arguments: list[str], folder: Path) -> None:
    """Run mmdebstrap, as root or in a user namespace. Raises LabError with what it printed as the cause.

    In a user namespace its ids are others, to which a user's home is closed. So it works in the folder for temporary
    files. Only its output, which it writes as the user, goes into the lab's `folder`.
    """
    is_apart, mode = _can_unshare(), ["--mode=unshare"] if os.geteuid() else []
    command = [*(_APART if is_apart else ()), "mmdebstrap", *mode, f"--setup-hook={_AS_ROOT}", "--skip=output/dev"]
    environment = {"SOURCE_DATE_EPOCH": "0"} | ({"TMPDIR": str(folder)} if is_apart else {})
    try:
        process.run([*command, *arguments], env=environment, cwd=Path("/") if mode else None)
    except process.CommandError as error:  # what failed is said first; then comes all that failed with it
        if error.disk_full:
            raise
        errors = [line.removeprefix("E: ") for line in error.stderr.splitlines() if line.startswith("E: ")]
        raise LabError(
            f"{name}: mmdebstrap could not make a root file system ({proxy.redact(errors[0]) if errors else error}); "
            f"name a registry, an image or an archive: --registry HOST, --base {name}=SOURCE"
        ) from None


def _can_unshare() -> bool:
    """Whether this process may make namespaces so: as root, and not in a container that may not."""
    if os.geteuid():
        return False
    try:
        process.run([*_APART, "true"])
    except LabError:
        return False
    return True


def make_tools(name: str, base: str, rust: str, say: Callable[[str], None], ca: Path | None) -> Image:
    """Make a benchmark tools image, by its folder's name, on an image of Debian, unless the engine has it. `rust` is
    the image that compiles programs. The image `oha` stands on the image `tools`. Raises LabError when packages or
    crates cannot be had."""
    argument = "DEBIAN_IMAGE"
    if name != "tools":
        tags = map(images.plain_name, make_tools("tools", base, rust, say, ca).tags)
        base, argument = next(tag for tag in tags if tag.startswith(client.repository("tools"))), "TOOLS_IMAGE"
    folder = MEASURE_FOLDER / name
    inputs = (images.contents_digest(base), images.contents_digest(rust), _sources(folder))
    image_name = f"{client.repository(name)}:{hashlib.sha256(repr(inputs).encode()).hexdigest()[:12]}"
    if image := images.find_image(image_name):
        return image
    say(f"{name}: {MADE_OF[name]}")
    return build_folder(folder, image_name, {argument: base, "RUST_IMAGE": rust}, ca)


def build_folder(
    folder: Path, name: str, arguments: dict[str, str], ca: Path | None, platform: str = "", file: str = "Dockerfile"
) -> Image:
    """Build the image `name` from a folder of the lab's own, by its Dockerfile `file`, with the lab's label.
    `arguments` are build args, `platform` is a target such as linux/arm64 (default: the engine's). Raises LabError when
    the build fails."""
    secrets = [f"id=ca,src={ca}"] if ca else []
    if client.is_podman():
        podman.build_folder(folder / file, name, arguments, secrets, platform)
    else:
        options = [option for key, value in arguments.items() for option in ("--build-arg", f"{key}={value}")]
        options += [option for secret in secrets for option in ("--secret", secret)]
        host_name = client.machine_in_builds()
        options += [*proxy.build_options(host_name), "--label", f"{client.IMAGE_LABEL}={client.lab_id()}"]
        options += ["--file", str(folder / file), *([f"--platform={platform}"] if platform else [])]
        command = [*buildx_command(), "build", f"--builder={client.own_builder()}", "--provenance=false"]
        command += ["--output=type=docker", "--tag", name, *options, str(folder)]
        process.run(command, env=proxy.variables(host_name))
    return images.find_image(name)


def _sources(folder: Path) -> str:
    """The texts in a folder of the lab's own; what no text is counts too, and what an editor leaves there does not."""
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and not files.is_editor_file(path.name)]
    return "".join(path.read_text(encoding="utf-8", errors="backslashreplace") for path in paths)
