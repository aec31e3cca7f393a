"""Cells -> bake file -> images.

BuildKit is called through `docker buildx bake`, once per binary with all the bases that hold it, so that no more
binaries are compiled at once than the machine has cores and memory for, and one that fails takes no other with it.
"""

import base64
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from rustimg_lab.build import diagnosis, dockerfile, inputs, sources
from rustimg_lab.build.bases import Provenance
from rustimg_lab.engine import client, podman
from rustimg_lab.engine.images import find_image
from rustimg_lab.host import process, proxy, tools
from rustimg_lab.host.files import GRID_BYTES, DiskFull, image_part, is_full, write_whole
from rustimg_lab.model.app import App
from rustimg_lab.model.architecture import NATIVE
from rustimg_lab.model.matrix import Binary, Cell
from rustimg_lab.paths import ROOT

_IMAGE_LOST = "the image was built, but the engine has it no longer: something removed it; call again"
FACTS = "facts"  # the bake target that brings the builder's results out, beside the cells'


@dataclass(frozen=True)
class Built:
    """What became of a cell: `text`, the Dockerfile that it was built of; the id of its image, or the reason why there
    is none.

    `linked` is the binary as the linker left it, `symbols` what nm says of it, `shipped` as the image has it; `cpu_s`
    the CPU seconds of cargo when that binary was built, be it now or in an earlier call. `inputs_digest` is one of all
    that the image is built of, `sources` names these alone; an image that was not built again has no binaries here.
    """

    cell: Cell
    text: str
    image: str = ""
    reason: str = ""
    linked: Path | None = None
    symbols: Path | None = None
    shipped: Path | None = None
    cpu_s: float = 0.0
    inputs_digest: str = ""
    sources: str = ""


@dataclass(frozen=True)
class BuildContext:
    """What all builds of a call have in common. `images` are the base images by name, the builder's among them; `logs`
    receives a log per cell, `work` the binaries; `builder` names a buildx builder other than the engine's own; `ca` is
    a CA bundle. With `cold`, a cell's image is the one that its binary is built in, with nothing compiled
    (`dockerfile.cold_stage`). `on_step` hears what each binary's build is doing. `kept_images` are of earlier calls by
    cell and `Built.inputs_digest`, which are not built again while the engine has them by their names."""

    app: App
    images: dict[str, Provenance]
    logs: Path
    work: Path
    builder: str | None = None
    ca: Path | None = None
    cold: bool = False
    on_step: Callable[[Binary, str], None] = lambda binary, text: None
    kept_images: dict[tuple[str, str], str] = field(default_factory=dict)


@dataclass
class Step:
    """A vertex of BuildKit's graph, as its progress tells of it."""

    name: str = ""
    cached: bool = False
    error: str = ""
    output: list[str] = field(default_factory=list)


def build(cells: list[Cell], context: BuildContext) -> Iterator[Built]:
    """Build the cells and yield each as it is done, failures included. On Ctrl-C all builds are stopped before the
    interrupt is raised."""
    inputs.check(context.app)
    tree = sources.copy(context.app.directory, context.work, context.app.git)
    groups: dict[Binary, dict[Cell, str]] = {}
    for cell in cells:
        text = dockerfile.render(cell, context.app, context.images[cell.images[1]].toolchain(cell.debian))
        digest = _inputs_digest(cell, text, context, tree)
        image_id = context.kept_images.get((cell.slug, digest))
        if image_id and (image := find_image(image_tag(cell, context.app, context.cold))) and image.id == image_id:
            yield Built(cell, text, image_id, inputs_digest=digest)
        else:
            groups.setdefault(cell.binary, {})[cell] = text

    calls = [(binary, groups[binary], context, tree) for binary in _sort_binaries(groups, context.app)]
    with closing(process.side_by_side(_build_group, calls, client.parallel_builds())) as outcomes:
        for _, results in outcomes:
            yield from results


def image_tag(cell: Cell, app: App, cold: bool = False) -> str:
    """Return the lab's own name of a cell's image."""
    return image_name(app.name + ("-cold" if cold else ""), cell.slug)


def image_name(program: str, cell: str) -> str:
    """Return the name of a cell's image, from the names of program and cell. The last build has this name."""
    return f"{client.repository(program)}:{cell}"


