import re
from dataclasses import replace

import pytest
from support.crates import MANIFEST, crate

from rustimg_lab.build import dockerfile, lab_toml
from rustimg_lab.model import matrix, profiles
from rustimg_lab.model.bases import RUST_VERSION, all_bases
from rustimg_lab.paths import MYIP

CELLS = matrix.grid(all_bases(), matrix.PROFILES, matrix.ALLOCATORS)
EVERY_CELL = pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.slug)


@pytest.fixture(scope="module")
def app():
    return lab_toml.load(MYIP)


@pytest.mark.parametrize("base", all_bases())
def test_the_committed_dockerfiles_are_the_generated_ones(base, app):
    """To write them anew: ./lab dockerfile BASE > examples/myip/Dockerfile.BASE"""
    cell = matrix.cell(base, "optimized", matrix.ARTICLE)
    assert (MYIP / f"Dockerfile.{base}").read_text() == dockerfile.render(cell, app)


@EVERY_CELL
def test_what_every_dockerfile_has(cell, app):
    text = dockerfile.render(cell, app)
    assert "BuildKit" in text.splitlines()[0]
    assert "# syntax=" not in text  # it would need a pull
    assert "USER 10001:10001" in text
    assert "cargo build --locked" in text
    assert f"--features {cell.allocator};" in text
    assert text.endswith('ENTRYPOINT ["/myip/myip"]\n')


@EVERY_CELL
def test_base_references_are_global_args_with_the_official_images_as_defaults(cell, app):
    before_the_first_stage, *stages = re.split(r"^FROM ", dockerfile.render(cell, app), flags=re.MULTILINE)
    assert f"ARG RUST_IMAGE={matrix.reference('rust')}\n" in before_the_first_stage
    assert stages[0].startswith("--platform=$BUILDPLATFORM ${RUST_IMAGE} AS builder\n")
    if reference := matrix.reference(cell.base.name):
        assert f"ARG BASE_IMAGE={reference}\n" in before_the_first_stage
        assert stages[1].startswith("${BASE_IMAGE}\n")
    else:
        assert stages[1].startswith("scratch\n")


@EVERY_CELL
def test_nothing_is_copied_from_the_root_of_the_builder(cell, app):
    """BuildKit looks at every file beside what is copied, and keeps a record of each."""
    text = dockerfile.render(cell, app) + dockerfile.render(cell, app, template=dockerfile.FACTS)
    copied = re.findall(r"^COPY --from=\S+ (\S+) ", text, re.MULTILINE)
    assert len(copied) == 4 and all(path.startswith("/build/") for path in copied)


@EVERY_CELL
def test_cache_mounts_have_literal_keys(cell, app):
    """This BuildKit expands no `${ARG}` in the id or the target of a cache mount."""
    mounts = re.findall(r"--mount=type=cache\S+", dockerfile.render(cell, app))
    assert len(mounts) == 2
    assert not any("$" in mount for mount in mounts)


def test_one_target_directory_per_lockfile_target_and_profile(app):
    other = replace(app, lock_sha256="0" * 64)
    assert len({dockerfile.cache_id(cell, a) for cell in CELLS for a in (app, other)}) == 2 * 2 * 2


def test_what_build_scripts_find_beside_the_sources_has_a_target_directory_of_its_own(app):
    cell = matrix.cell("scratch", "optimized", "system")
    found = [
        {"system_packages": ("libbz2-dev",)}, {"build_commands": ("x",)},
        {"build_environment": (("BZIP2_STATIC", "1"),)},
    ]  # fmt: skip
    ids = {dockerfile.cache_id(cell, app), *(dockerfile.cache_id(cell, replace(app, **each)) for each in found)}
    assert len(ids) == 4


