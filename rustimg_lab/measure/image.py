"""Sizes of an image, in bytes: by layer, unpacked and compressed, of the base and of the app.

Bytes are computed from the layers, not taken from `docker images`, whose size is another quantity with each engine
(the legacy store's is unpacked, the containerd store's compressed: github.com/moby/moby/pull/53426). Compressed bytes
are computed too: each layer is unpacked and compressed again by one pinned library. What an engine pushes differs with
the engine's own gzip by 1 to 2.5%, and with how a base image came to it; that is a metric of its own.
"""

import re
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import IO

import cramjam

from rustimg_lab.engine import client, images
from rustimg_lab.engine.local_registry import Registry
from rustimg_lab.errors import LabError
from rustimg_lab.host.files import DiskFull
from rustimg_lab.model import metrics
from rustimg_lab.store.rows import Observation

# gzip and zstd at the levels that Docker and BuildKit use unless told otherwise. The library is in pure Rust (gzip) or
# brings its own zstd: the bytes do not depend on the machine.
GZIP_LEVEL, ZSTD_LEVEL = 6, 3
COMPRESSOR = f"each layer alone, by cramjam {metadata.version('cramjam')}"


@dataclass(frozen=True)
class Layer:
    """One layer: the instruction that made it, the sum of its files' bytes, its bytes compressed by gzip and by zstd,
    and the path of a shell in it, "" for none."""

    instruction: str
    file_bytes: int
    gzip_bytes: int
    zstd_bytes: int
    shell: str


def measure_image(image: str, base: str | None, registry: Registry | None) -> list[Observation]:
    """Return rows of an image's sizes in bytes, and of a shell in it. `base` is the id of the base image, None for
    scratch. All sizes but `pushed_bytes` are equal on every engine. `pushed_bytes` sums up the layers that this engine
    pushes to `registry`. If it cannot push, the row has no value, and the reason as detail. Raises LabError when the
    engine cannot save the image, and DiskFull."""
    layers = read_layers(image)
    base_count = len(images.inspect(base).layers) if base else 0
    app = layers[base_count:]
    gzip_with, zstd_with = f"gzip -{GZIP_LEVEL}, {COMPRESSOR}", f"zstd -{ZSTD_LEVEL}, {COMPRESSOR}"
    rows = [
        Observation(metrics.UNPACKED_BYTES, sum(layer.file_bytes for layer in layers)),
        Observation(metrics.BASE_BYTES, sum(layer.file_bytes for layer in layers[:base_count])),
        Observation(metrics.APP_BYTES, sum(layer.file_bytes for layer in app)),
        Observation(metrics.COMPRESSED_BYTES, sum(layer.gzip_bytes for layer in layers), detail=gzip_with),
        Observation(metrics.COMPRESSED_APP_BYTES, sum(layer.gzip_bytes for layer in app), detail=gzip_with),
        Observation(metrics.COMPRESSED_ZSTD_BYTES, sum(layer.zstd_bytes for layer in layers), detail=zstd_with),
        _pushed(image, registry),
        Observation(metrics.SHELL, next((layer.shell for layer in layers if layer.shell), "")),
    ]
    for order, layer in enumerate(layers):
        detail = f"{'base' if order < base_count else 'app'}: {layer.instruction}"
        rows.append(Observation(metrics.LAYER_BYTES, layer.file_bytes, order=order, detail=detail))
    return rows


def _pushed(image: str, registry: Registry | None) -> Observation:
    if registry is None:
        return Observation(metrics.PUSHED_BYTES, None, detail="not measured: docker-registry is missing")
    try:
        pushed = sum(registry.push(image).layer_bytes)
        return Observation(metrics.PUSHED_BYTES, pushed, detail=client.engine_info().version)
    except DiskFull:
        raise
    except LabError as error:
        return Observation(metrics.PUSHED_BYTES, None, detail=f"not measured: {error}")


def read_layers(image: str) -> list[Layer]:
    """Return the layers of an image, the base's first, each with the instruction that made it. The instruction is
    `unknown` when the image's history does not match its layers."""
    with images.open_layers(image) as (config, archives):
        instructions = [
            entry.get("created_by") or "imported root file system"
            for entry in config.get("history", [])
            if not entry.get("empty_layer")
        ]
        diff_ids = config["rootfs"]["diff_ids"]
        if len(instructions) != len(diff_ids):
            instructions = ["unknown"] * len(diff_ids)
        layers = []
        for diff_id, instruction, archive in zip(diff_ids, instructions, archives, strict=True):
            file_bytes, shell = files_of_layer(archive)
            layers.append(Layer(instruction, file_bytes, *_compressed(diff_id, archive), shell))
        return layers


def files_of_layer(layer: IO[bytes]) -> tuple[int, str]:
    """Return the total bytes of the files in a layer's tar archive, and the path of a shell in it ("" for none)."""
    with tarfile.open(fileobj=layer) as files:
        members = files.getmembers()
    programs = [member.name for member in members if member.mode & 0o111 and not member.isdir()]
    shells = (name for name in programs if re.fullmatch(r"(.*/)?(ba|da|a|k|z)?sh", name))
    return sum(member.size for member in members if member.isfile()), next(shells, "")


_known_compressed: dict[str, tuple[int, int]] = {}  # by DiffID: cells share the layers of their bases


def _compressed(diff_id: str, layer: IO[bytes]) -> tuple[int, int]:
    """The bytes of a layer's archive, its times left out, as gzip and as zstd make them."""
    if diff_id not in _known_compressed:
        compressors = cramjam.gzip.Compressor(level=GZIP_LEVEL), cramjam.zstd.Compressor(level=ZSTD_LEVEL)
        with _without_times(layer) as plain:
            for block in iter(lambda: plain.read(1 << 20), b""):
                for compressor in compressors:
                    compressor.compress(block)
        gzip_bytes, zstd_bytes = (len(compressor.finish()) for compressor in compressors)
        _known_compressed[diff_id] = gzip_bytes, zstd_bytes
    return _known_compressed[diff_id]


@contextmanager
def _without_times(layer: IO[bytes]) -> Iterator[IO[bytes]]:
    """Yield a copy of a layer's archive with all times 0 and without names of users. These differ between builds, and
    between engines' ways to write an archive, and would change the compressed bytes."""
    layer.seek(0)
    with tempfile.TemporaryFile() as plain:
        with (
            tarfile.open(fileobj=layer) as archive,
            tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as copy,
        ):
            for member in archive:
                member.mtime, member.uname, member.gname = 0, "", ""
                member.pax_headers = {name: text for name, text in member.pax_headers.items() if "xattr" in name}
                copy.addfile(member, archive.extractfile(member) if member.isreg() else None)
        plain.seek(0)
        yield plain
