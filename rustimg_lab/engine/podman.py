"""Podman as the engine: its own build call replaces BuildKit.

Podman has no BuildKit behind its socket. Its build call reads the same Dockerfiles, with cache mounts and secrets, and
makes one image. `python -m rustimg_lab.engine.podman FOLDER` builds the targets of a bake file in a process that ends
with the lab, and prints progress as `docker buildx bake --progress=rawjson` does.
"""

import base64
import hashlib
import json
import os
import re
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from docker.utils import create_archive, exclude_paths, parse_repository_tag
from requests.exceptions import RequestException

from rustimg_lab.engine import client, inspection
from rustimg_lab.engine.images import RegistryError, pull, read_files
from rustimg_lab.errors import LabError
from rustimg_lab.host import process, proxy

DEFINITION, METADATA = "bake.json", "metadata.json"
_DOCKERFILE, _SECRET = ".rustimg-lab.Dockerfile", ".rustimg-lab.secret-"  # sent with a context, and not part of it
_STEP = re.compile(r"(?:\[(\d+)/\d+\] )?STEP (\d+/\d+): (.*)")
_CACHED = re.compile(r"--> Using cache [0-9a-f]+$")
_RESULT = re.compile(r"--> [0-9a-f]+$|(\[\d+/\d+\] )?COMMIT\b|Successfully (built|tagged) |[0-9a-f]{64}$")


def build_command(folder: Path, definition: dict, builder: str | None = None) -> list[str]:
    """Write a bake file to `folder` and return the command that builds its targets in order, up to the first failure.

    The command writes the image ids to `METADATA`, as bake does. Raises LabError when a `builder` is named.
    """
    if builder:
        raise LabError("--builder names a builder of docker buildx, and the engine is Podman: leave --builder out")
    folder.mkdir(exist_ok=True)
    text = json.dumps(definition).replace("$${", "${").replace("%%{", "%{")  # bake's escapes
    (folder / DEFINITION).write_text(text)
    return [sys.executable, "-m", "rustimg_lab.engine.podman", str(folder)]


def build_folder(file: Path, name: str, arguments: dict[str, str], secrets: list[str], platform: str = "") -> None:
    """Build the image `name` from a Dockerfile and its folder, with the lab's label. `arguments` are build args,
    `secrets` as in `--secret`. Raises LabError when the build fails."""
    target = {
        "context": str(file.parent), "dockerfile-inline": file.read_text(), "tags": [name],
        "platforms": [platform] if platform else [],
        "secret": secrets, "args": {**arguments, **proxy.variables(client.machine_in_builds())},
        "output": ["type=docker"],
        "labels": {client.IMAGE_LABEL: client.lab_id()},
    }  # fmt: skip
    with process.work_folder() as work:
        process.run(build_command(work, {"target": {"image": target}}))


def manifest_digest(reference: str, host: str) -> str:
    """Return the digest of an image's manifest in a registry. Raises RegistryError, which names `host`. Podman reports
    digests only after a pull, and reports every digest that it ever knew the image by. So each is pulled until the
    registry has it. The image stays, under a name of the lab's."""
    name = f"{client.repository('pulled')}:{hashlib.sha256(reference.encode()).hexdigest()[:12]}"
    image = pull(reference, name, host, lambda done, total: None)
    repository, tag = parse_repository_tag(reference)
    digests = {entry.partition("@")[2] for entry in inspection.image(image.attrs).digests}
    for digest in [tag] if "@" in reference else sorted(digests):
        try:
            pull(f"{repository}@{digest}", name, host, lambda done, total: None)
            return digest
        except RegistryError as error:
            last_error = error
    raise last_error


@contextmanager
def plain_http(reference: str) -> Iterator[None]:
    """Let Podman push to a registry on loopback by plain HTTP while the block runs, as Docker does by default. Raises
    LabError when Podman refuses the push; the docker SDK cannot read the reason."""
    parameters = client.connect().api.params
    parameters |= {"tlsVerify": "false"} if reference.startswith("127.") else {}
    try:
        yield
    except KeyError as error:
        raise LabError(f"Podman did not push {reference}") from error
    finally:
        parameters.pop("tlsVerify", None)