def test_what_the_crates_of_others_find_has_a_target_directory_of_its_own(tmp_path):
    """Their sources in a folder of the project, and its variables: cargo looks for no change of these."""
    vendored = '[source.crates-io]\nreplace-with = "v"\n[source.v]\ndirectory = "vendor"\n'
    cell, ids = matrix.cell("scratch", "optimized", "system"), []
    for files in (
        {}, {".cargo/config.toml": '[env]\nLEVEL = "1"\n'}, {".cargo/config.toml": '[env]\nLEVEL = "2"\n'},
        {".cargo/config.toml": vendored, "vendor/itoa/src/lib.rs": "1"}, {"vendor/itoa/src/lib.rs": "2"},
        {".cargo/config.toml": 'paths = ["vendor/itoa"]\n', "vendor/itoa/src/lib.rs": "3"},
        {"vendor/itoa/src/lib.rs": "4"},
    ):  # fmt: skip
        crate(tmp_path, files)
        ids.append(dockerfile.cache_id(cell, lab_toml.load(tmp_path)))
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("manifest", "flags", "exported"),
    [
        ('strip = "none"', "", ""), ("strip = false", "", ""), ("strip = true", "", "RELEASE_STRIP=debuginfo"),
        ('[profile.release.package.b]\nstrip = "symbols"', "", "RELEASE_STRIP=debuginfo"),
        ("", '"-Cstrip=none"', ""), ("", '"-C", "strip=symbols"', "RUSTFLAGS='-C strip=symbols -Cstrip=debuginfo'"),
        ("", '"-C", "link-arg=-s", "-Clink-arg=-lz"',
         "RUSTFLAGS='-C strip=debuginfo -Clink-arg=-lz -Cstrip=debuginfo'"),
        ("", '"-Clink-args=-Wl,--strip-all"', "RUSTFLAGS='-Cstrip=debuginfo -Cstrip=debuginfo'"),
        ("", '"-Clink-arg=-Wl,-soname=s"', ""),
        ("", '"-Clink-arg=-Wl,--gc-sections,-s"', "RUSTFLAGS='-Clink-arg=-Wl,--gc-sections -Cstrip=debuginfo'"),
        ("", '"-Clink-args=-Wl,-s,-z,now"', "RUSTFLAGS='-Clink-args=-Wl,-z,now -Cstrip=debuginfo'"),
    ],
)  # fmt: skip
def test_a_project_that_strips_leaves_that_to_the_labs_profile_and_another_one_keeps_all(
    tmp_path, manifest, flags, exported
):
    files = {"Cargo.toml": MANIFEST.format("a") + f"[profile.release]\n{manifest}\n"}
    crate(tmp_path, files | {".cargo/config.toml": f"[build]\nrustflags = [{flags}]\n"})
    text = dockerfile.render(matrix.cell("debian", "baseline", "system"), lab_toml.load(tmp_path))
    assert exported in text and (exported or not re.search("STRIP=|RUSTFLAGS=|package.*strip=", text))


def test_a_server_is_the_same_text_with_another_binary_and_one_feature_more(app):
    cell = matrix.cell("scratch", "optimized", "jemalloc")
    client, server = dockerfile.render(cell, app), dockerfile.render(cell, app.server)
    assert "--bin myip-server --features server,jemalloc;" in server
    assert server.replace("server,", "").replace("myip-server", "myip") == client


def test_only_the_final_stage_differs_between_bases_of_one_binary(app):
    def builder(base: str) -> str:
        text = dockerfile.render(matrix.cell(base, "optimized", "jemalloc"), app)
        return text[text.index("FROM --platform") : text.rindex("\nFROM ")]

    assert builder("scratch") == builder("alpine")
    assert builder("distroless") == builder("debian")


@pytest.mark.parametrize("profile", profiles.all_profiles().values(), ids=lambda profile: profile.name)
def test_a_profile_strips_or_not(profile, app):
    assert ("strip -s" in dockerfile.render(matrix.cell("scratch", profile.name, "system"), app)) == profile.strip


def test_a_release_names_its_images_and_its_target_directory(app):
    """What a build script compiled on one release may need a newer glibc than the other has."""
    on_trixie, on_bookworm = (matrix.cell("distroless", "baseline", "system", debian) for debian in matrix.RELEASES)
    text = dockerfile.render(on_bookworm, app)
    assert f"ARG RUST_IMAGE=rust:{RUST_VERSION}-slim-bookworm\n" in text
    assert "ARG BASE_IMAGE=gcr.io/distroless/cc-debian12\n" in text
    assert "trixie" not in text
    ids = {dockerfile.cache_id(cell, app, toolchain) for cell in (on_trixie, on_bookworm) for toolchain in ("", "mine")}
    assert len(ids) == 3  # a builder that the user named is one and the same, whatever the release