def bake_file(texts: dict[Cell, str], context: BuildContext, tree: Path) -> dict:
    """Return the bake file, as a JSON object, of the Dockerfiles of cells that share a binary. `tree` is the folder of
    the sources. The target `FACTS` writes the binary to the work folder."""
    app, images = context.app, context.images
    shared_fields = {"context": str(tree)} | inputs.mounts(app)
    shared_fields["secret"] += [f"id=ca,src={context.ca}"] if context.ca else []
    cells, network = list(texts), proxy.variables(client.machine_in_builds())
    targets = {
        cell.slug: shared_fields
        | {
            "dockerfile-inline": _whole_text(cell, texts[cell], context),
            "args": {"RUST_IMAGE": images[cell.images[1]].image, **network}
            | {name: os.environ[name] for name in app.arguments}
            | ({"BASE_IMAGE": images[cell.images[0]].image} if cell.base.image else {}),
            "tags": [image_tag(cell, app, context.cold)],
            "labels": {client.IMAGE_LABEL: client.lab_id()},
            # With an attestation, an unchanged image would have another id each time it is built, and the old id would
            # be gone (engines with containerd's store).
            "attest": ["type=provenance,disabled=true"],
            "output": ["type=docker"],
        }
        | ({"platforms": [f"linux/{cell.architecture.debian}"]} if cell.architecture is not NATIVE else {})
        for cell in cells
    }
    if context.cold:
        for cell, text in texts.items():
            target = targets[cell.slug]
            label = {client.MADE_OF_LABEL: _inputs_digest(cell, text, context, tree)}
            target |= {"target": "cold", "labels": target["labels"] | label}
    first = targets[cells[0].slug]
    toolchain = images[cells[0].images[1]].toolchain(cells[0].debian)
    text = first["dockerfile-inline"] + dockerfile.render(cells[0], app, toolchain, dockerfile.FACTS)
    output = [f"type=local,dest={context.work / cells[0].binary.slug}"]
    targets[FACTS] = first | {"dockerfile-inline": text, "target": FACTS, "tags": [], "labels": {}, "output": output}
    return _escape({"target": targets})


def official_file(cells: list[Cell], app: App) -> dict:
    """Return a bake file, as a JSON object, that builds the cells on the official images, with any engine. Each image
    is named APP:CELL."""
    targets = {
        cell.slug: {
            "context": str(app.directory),
            "dockerfile-inline": dockerfile.render(cell, app),
            "tags": [f"{image_part(app.name)}:{cell.slug}"],
            "platforms": [f"linux/{cell.architecture.debian}"],
            "output": ["type=docker"],
            **inputs.mounts(app),
        }
        for cell in cells
    }
    definition = _escape({"group": {"default": {"targets": list(targets)}}, "target": targets})
    for target in definition["target"].values():  # bake's own variables, which it takes from the environment
        target["args"] = {name: f"${{{name}}}" for name in app.arguments}
    return definition | {"variable": {name: {"default": ""} for name in app.arguments}}


def _bake_command(folder: Path, definition: dict, builder: str | None) -> list[str]:
    """Writes the bake files and returns the command that builds all of their targets."""
    folder.mkdir(exist_ok=True)
    bake = folder / "bake.json"
    bake.write_text(json.dumps(definition))
    # buildx leaves a copy of each Dockerfile in the folder for temporary files.
    command = ["env", f"TMPDIR={folder}", *tools.buildx_command(), "bake", "--file", str(bake), "--progress=rawjson"]
    command += ["--metadata-file", str(folder / podman.METADATA), f"--builder={builder or client.own_builder()}"]
    if any(target["ssh"] for target in definition["target"].values()) and tools.buildx_asks_for_entitlements():
        command.append("--allow=ssh")
    if proxy.is_on_this_machine() and not client.machine_in_builds():
        # A proxy on loopback is there on the host's network only, which bake takes from a compose file alone (0.13).
        network = folder / "network.yaml"
        services = {name: {"build": {"context": ".", "network": "host"}} for name in definition["target"]}
        network.write_text(json.dumps({"services": services}))
        command += ["--file", str(network)]
        command += ["--allow=network.host"] if tools.buildx_asks_for_entitlements() else []
    return [*command, *definition["target"]]


