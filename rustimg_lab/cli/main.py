"""The command line; no logic of its own.

A command's module is imported when the command is called or its help is shown, and what it works with only when it is
called: Jupyter's packages take two seconds, and most commands need none.
"""

import io
import os
import signal
import sys
from importlib import import_module

import click
from click.shell_completion import shell_complete

from rustimg_lab.cli import as_called
from rustimg_lab.errors import LabError, unknown_name
from rustimg_lab.host import files
from rustimg_lab.paths import HOME, ROOT

MODULES = {  # by command, in the order of the help
    **dict.fromkeys(("demo", "export"), "results"),
    **dict.fromkeys(("run", "measure", "probe"), "measure"),
    **dict.fromkeys(("report", "choose", "compare", "check", "batch"), "results"),
    **dict.fromkeys(("cells", "dockerfile", "bake"), "cells"),
    **dict.fromkeys(("init", "doctor", "worker", "notebook", "clean"), "setup"),
    **dict.fromkeys(("test", "docs"), "develop"),
}
COMPLETE = "_LAB_COMPLETE"  # what a shell asks for completions by


class _Lab(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in MODULES:
            return getattr(import_module(f"rustimg_lab.cli.{MODULES[cmd_name]}"), cmd_name)
        if ctx.resilient_parsing:  # a shell asks for completions
            return None
        raise unknown_name("command", cmd_name, MODULES)


lab = _Lab(
    "lab",
    help="What base image, build profile and allocator cost.",
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Return 0 when all is well, 1 when a cell or a test failed, 2 when the command could not be done.
    Return 3 when a check cannot tell, and 130 when the command was interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end in order, as with Ctrl-C
    _make_printable()
    try:
        if instruction := os.environ.get(COMPLETE):
            return shell_complete(lab, {}, "lab", COMPLETE, instruction)
        if not ROOT.is_dir():
            raise LabError(f"{HOME}={ROOT} is no folder; make it, or unset the variable")
        with files.readable_errors():
            code = _call(sys.argv[1:] if arguments is None else arguments)
            sys.stdout.flush()
        return code
    except click.UsageError as error:
        # What lacks its value is refused before there is a command.
        names = [word for word in (arguments or sys.argv[1:])[:1] if word in MODULES]
        command = error.ctx.command_path if error.ctx else " ".join(["lab", *names])
        return _refused(f"{error.format_message().rstrip('.')} (see ./{command} --help)")
    except LabError as error:
        return _refused(str(error))
    except BrokenPipeError:  # who reads has enough, as `head` has; the interpreter would say so at its end once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; run the same command to resume", file=sys.stderr)
        return 130


def _make_printable() -> None:
    """Replace a closed stream by one that takes all. Make a stream write "?" for a character that its encoding
    lacks."""
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name)) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _call(arguments: list[str]) -> int:
    try:
        # Not `lab.main`, which prints an empty line on Ctrl-C.
        with lab.make_context("lab", list(arguments), obj=arguments) as context:
            return lab.invoke(context)
    except click.exceptions.Exit as request:  # --help
        return request.exit_code


def _refused(text: str) -> int:
    print(f"lab: {as_called(' '.join(text.split()))}", file=sys.stderr)
    return 2
