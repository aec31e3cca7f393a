"""A cell as a user writes it without the Dockerfile: Cargo.toml and .cargo/config.toml."""

from dataclasses import replace

from rustimg_lab.model import matrix
from rustimg_lab.model.architecture import NATIVE, Architecture
from rustimg_lab.model.profiles import PUBLISHED

FACTORS = ["base", "profile", "allocator", "architecture"]  # the columns with the arguments of `cargo_profile`


def cargo_profile(base: str, profile_name: str, allocator: str, architecture: str = NATIVE.value) -> str:
    """Return how a cell is built, as a user writes it without the Dockerfile: Cargo.toml's `[profile.release]`, target
    and compiler flags for `.cargo/config.toml`, and the rest in comments. Raises LabError when there is no such cell.
    """
    cell = replace(matrix.cell(base, profile_name, allocator), architecture=Architecture.named(architecture))
    profile = cell.profile
    if profile == PUBLISHED:
        return f"# nothing: it is the crate as published, built for the target {cell.target}\n"
    settings = dict(profile.settings) | ({"strip": "true"} if profile.strip else {})
    lines = ["# Cargo.toml", "[profile.release]", *(f"{key} = {toml_value(value)}" for key, value in settings.items())]
    lines += ["", "# .cargo/config.toml", "[build]", f'target = "{cell.target}"']
    if profile.rustflags:
        flags = ", ".join(f'"{flag}"' for flag in profile.rustflags)
        lines.append(f"rustflags = [{flags}]")
    if profile.unstable:
        lines += ["", f"# RUSTC_BOOTSTRAP=1 cargo build --release {' '.join(profile.cargo)}".rstrip()]
    if allocator not in ("system", matrix.OWN):
        lines += ["", f"# with the app's own feature for {allocator} as its global allocator"]
    if profile.upx:
        lines += ["", "# then: upx --best --lzma"]
    return "\n".join(lines) + "\n"


def toml_value(value: str) -> str:
    """Return a setting of a cargo profile as a TOML value: quoted, unless it is true, false or a number."""
    return value if value in ("true", "false") or value.isdecimal() else f'"{value}"'