def read_events(on_event: Callable[[dict], None], on_text: Callable[[str], None]) -> Callable[[str], None]:
    """Return a function that reads bake's JSON progress line by line. An event, which may take many lines (buildx
    0.13), is passed to `on_event`, and other text to `on_text`."""
    lines: list[str] = []

    def read(line: str) -> None:
        if not lines and not line.startswith("{"):
            on_text(line.rstrip())
            return
        lines.append(line)
        if line.rstrip().endswith("}") and (len(lines) == 1 or line.startswith("}")):
            try:
                on_event(json.loads("".join(lines)))
            except json.JSONDecodeError:
                on_text("".join(lines).rstrip())
            lines.clear()

    return read


def cpu_seconds(times: str) -> float:
    """Return the sum of what the shell's `times` prints: CPU seconds of user and system, own and children's."""
    return sum(60 * int(minutes) + float(seconds) for minutes, seconds in re.findall(r"(\d+)m([\d.]+)s", times))


def _build_group(binary: Binary, texts: dict[Cell, str], context: BuildContext, tree: Path) -> list[Built]:
    """Builds the cells of one binary, each of its Dockerfile; called again without those that failed by themselves,
    until none does."""
    failures: list[Built] = []
    app, facts, bake_folder = context.app, context.work / binary.slug, context.work / f"{binary.slug}.bake"
    build_command = podman.build_command if client.is_podman() else _bake_command
    while texts:
        command = build_command(bake_folder, bake_file(texts, context, tree), context.builder)
        code, steps, output = _bake(command, lambda text: context.on_step(binary, text))
        _keep_log(steps, output, [context.logs / f"{cell.slug}.log" for cell in texts])
        if code == 0:
            break
        if any(is_full(text) for step in steps.values() if step.error for text in (step.error, *step.output)):
            raise DiskFull(f"{binary.slug} could not be built", client.data_folders(), GRID_BYTES)
        last_line = (output or ["buildx failed without output"])[-1]
        culprits = _culprits(steps, list(texts)) or dict.fromkeys(texts, last_line)
        failures += [
            Built(cell, texts.pop(cell), reason=_explain(reason, cell, context)) for cell, reason in culprits.items()
        ]
    context.on_step(binary, "failed" if failures else "built")
    if not texts:
        return failures
    linked, shipped = facts / "out" / app.name, facts / "rootfs" / app.name / app.name
    secrets = [name for name, source in app.secrets if source == "env" and len(os.environ[name]) > 5]
    if leaks := [name for name in secrets if os.environ[name].encode() in linked.read_bytes()]:
        reason = f"the program has the secret {leaks[0]} in it, for all who have the image"
        return failures + [Built(cell, text, reason=reason) for cell, text in texts.items()]
    cpu_s = cpu_seconds((facts / "times").read_text())
    metadata = json.loads((bake_folder / podman.METADATA).read_text())
    fields = {"linked": linked, "symbols": facts / "symbols", "shipped": shipped, "cpu_s": cpu_s, "sources": tree.name}
    image_ids = {cell: _image_id(metadata, cell, image_tag(cell, app, context.cold)) for cell in texts}
    return failures + [
        Built(cell, texts[cell], image_id, inputs_digest=_inputs_digest(cell, texts[cell], context, tree), **fields)
        if image_id
        else Built(cell, texts[cell], reason=_IMAGE_LOST)
        for cell, image_id in image_ids.items()
    ]


def _whole_text(cell: Cell, text: str, context: BuildContext) -> str:
    """A cell's Dockerfile, with the stage that a cold build ends with."""
    return text + (dockerfile.cold_stage(cell, context.app) if context.cold else "")


def _inputs_digest(cell: Cell, text: str, context: BuildContext, tree: Path) -> str:
    """A digest of what a cell's image is made of: its Dockerfile, the images that it stands on, sources, input."""
    digests = [context.images[name].digest for name in cell.images if name in context.images]
    content = "\0".join([_whole_text(cell, text, context), *digests, tree.name, inputs.in_words(context.app)])
    return hashlib.sha256(content.encode()).hexdigest()


