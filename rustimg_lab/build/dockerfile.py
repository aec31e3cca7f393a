"""Cell -> Dockerfile text. Pure: no file but the template is read, nothing is run."""

import hashlib
import posixpath
import re
import shlex
from dataclasses import replace

from rustimg_lab.build import cargo_config, contents
from rustimg_lab.build.known import TEMPLATES
from rustimg_lab.host import files
from rustimg_lab.model.app import App
from rustimg_lab.model.architecture import Architecture
from rustimg_lab.model.bases import BUILDER, RUST_VERSION
from rustimg_lab.model.cargo_profile import toml_value
from rustimg_lab.model.extras import ADDITIONS
from rustimg_lab.model.matrix import OWN, Cell, reference
from rustimg_lab.model.profiles import PUBLISHED

# The template of stages of the lab's own, put behind the measured text, by which it reads what the builder stage made.
# They change nothing of that text: BuildKit shares the builder stage between the two.
FACTS = "facts.j2"
# By which lld keeps all that it links, so that it can link that again. For the program alone: as flags of the profile
# they would have every crate compiled anew.
_KEPT_LINK = "-- -Clink-arg=-fuse-ld=lld -Clink-arg=-Wl,--reproduce=/link.tar"

# What has the linker strip. A cell's profile says whether symbols stay, as it does of cargo's own `strip`.
_STRIPS = re.compile(r"link-args?=(-Wl,)?(-s|--strip-all)$")
_STRIPS_TOO = re.compile(r"(link-args?=\S.*?)[, ](?:-s|--strip-all)(?![^, ])")  # among other arguments

# In place of a folder of the project's own, which may be in the cache of downloads, and so another project's too.
_BUILD_DIR = "--config 'build.build-dir=\"/target\"'"


def render(cell: Cell, app: App, toolchain: str = "", template: str = "Dockerfile.j2", file: str = "") -> str:
    """Return the whole Dockerfile of `cell` for `app`, which is built, measured and published byte for byte; or the
    template `FACTS`. `toolchain` names a builder other than the default: compiled crates of both must not be mixed.
    `file` is the name in the text's head (default: Dockerfile.BASE)."""
    additions = [ADDITIONS[name] for name in cell.additions]
    return TEMPLATES.get_template(template).render(
        cell=cell,
        app=_with_files(app),
        tag=f"{files.image_part(app.name)}:{cell.base.name}",
        file=file or f"Dockerfile.{cell.base.name}",
        rust_reference=reference(BUILDER, cell.debian),
        base_reference=reference(cell.base.name, cell.debian),
        cache_id=cache_id(cell, app, toolchain),
        lacks=[description for description, _, is_needed in _builder_requirements(cell) if is_needed],
        packages=sorted(package for _, package, is_needed in _builder_requirements(cell) if is_needed and package),
        cargo=_cargo(cell, app),
        manifest=" ".join(["", *_manifest(app)]),
        architectures=_architectures(cell, app),
        exports=" ".join(_exports(cell, app)),
        commands=map(shlex.quote, app.build_commands),
        folder=shlex.quote(app.subdirectory),
        tools=[tuple(map(shlex.quote, tool)) for tool in _tools(cell, app)],
        packages_of_additions=[package for addition in additions for package in addition.packages],
        commands_of_additions=[text.format(app=app.name) for addition in additions for text in addition.commands],
        entrypoint=[text.format(app=app.name) for addition in additions for text in addition.entrypoint],
        contents=contents.commands(app.image),
        settings=contents.settings(app.image),
    )


def cold_stage(cell: Cell, app: App) -> str:
    """Return a stage named cold to append to the cell's text: an image whose command is that text's call of cargo."""
    exports = " ".join([f"SOURCE_DATE_EPOCH={app.date}", *_exports(cell, app)])
    folder = shlex.quote(f"./{app.subdirectory}")
    variables = f"CARGO_HOME=/cargo CARGO_NET_OFFLINE=true {exports}"
    script = f"cd {folder}; . /target.sh; export {variables}; exec {_cargo(cell, app)}"
    app = _with_files(app)
    return TEMPLATES.get_template("cold.j2").render(cell=cell, app=app, exports=exports, folder=folder, script=script)


def _with_files(app: App) -> App:
    """The app with the files of its secrets as they are called in the folder that builds get."""
    return replace(
        app,
        secrets=tuple((name, source if source == "env" else secret_file(app, source)) for name, source in app.secrets),
    )


def secret_file(app: App, source: str, home: str = "$HOME") -> str:
    """Return the path of a secret's file, as seen from the folder that builds get; `home` replaces `~`."""
    return source.replace("~", home, 1) if source.startswith("~/") else posixpath.join(app.subdirectory, source)


def _architectures(cell: Cell, app: App) -> list[Architecture]:
    """The architectures that the text is for: the cell's alone where the project has other flags for another one."""
    flags = _rustflags(cell, app)
    matches = [arch for arch in Architecture if _rustflags(replace(cell, architecture=arch), app) == flags]
    return matches if cell.profile != PUBLISHED else list(Architecture)  # whose flags are left to cargo


def cache_id(cell: Cell, app: App, toolchain: str = "") -> str:
    """Return the name of the target directory, one per app, lockfile, toolchain, C library, compiled profile and inputs
    of build scripts. cargo would not notice that build scripts find another library or variable, or that the builder
    has another glibc. cargo keeps architectures apart in the directory. The name is a literal in the text, since the
    BuildKit of Docker Engine 20.10 expands no `${ARG}` in the id of a cache mount."""
    toolchain = toolchain or f"rust{RUST_VERSION}-{cell.debian}"
    inputs = (app.system_packages, app.build_environment, app.build_commands, app.configuration.beside_sources)
    digest = f"-{hashlib.sha256(repr(inputs).encode()).hexdigest()[:8]}" if any(inputs) else ""
    return f"rustimg-lab-{app.package}-{app.lock_sha256[:12]}{digest}-{toolchain}-{cell.libc}-{cell.profile.compiled}"


