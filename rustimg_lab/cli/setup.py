"""Commands around the work: dockerfile, init, doctor, clean, notebook."""

import argparse
import os
import subprocess
import sys

from rich.table import Table

from rustimg_lab.build import bake, bases, dockerfile, lab_toml
from rustimg_lab.cli import output
from rustimg_lab.cli.selection import chosen_cells, image_sources, load_app
from rustimg_lab.engine import client, cold_engine
from rustimg_lab.engine import doctor as engine_doctor
from rustimg_lab.engine.containers import remove_containers
from rustimg_lab.engine.images import remove_images
from rustimg_lab.host import machine
from rustimg_lab.model import matrix
from rustimg_lab.paths import NOTEBOOKS


def show_dockerfile(options: argparse.Namespace) -> int:
    app = load_app(options)
    allocator = options.allocator or ("system" if options.app else matrix.ARTICLE)
    cell = matrix.cell(options.base, options.profile, allocator, options.debian, options.additions)
    lab_toml.refuse_allocators(app, [cell])
    sys.stdout.write(dockerfile.render(cell, app))
    return 0


def list_cells(options: argparse.Namespace) -> int:
    app = load_app(options)
    for cell in chosen_cells(options, app, matrix.usual(options.grid, options.debian)):
        print(cell)
    return 0


def init(options: argparse.Namespace) -> int:
    def say(text: str) -> None:
        print(f"lab: {text}")

    matrix.release(options.debian)
    with client.readable_errors():
        client.connect()
        engine_doctor.prepare(say)
        builder = bases.resolve(matrix.BUILDER, image_sources(options), say, machine.ca_bundle())
        print(
            f"lab: wrote {lab_toml.init(options.path.resolve(), options.binary, builder.image)}; look through it, then"
        )
    print(f"  ./lab run --app {options.path}")
    return 0


def doctor(options: argparse.Namespace) -> int:
    findings = engine_doctor.findings()
    table = Table("", "what", "found", "what to do", box=None)
    for finding in findings:
        table.add_row(finding.mark, finding.name, finding.found, "" if finding.ok else finding.remedy)
    output.console.print(table)
    return 0 if all(finding.ok or not finding.required for finding in findings) else 2


def clean(options: argparse.Namespace) -> int:
    containers = remove_containers(all_of_ours=True)
    cold_engine.remove_left()
    images, kept = remove_images()
    print(f"removed {containers} containers and {images} images of this lab")
    for line in kept:
        print(f"kept {line}")
    print(f"left: the engine's build cache, which is not the lab's alone; it holds {bake.cache_size()}")
    return 0


def notebook(options: argparse.Namespace) -> int:
    command = [sys.executable, "-m", "jupyterlab", "--LabApp.default_url=/lab/tree/00_start_here.ipynb"]
    command += ["--allow-root"] if os.geteuid() == 0 else []
    # The kernel of this venv, also where the user has another of the same name.
    environment = {**os.environ, "JUPYTER_PREFER_ENV_PATH": "1"}
    return subprocess.run([*command, *options.rest], cwd=NOTEBOOKS, env=environment).returncode