def _image_id(metadata: dict, cell: Cell, tag: str) -> str:
    """Return the id of the image that this call built; "" when it is gone. The image is looked up by name only if
    buildx reported no digest: another lab may have that name by now."""
    entry = metadata.get(cell.slug, {})
    digests = [entry[key] for key in ("containerimage.digest", "containerimage.config.digest") if entry.get(key)]
    images = map(find_image, digests or [tag])
    return next((image.id for image in images if image), "")


def _bake(command: list[str], on_step: Callable[[str], None]) -> tuple[int, dict[str, Step], list[str]]:
    """Calls bake: its exit code, the steps by digest, and what it printed beside them."""
    steps: dict[str, Step] = {}
    output: list[str] = []

    def on_event(event: dict) -> None:
        for vertex in event.get("vertexes") or []:
            step = steps.setdefault(vertex["digest"], Step())
            if vertex.get("started") and not step.name and "] RUN" in vertex["name"]:
                on_step(vertex["name"].split("] RUN")[0].lstrip("["))
            step.name = vertex["name"]
            step.cached |= vertex.get("cached", False)
            step.error = proxy.redact(vertex.get("error", ""))
        for log in event.get("logs") or []:
            text = proxy.redact(base64.b64decode(log["data"]).decode(errors="replace"))
            steps.setdefault(log["vertex"], Step()).output.append(text)
            if lines := [line.strip() for line in text.splitlines() if line.strip()]:
                on_step(lines[-1])

    code = process.stream(command, read_events(on_event, lambda line: output.append(proxy.redact(line))))
    for step in steps.values():  # and as a whole: BuildKit may tell a secret in two parts
        step.output = [proxy.redact("".join(step.output))] * bool(step.output)
    return code, steps, output


def _culprits(steps: dict[str, Step], cells: list[Cell]) -> dict[Cell, str]:
    """The cells whose own steps failed, with the reason: all of them where the builder stage did."""
    culprits: dict[Cell, str] = {}
    for step in steps.values():
        if not step.error or "context canceled" in step.error:
            continue
        reason = diagnosis.first_error(step.output) or step.error
        owner = re.match(r"\[([^\s\]]+)\]? (builder )?", step.name)  # "[CELL 2/5] COPY ..." or "[CELL] exporting ..."
        failed_cells = [cell for cell in cells if owner and not owner[2] and cell.slug == owner[1]]
        for cell in failed_cells or cells:
            culprits.setdefault(cell, reason)
    return culprits


def _explain(reason: str, cell: Cell, context: BuildContext) -> str:
    """Return the reason with the path of the log. If a program is missing, or a file that builds do not get, one is
    named too."""
    log = os.path.relpath(context.logs / f"{cell.slug}.log", ROOT)
    reason += diagnosis.find_called_program(context.app.directory, reason)
    reason += sources.explain_hidden(context.app.directory, context.app.subdirectory, reason)
    return f"{reason}; the whole log: {log}"


def _keep_log(steps: dict[str, Step], output: list[str], paths: list[Path]) -> None:
    """Writes the log of each cell, unless every step came from the cache and there is a log that says more."""
    if paths[0].exists() and not any(step.output or step.error for step in steps.values()):
        return
    text = ""
    for step in steps.values():
        state = "CACHED " if step.cached else "ERROR " if step.error else ""
        text += f"=> {state}{step.name}\n{''.join(step.output)}{step.error and step.error + chr(10)}"
    for path in paths:
        write_whole(path, text + "".join(f"{line}\n" for line in output))


def _sort_binaries(groups: dict[Binary, dict[Cell, str]], app: App) -> list[Binary]:
    """The binaries, those first that wait for no other: a target directory is locked by whoever builds in it."""
    counts: Counter[str] = Counter()
    turn = {}
    for binary, cells in groups.items():
        directory = dockerfile.cache_id(next(iter(cells)), app)
        turn[binary] = counts[directory]
        counts[directory] += 1
    return sorted(groups, key=turn.__getitem__)


def _escape(definition: dict) -> dict:
    """The same, safe in a bake file, where `${` and `%{` begin an expression."""
    return json.loads(json.dumps(definition).replace("${", "$${").replace("%{", "%%{"))
