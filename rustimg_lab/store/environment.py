"""The environment.json of a run, read and checked."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import fastjsonschema

from rustimg_lab.errors import LabError
from rustimg_lab.paths import ENVIRONMENT_SCHEMA
from rustimg_lab.store import rows

SCHEMA = 2  # 1 had no `study`


class Environment(dict):
    """A run's environment, read and never changed: pandas copies `attrs` deeply with each frame that it derives, which
    took half the time of a report."""

    def __deepcopy__(self, memo: dict) -> "Environment":
        return self


def read_environment(path: Path) -> dict[str, Any]:
    file = path / "environment.json"
    try:
        if file.stat().st_size > rows.ENVIRONMENT_LIMIT:
            raise ValueError(f"longer than {rows.ENVIRONMENT_LIMIT:,} bytes")
        environment = rows.parse_json(file.read_text(encoding="utf-8"))
        schema = environment.get("schema") if isinstance(environment, dict) else None
        if isinstance(schema, int) and schema > SCHEMA:
            raise LabError(f"run '{path.name}' has schema {schema}, this lab reads {SCHEMA}; update the lab")
        _validator()(environment)
    except fastjsonschema.JsonSchemaValueException as error:
        where = "/".join(map(str, error.path[1:])) or "it"
        said = error.message.removeprefix(error.name).strip()
        raise LabError(f"{path.name}/environment.json cannot be used: {where[:80]}: {said[:120]}") from None
    except (OSError, ValueError) as error:
        raise LabError(f"{path.name}/environment.json cannot be read ({error}); the run has no environment") from None
    for base, digest in environment.get("bases", {}).items():
        if digest not in environment["images"]:
            raise LabError(f"{path.name}/environment.json cannot be used: base {base!r} is none of its images")
    return environment


@cache
def _validator() -> Callable[[Any], Any]:
    return fastjsonschema.compile(json.loads(ENVIRONMENT_SCHEMA.read_text(encoding="utf-8")))


def refuse_other_machine(name: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    differs = [f"{key} {before.get(key)} -> {now[key]}" for key in now if before.get(key) != now[key]]
    if differs:
        raise LabError(
            f"run '{name}' was begun on another machine ({', '.join(differs)}); numbers of two machines are not mixed: "
            "choose a new one with --run NAME"
        )


def stand_ins(environment: dict[str, Any]) -> list[str]:
    """The bases of a run that only stand in for the official image, by name."""
    images = environment["images"]
    return [name for name, digest in environment.get("bases", {}).items() if images[digest]["stand_in"]]
