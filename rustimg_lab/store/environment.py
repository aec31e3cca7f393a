"""The environment.json of a run, read and checked."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import fastjsonschema

from rustimg_lab.errors import LabError
from rustimg_lab.paths import ENVIRONMENT_SCHEMA
from rustimg_lab.store import rows

SCHEMA = 2  # 1 had no `study`
Typed = TypeVar("Typed")


@dataclass(frozen=True)
class StudyPlan:
    """What a study was planned as. Its trials share it; a later call must ask for an equal one."""

    kind: str  # one of `model.studies.KINDS`, or "instructions"
    metric: str  # the one that `width` in `stopping` is about
    baseline: str  # the cell that the others are compared with
    cells: list[str]  # by name, in the order of tables; the baseline's twin is one of them
    parameters: dict[str, Any]  # of the load, the CPUs, the seconds of a trial, by kind; `warning` is always there
    seed: int  # of the order of the trials in each block
    # After how many `blocks`, or at which relative `width` of the intervals, `at_most` blocks.
    stopping: dict[str, float]
    contents: dict[str, str]  # by cell: a SHA-256 of what its image holds
    design: str = "shuffled"  # how the order of each block was drawn; "Williams": each cell follows each equally often


@dataclass(frozen=True)
class Environment:
    """What stands beside the rows of a run (data/environment.schema.json); empty: not recorded by an older lab."""

    schema: int  # the number of the form that the run was written in; see `SCHEMA`
    run: str  # the run's name
    machine: dict[str, str | int]  # what two runs must share to be compared, as `engine.client.machine` tells it
    images: dict[str, dict[str, Any]]  # by digest: where each base image is from, as `build.bases` records it
    bases: dict[str, str] = field(default_factory=dict)  # by the base's name: the digest of one of the images
    app: dict[str, str] = field(default_factory=dict)  # name, SHA-256 of its lockfile, and a `note` on all cells
    capabilities: dict[str, str | int | bool] = field(default_factory=dict)  # as `engine.capabilities` saw them
    tools: dict[str, str | None] = field(default_factory=dict)  # the versions of the lab's and the engine's programs
    debian: str = ""  # the Debian suite of the builder
    commands: list[str] = field(default_factory=list)  # those that wrote the run, in order
    package_bytes: dict[str, dict[str, int]] = field(default_factory=dict)  # by an image's digest, then by package
    studies: dict[str, StudyPlan] = field(default_factory=dict)  # by name

    @property
    def stand_ins(self) -> list[str]:
        """Return the names of the bases that substitute for the official image."""
        return [name for name, digest in self.bases.items() if self.images[digest]["stand_in"]]


_REMEDY = "put a copy of that file in its place, or choose another run"


def parse_fields(environment: dict[str, Any]) -> Environment:
    """Return an environment, as `read_environment` returns it, with only the fields that this lab knows."""
    plans = {name: _from_known_fields(StudyPlan, plan) for name, plan in environment.get("studies", {}).items()}
    return _from_known_fields(Environment, environment | {"studies": plans})


def _from_known_fields(kind: type[Typed], values: dict[str, Any]) -> Typed:
    return kind(**{member.name: values[member.name] for member in fields(kind) if member.name in values})


def read_environment(path: Path) -> dict[str, Any]:
    """Read the environment.json in a run's folder. Raises LabError when it cannot be read or used, or is of a newer
    lab."""
    try:
        text = rows.read_text(path / "environment.json")
    except (OSError, ValueError) as error:
        raise LabError(f"{path.name}/environment.json cannot be read ({error}): {_REMEDY}") from None
    return parse_environment(text, path.name)


def parse_environment(text: str, run: str) -> dict[str, Any]:
    """Return the environment in a JSON text. Raises LabError when the text is no JSON, does not fit the schema, names a
    base without an image, or is of a newer lab."""
    try:
        environment = rows.parse_json(text)
        schema = environment.get("schema") if isinstance(environment, dict) else None
        if isinstance(schema, int) and schema > SCHEMA:
            raise LabError(f"run '{run}' has schema {schema}, this lab reads {SCHEMA}; update the lab")
        _validator()(environment)
    except fastjsonschema.JsonSchemaValueException as error:
        place = "/".join(map(str, error.path[1:])) or "it"
        message = error.message.removeprefix(error.name).strip()
        raise LabError(f"{run}/environment.json cannot be used: {place[:80]}: {message[:120]}") from None
    except ValueError as error:
        raise LabError(f"{run}/environment.json cannot be read ({error}): {_REMEDY}") from None
    for base, digest in environment.get("bases", {}).items():
        if digest not in environment["images"]:
            raise LabError(f"{run}/environment.json cannot be used: base {base!r} is none of its images")
    return environment


@cache
def _validator() -> Callable[[Any], Any]:
    return fastjsonschema.compile(json.loads(ENVIRONMENT_SCHEMA.read_text(encoding="utf-8")))


def refuse_other_machine(name: str, recorded: dict[str, Any], machine: dict[str, Any]) -> None:
    if recorded.get("cpu_model") == "unknown":  # as older labs have recorded every CPU of arm64
        recorded = recorded | {"cpu_model": machine.get("cpu_model")}
    changes = [f"{key} {recorded.get(key)} -> {machine[key]}" for key in machine if recorded.get(key) != machine[key]]
    if changes:
        raise LabError(
            f"run '{name}' was begun on another machine ({', '.join(changes)}); numbers of two machines are not mixed: "
            "choose a new one with --run NAME"
        )
