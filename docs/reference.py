"""Tables of docs/reference.md: every command with its options, and every key of `lab.toml`. See `figures.py`."""

import dataclasses
import tomllib
from pathlib import Path

import click

from rustimg_lab.build import lab_toml_values
from rustimg_lab.cli.main import MODULES, lab
from rustimg_lab.model import toml
from rustimg_lab.model.app import Check, Serve, Service, Work

TEXTS = Path(__file__).with_name("lab_toml_keys.toml")
TYPES = {str: "text", list: "list", bool: "true or false", dict: "table", int: "number"}
REQUIRED = "required"


def commands() -> None:
    """Print a section for each command: its usage, its help, and a table of its options."""
    top = click.Context(lab, info_name="./lab", max_content_width=120)
    for name in MODULES:
        command = lab.get_command(top, name)
        context = click.Context(command, info_name=name, parent=top)
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        print(f"### `{name}`\n\n```\n{usage}\n```\n\n{_escaped(' '.join((command.help or '').split()))}\n")
        records = [record for each in command.params if (record := each.get_help_record(context)) and record[1]]
        if records:
            print("| option | what it does |\n| --- | --- |")
            print(
                "\n".join(f"| `{option.replace('|', chr(92) + '|')}` | {_escaped(text)} |" for option, text in records)
            )
            print()


def keys() -> None:
    """Print a table for each table of `lab.toml`: each key with its type, its default and what it does.

    Raises ValueError when lab_toml_keys.toml describes other keys than the lab reads."""
    texts = tomllib.loads(TEXTS.read_text())
    tables = {name or "top": of for name, of in lab_toml_values.KEYS.items()} | {"services": toml.types(Service)}
    defaults = {
        "check": _defaults(Check),
        "serve": _defaults(Serve),
        "work": _defaults(Work),
        "services": _defaults(Service),
    }
    for table, of in tables.items():
        if differs := set(of) ^ set(texts[table]):
            raise ValueError(f"{TEXTS.name}: [{table}] and the lab differ in {', '.join(sorted(differs))}")
        title = {"top": "At the top of the file", "services": "`[[services]]`"}.get(table, f"`[{table}]`")
        print(f"### {title}\n\n| key | value | default | what it does |\n| --- | --- | --- | --- |")
        for key, kinds in of.items():
            kind = " or ".join(TYPES[each] for each in kinds)
            default = texts[table][key].get("default", defaults.get(table, {}).get(key, ""))
            print(f"| `{key}` | {kind} | {default} | {_escaped(texts[table][key]['text'])} |")
        print()


def _defaults(kind: type) -> dict[str, str]:
    """The defaults of a dataclass as `lab.toml` writes them; "" where a field has no value by default."""
    found = {}
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING:
            found[field.name] = REQUIRED
        elif isinstance(field.default, bool):
            found[field.name] = f"`{str(field.default).lower()}`"
        elif field.default and isinstance(field.default, str | int):
            found[field.name] = f"`{field.default}`"
    return found


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "\\<")