def _build(slug: str, target: dict) -> str:
    """Build a target of a bake file and return the id of its image. Raises LabError when Podman refuses."""
    context = Path(target["context"])
    specs = [re.fullmatch(r"id=(\w+),(src|env)=(.*)", secret).groups() for secret in target["secret"]]
    secrets = {
        name: os.environ[source] if kind == "env" else Path(source).read_text("utf-8", "replace")
        for name, kind, source in specs
    }
    extra = [(f"{_SECRET}{name}", text) for name, text in secrets.items()]
    is_on_host = proxy.is_on_this_machine() and not client.machine_in_builds()
    parameters = {
        "dockerfile": _DOCKERFILE, "excludes": json.dumps([_DOCKERFILE]), "identitylabel": "false", "forcerm": "true",
        "secrets": json.dumps([f"id={name},src={_SECRET}{name}" for name in secrets]),
        "buildargs": json.dumps(target["args"]), "labels": json.dumps(target["labels"]),
        "t": target["tags"], "target": target.get("target", ""), "platform": target.get("platforms", []),
        "nsoptions": json.dumps([{"Name": "network", "Host": True}] if is_on_host else []),
    }  # fmt: skip
    vertex: dict = {"digest": slug, "name": f"[{slug} internal] build"}
    stages: dict[str, str] = {}
    tail, image, error, api = "", "", "", client.connect().api
    with tempfile.TemporaryFile() as archive:
        files = exclude_paths(str(context), [])  # `.dockerignore` was applied when the sources were copied
        extra.append((_DOCKERFILE, target["dockerfile-inline"]))
        create_archive(str(context), sorted(files), archive, extra_files=extra)
        headers = {"Content-Type": "application/x-tar"}
        with api.post(f"{api.base_url}/build", params=parameters, data=archive, headers=headers, stream=True) as answer:
            for event in map(json.loads, answer.iter_lines()):
                *lines, tail = (tail + event.get("stream", "")).split("\n")
                for line in lines:
                    vertex = _read(line, slug, stages, vertex)
                image = (event.get("aux") or {}).get("ID", image)
                error = error or event.get("error", "") or event.get("message", "")
    if error or not image:
        error = " ".join((error or "Podman ended the build and named no image").split())
        _tell({"vertexes": [vertex | {"error": error}]})
        raise LabError(error)
    return image


def _read(line: str, target: str, stages: dict[str, str], vertex: dict) -> dict:
    """Print the event that BuildKit has for a line of Podman's, and return the step that the next line belongs to.
    `stages` collects the names of the Dockerfile's stages."""
    if step := _STEP.match(line):
        stage, number, instruction = step.groups("1")
        if stage_match := re.match(r"FROM .* AS (\S+)$", instruction, re.IGNORECASE):
            stages[stage] = stage_match[1]
        name = f"[{target} {stages.get(stage, f'stage-{stage}')} {number}] {instruction}"
        vertex = {"digest": f"{target} {stage} {number}", "name": name, "started": True}
        _tell({"vertexes": [vertex]})
    elif _CACHED.match(line):
        vertex["cached"] = True
        _tell({"vertexes": [vertex]})
    elif not _RESULT.match(line):
        _tell({"logs": [{"vertex": vertex["digest"], "data": base64.b64encode(f"{line}\n".encode()).decode()}]})
    return vertex


def _tell(event: dict) -> None:
    print(json.dumps(event), flush=True)


def main(folder: Path) -> int:
    """Build the targets of a bake file, and write out what their `output` names. Returns 0; 1 after the first failure,
    with the reason on standard error; or 130 after Ctrl-C."""
    images = {}
    try:
        for name, target in json.loads((folder / DEFINITION).read_text())["target"].items():
            images[name] = {"containerimage.digest": (image := _build(name, target))}
            if destination := re.match(r"type=local,dest=(.*)", target["output"][0]):
                for path, content in read_files(image, tarfile.TarInfo.isfile):
                    file = Path(destination[1]) / path
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(content.read())
    except (LabError, RequestException) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # the lab was interrupted, and says so
        return 130
    (folder / METADATA).write_text(json.dumps(images))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
