"""Commands around the work: init, doctor, worker, notebook, clean."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
from rich.markup import escape
from rich.table import Table

from rustimg_lab.cli import as_called, output, selection
from rustimg_lab.cli.options import INSECURE, REST, SOURCES, command, option
from rustimg_lab.host.files import resolve_path
from rustimg_lab.model.bases import BUILDER
from rustimg_lab.paths import COMMAND, INSTALLED, NOTEBOOKS, ROOT, STATE


@command(
    click.Argument(["path"], type=click.Path(path_type=Path)),
    option("--binary", "the one to measure, where the crate has several", default="", metavar="NAME"),
    *SOURCES,
)
def init(options: SimpleNamespace) -> int:
    """Write the lab.toml that `./lab run --app PATH` needs. PATH is the folder of a crate, or of a workspace member."""
    from rustimg_lab.build import bases, proposal
    from rustimg_lab.engine import client, doctor
    from rustimg_lab.host import machine

    sources = selection.image_sources(options)  # what is wrong there is told also where no builder is needed

    def builder() -> str:
        client.connect()
        doctor.prepare(output.say)
        return bases.resolve(BUILDER, sources, output.say, machine.ca_bundle()).image

    reading = output.console.status(escape(f"reading {options.path}"))  # a large workspace takes seconds
    with client.readable_errors(), reading:
        path, notes = proposal.init(resolve_path(options.path), options.binary, builder)
    output.say(f"wrote {path}")
    for note in notes:  # "there" in them is that file
        output.say(f"note: {note}")
    output.say("look through that file, then")
    print(f"  {COMMAND} run --app {shlex.quote(str(options.path))}")
    return 0


@command()
def doctor(options: SimpleNamespace) -> int:
    """Show what this machine has, and what it lacks."""
    from rustimg_lab.engine import doctor

    findings = doctor.findings()
    table = Table("", "what", "found", "what to do", box=None)
    for finding in findings:
        remedy = "" if finding.ok else finding.remedy
        table.add_row(finding.mark, finding.name, as_called(finding.state), as_called(remedy))
    output.console.print(table)
    return 0 if all(finding.ok or not finding.required for finding in findings) else 2


@command()
def clean(options: SimpleNamespace) -> int:
    """Remove this clone's containers, images and emulators, and nothing else."""
    from rustimg_lab.engine import client, cold_engine, containers, doctor, emulation, images

    with client.readable_errors():
        container_count = containers.remove_containers(all_of_ours=True)
        cold_engine.remove_leftovers()
        image_count, leftovers = images.remove_images()
    print(f"removed {container_count} containers and {image_count} images of this lab")
    if emulator_count := emulation.remove():
        print(f"removed {emulator_count} emulators of this lab from binfmt_misc")
    for line in leftovers:
        print(f"kept {line}")
    print(f"left: the engine's build cache, which is not the lab's alone; it holds {doctor.cache_size()}")
    return 0


@command(
    option("--copy-to", "folder that gets a copy of the notebooks, which is opened; files that it has stay as they are",
           click.Path(path_type=Path, file_okay=False), shown="of a wheel ./notebooks, of a checkout none"),
    click.Argument(["rest"], nargs=-1, metavar="[OPTIONS OF JUPYTERLAB]..."), **REST,
)  # fmt: skip
def notebook(options: SimpleNamespace) -> int:
    """Open JupyterLab on the notebooks. Other options go to it, such as --no-browser."""
    line = [sys.executable, "-m", "jupyterlab", "--LabApp.default_url=/lab/tree/00_start_here.ipynb"]
    line += ["--allow-root"] if os.geteuid() == 0 else []
    # The kernel of this venv, also where the user has another of the same name.
    environment = {**os.environ, "JUPYTER_PREFER_ENV_PATH": "1"}
    folder = options.copy_to or (ROOT / "notebooks" if INSTALLED else NOTEBOOKS)
    if folder != NOTEBOOKS:
        folder.mkdir(parents=True, exist_ok=True)
        new_paths = [path for path in NOTEBOOKS.iterdir() if path.is_file() and not (folder / path.name).exists()]
        for path in new_paths:
            shutil.copyfile(path, folder / path.name)
        output.say(f"copied {len(new_paths)} notebooks and other files to {folder}")
    return subprocess.run([*line, *options.rest], cwd=folder, env=environment).returncode


@command(
    option("--scheduler", "Dask scheduler to work for", metavar="tls://HOST:PORT", required=True), INSECURE,
    option("--name", "machine's name in runs, which no other worker may have", metavar="NAME", shown="this clone's id"),
    click.Argument(["rest"], nargs=-1, metavar="[OPTIONS OF DASK]..."), **REST,
)  # fmt: skip
def worker(options: SimpleNamespace) -> int:
    """Run a Dask worker beside this machine's engine, for --scheduler of run and measure. Other options go to Dask."""
    from rustimg_lab.engine import client
    from rustimg_lab.host import machine
    from rustimg_lab.pipeline import cluster

    cluster.check_address(options.scheduler, options.insecure)
    client.connect()
    if (load := machine.load_per_cpu()) > cluster.BUSY:
        output.say(f"note: {load:.1f} processes want each CPU of this machine: studies need one that is idle")
    name = options.name or f"lab-{client.lab_id()}"
    line = [sys.executable, "-m", "distributed.cli.dask_worker", options.scheduler, "--name", name, "--nthreads", "1"]
    line += ["--resources", f"{cluster.RESOURCE}=1", "--local-directory", str(STATE), "--no-dashboard"]
    return subprocess.run([*line, *options.rest], cwd=ROOT).returncode