def _tools(cell: Cell, app: App) -> list[tuple[str, str]]:
    """Return the programs that the project names, which the builder may lack, each with the error for a builder that
    does."""
    message = f"error: {app.configuration.files} names the program"
    tools = dict(app.configuration.tools).get(cell.target, ())
    return [(tool, f"{message} {tool}, which the builder lacks") for tool in tools]


def _builder_requirements(cell: Cell) -> list[tuple[str, str, bool]]:
    """Return what the official builder image may lack: a description, the Debian package that has it, and whether this
    cell needs it. The package is "" for what rustup brings."""
    return [
        ("the musl target, and a C compiler for it", "musl-tools", cell.libc == "musl"),
        ("make, for jemalloc's build", "make", cell.allocator in ("jemalloc", OWN)),
        ("the sources of the standard library", "", cell.profile.builds_std),
    ]


def _cargo(cell: Cell, app: App) -> str:
    allocator_features = [feature for name, feature in app.allocators if name == cell.allocator]
    features = [*app.features, *(app.moved_features if cell.allocator == OWN else allocator_features)]
    has_defaults, features = app.default_features or "default" in features, [f for f in features if f != "default"]
    words = [
        "cargo",
        *(["auditable"] if cell.profile.auditable else []),
        "rustc" if cell.layout else "build",
        "--locked --release" if app.profile == "release" else f"--locked --profile {app.profile}",
        *_manifest(app),
        *_profile_options(cell, app),
        *cell.profile.cargo,
        "--target $RUST_TARGET --target-dir /target",  # no variable: a build script that calls cargo would wait for us
        *([_BUILD_DIR] if app.configuration.build_dir else []),
        *([f"--package {app.package}"] if app.member else []),
        f"--bin {app.name}",
        *([] if has_defaults else ["--no-default-features"]),
        *([f"--features {','.join(features)}"] if features else []),
        *([_KEPT_LINK] if cell.layout else []),
    ]
    return " ".join(words)


def _manifest(app: App) -> list[str]:
    """The option by which cargo finds a manifest that is not where it is called."""
    return [f"--manifest-path {shlex.quote(app.manifest)}"] if app.manifest else []


def _settings(cell: Cell, app: App) -> list[tuple[str, str]]:
    """What the profile is set to. Symbols are kept, as cargo does by itself: by them the lab tells the allocator and
    the crates; the lab's profile says whether they stay."""
    strips = app.configuration.strips and cell.profile != PUBLISHED
    return [*cell.profile.settings, *([("strip", "debuginfo")] if strips else [])]


def _profile_options(cell: Cell, app: App) -> list[str]:
    """Return the settings of a profile of the crate's own, as options. cargo would take the variable of a profile
    `release-lto` for one that sets `lto` of `release`. If a profile has settings of single packages, the lab's settings
    for these packages are options too."""
    options = _settings(cell, app) if app.profile != "release" else []
    settings = dict(_settings(cell, app))
    overrides = [(name, key) for name, key in dict.fromkeys(app.configuration.overrides) if key in settings]
    options += [(f'package."{name}".{key}', settings[key]) for name, key in overrides]
    return [f"--config {shlex.quote(f'profile.{app.profile}.{key}={toml_value(value)}')}" for key, value in options]


def _exports(cell: Cell, app: App) -> list[str]:
    """What cargo reads from the environment, so that the app's own Cargo.toml stays as it is."""
    settings = _settings(cell, app) if app.profile == "release" else []
    exports = [f"CARGO_PROFILE_RELEASE_{key.upper().replace('-', '_')}={value}" for key, value in settings]
    exports += _rustflags(cell, app) if cell.profile != PUBLISHED else []
    addition_variables = [variable for name in cell.additions for variable in ADDITIONS[name].build_environment]
    exports += [f"{name}={shlex.quote(value)}" for name, value in (*app.build_environment, *addition_variables)]
    return exports + (["RUSTC_BOOTSTRAP=1"] if cell.profile.unstable else [])


def _rustflags(cell: Cell, app: App) -> list[str]:
    """The flags of the lab's profile behind the project's own. In the environment they count in place of all that
    cargo's configuration has, so where the profile has none the project's are left to cargo."""
    project_flags = dict(app.configuration.rustflags).get(cell.target, ())
    kept_flags = tuple(_STRIPS_TOO.sub(r"\1", _STRIPS.sub("strip=debuginfo", flag)) for flag in project_flags)
    strips = kept_flags != project_flags or cargo_config.options(kept_flags).get("-Cstrip", "none") != "none"
    strip_option = ("-Cstrip=debuginfo",) if strips else ()
    flags = (*kept_flags, *strip_option, *cell.profile.rustflags) if strip_option or cell.profile.rustflags else ()
    if any(re.search(r"[\s'\"\\]", flag) for flag in flags):
        pattern = "\\037".join(["%s"] * len(flags))  # the separator that cargo takes where a flag has a space in it
        return [f"CARGO_ENCODED_RUSTFLAGS=\"$(printf '{pattern}' {shlex.join(flags)})\""]
    return [f"RUSTFLAGS='{' '.join(flags)}'"] if flags else []
