"""Cell -> Dockerfile text. Pure: no file but the template is read, nothing is run."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from rustimg_lab.matrix import BUILDER_REFERENCE, MUSL, RUST_VERSION, App, Cell

_templates = Environment(
    loader=PackageLoader("rustimg_lab"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    keep_trailing_newline=True,
)  # fmt: skip

# A stage of the lab's own, put behind the measured text, by which it reads what the builder stage made. It changes
# nothing of that text: BuildKit shares the builder stage between the two.
FACTS_STAGE = """
FROM scratch AS facts
COPY --from=builder /out/ /out/
COPY --from=builder /rootfs/ /rootfs/
"""


def render(cell: Cell, app: App) -> str:
    """The Dockerfile of `cell` for `app`, whole: what is built, measured and handed out, byte for byte."""
    return _templates.get_template("Dockerfile.j2").render(
        cell=cell,
        app=app,
        rust_reference=BUILDER_REFERENCE,
        cache_id=cache_id(cell, app),
        packages=[name for name, needed in _packages(cell).items() if needed],
        musl=cell.base.target == MUSL,
        exports=" ".join(f"CARGO_PROFILE_RELEASE_{_env(key)}={value}" for key, value in cell.profile.settings),
    )


def cache_id(cell: Cell, app: App) -> str:
    """The name of the target directory: one per app, lockfile, toolchain, target and profile.

    A literal in the text, since the BuildKit of Docker Engine 20.10 expands no `${ARG}` in the id of a cache mount.
    """
    libc = "musl" if cell.base.target == MUSL else "gnu"
    return f"rustimg-lab-{app.name}-{app.lock_sha256[:12]}-rust{RUST_VERSION}-{libc}-{cell.profile.name}"


def _packages(cell: Cell) -> dict[str, bool]:
    """What the official builder image lacks for this cell, as Debian packages."""
    return {"make": cell.allocator == "jemalloc", "musl-tools": cell.base.target == MUSL}


def _env(key: str) -> str:
    return key.upper().replace("-", "_")
