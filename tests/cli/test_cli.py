"""What a user types and gets back, without an engine."""

import json
import os
import re
import signal
import subprocess
import sys

import click
import pytest
from rich.console import Console
from support.lab import NO_ENGINE

from rustimg_lab.analysis import cells, comparison, deploy, factorials, recommendation, robustness
from rustimg_lab.analysis.recommendation import Wishes
from rustimg_lab.cli import main, output, selection
from rustimg_lab.model import matrix, metrics, probes, studies
from rustimg_lab.paths import MYIP, ROOT
from rustimg_lab.report import summary, views
from rustimg_lab.store import runs

DOCUMENTS = "\n".join(path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
STUDIES = ("allocators", "startup", "memory", "allocators-intel")
RECORDED = [
    "recorded",
    *(f"recorded/{name}" for name in (*STUDIES, "service", "ladder", "fd", "bat", "miniserve", "survival")),
]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dockerfile", "scrach"), "lab: unknown base 'scrach': did you mean 'scratch'?"),
        (("dockerfile", "scratch", "--profile", "optimised"), "lab: unknown profile 'optimised': did you mean"),
        (("dockerfile", "scratch", "--allocator", "jemaloc"), "lab: unknown allocator 'jemaloc': did you mean"),
        (("run", "--bases", "scratch,debain"), "lab: unknown base 'debain': did you mean 'debian'?"),
        (("run", "--base", "alpine"), "lab: --base alpine: give it as NAME=SOURCE"),
        (("run", "--knobs", "lto"), "lab: unknown profile 'lto': did you mean 'lto-fat'?"),
        (("measure", "--knobs", "strip", "--allocators", "article"), "lab: 'article' is another allocator on each"),
        (("run", "--knobs", "strip", "--profiles", "upx"), "lab: --profiles has no effect beside --knobs: leave"),
        (("cells", "--knobs", "strip", "--grid", "ladder"), "lab: --grid has no effect beside --knobs: leave it out"),
        (("run", "--fraction", "3"), "lab: --fraction applies with --knobs alone: name that too, or leave"),
        (("run", "--insecure"), "lab: --insecure applies with --scheduler alone: name that too, or leave"),
        (("measure", "--push-to", "a.b/lab"), "lab: --push-to applies with --scheduler alone: name that too"),
        (("check", "--across-machines"), "lab: --across-machines applies with --against alone: name that too"),
        (("check", "--debian", "bookworm"), "lab: --debian applies with --before alone: name that too"),
        (("dockerfile", "--arch", "amd64,arm64"), "lab: --arch: a Dockerfile is checked for one architecture; name"),
        (("init", "examples/myip", "--base", "nope"), "lab: --base nope: give it as NAME=SOURCE"),
        (("worker",), "lab: Missing option '--scheduler' (see ./lab worker --help)"),
        (("dockerfile", "--with", "tmp", "--with", "tzdata"), "lab: --with is given twice, and the last would count"),
        (("cells", "--bases", "scratch", "--bases", "debian"), "lab: --bases is given twice, and the last would count"),
        (("run", "--base", "alpine=a", "--base", "alpine=b"), "lab: --base alpine=b: alpine is a already; name one"),
        (("choose", "--weights", "transfer=1,transfer=5"), "lab: Invalid value for '--weights': 'transfer' is there"),
        (("run", "--scheduler", ""), "lab: --scheduler: the value is empty: give one, or leave it out (see ./lab run"),
        (("check", "--run", "recorded", "--before="), "lab: --before: the value is empty: give one, or leave it out"),
        (("cells", "--app", ""), "lab: --app: the value is empty: give one, or leave it out"),
        (("compare", "", "recorded"), "lab: BEFORE: the value is empty: give one, or leave it out"),
        (("notebook", "--copy-to", "/proc/nope"), "lab: /proc/nope: No such file or directory"),
        (("cells", "--app", 300 * "x"), f"lab: {ROOT}/{300 * 'x'}"),
        (
            ("choose", "--run", "recorded/fd", "--workload", "batch", "--max-transfer", "3MB"),
            "lab: unknown workload of run 'recorded/fd' 'batch': there is none",
        ),
        (("measure", "--study", "build", "--workers", "2"), "lab: --workers does not apply to --study build"),
        (
            ("measure", "--study", "startup", "--connections", "2"),
            "lab: --connections does not apply to --study startup",
        ),
        (("measure", "--study", "startup", "--workload", "root,batch"), "lab: --workload: a study of startup asks one"),
        (
            ("measure", "--study", "startup", "--settings", "narenas=1"),
            "lab: --settings does not apply to --study startup",
        ),
        (("measure", "--rest", "5"), "lab: --rest does not apply to --study throughput"),
        (("measure", "--settings", "narenas=x"), "lab: setting 'narenas=x': after 'narenas=' comes a whole number"),
        (
            ("run", "--with", "large-pages", "--allocators", "system"),
            "lab: --with large-pages: no cell has jemalloc; name it in --allocators, or leave it out",
        ),
        (("dockerfile", "debian", "--with", "large-pages"), "lab: --with large-pages: no cell has jemalloc"),
        (
            ("measure", "--settings", "narenas=1", "--allocators", "system"),
            "lab: --settings narenas=1: no cell has jemalloc; name it in --allocators, or leave it out",
        ),
        (
            ("measure", "--baseline", "scratch-optimized-jemaloc"),
            "lab: unknown baseline 'scratch-optimized-jemaloc': did you mean 'scratch-optimized-jemalloc'?",
        ),
        (("measure", "--study", "memroy"), "lab: unknown study 'memroy': did you mean 'memory'?"),
        (("measure", "--workload", "root,bach"), "lab: unknown workload 'bach': did you mean 'batch'?"),
        (
            ("measure", "--blocks", "0"),
            "lab: Invalid value for '--blocks': 0 is not in the range x>=1 (see ./lab measure",
        ),
        (("batch", "--jobs", "0", "x"), "lab: Invalid value for '--jobs': 0 is not in the range x>=1 (see ./lab batch"),
        (("batch", "--jobs", "x", "x"), "lab: Invalid value for '--jobs': 'x' is not a valid integer range"),
        (("measure", "--width", "5"), "lab: Invalid value for '--width': '5' is no percentage, as 5%"),
        (("measure", "--push-to", "team/lab"), "lab: Invalid value for '--push-to': 'team/lab' is no repository"),
        (("measure", "--push-to", "a.b/Lab"), "lab: Invalid value for '--push-to': 'a.b/Lab' is no repository"),
        (("bake", "--debian", "bookwurm"), "lab: unknown Debian release 'bookwurm': did you mean 'bookworm'?"),
        (("probe", "--with", "tzdat"), "lab: unknown addition 'tzdat': did you mean 'tzdata'?"),
        (("repotr",), "lab: unknown command 'repotr': did you mean 'report'?"),
        (("run", "--alocators", "system"), "lab: No such option '--alocators'. (Did you mean one of: '--allocators', "),
        (("run", "--prof", "upx"), "lab: No such option '--prof'"),
        (("report", "--run", "recorded"), "lab: No such option '--run'"),
        ((), "lab: Missing command (see ./lab --help)"),
        (("report", "--format"), "lab: Option '--format' requires an argument (see ./lab report --help)"),
        (("choose", "--shell=yes"), "lab: Option '--shell' does not take a value (see ./lab choose --help)"),
        (("choose", "--workload", "large"), "lab: unknown workload of run 'recorded/service' 'large': known are batch"),
        (("export",), "lab: Missing argument 'RUN' (see ./lab export --help)"),
        (("report", "recoded"), "lab: unknown run 'recoded': did you mean 'recorded'?"),
        (("report", ","), "lab: ',' names no run"),
        (("run",), "lab: no Docker engine answers at unix:///nonexistent (No such file or directory): start it"),
        (("measure", "--width", "5%", "--workers", "1,2"), "lab: no Docker engine answers at unix:///nonexistent"),
        (("probe", "--with", "tmp"), "lab: no Docker engine answers at unix:///nonexistent"),
        (("run", "--with", "tmp"), "lab: no Docker engine answers at unix:///nonexistent"),
        (("measure", "--with", "tmp"), "lab: no Docker engine answers at unix:///nonexistent"),
        (("init", "examples/myip"), f"lab: {MYIP}/lab.toml is there already; edit it, or move it away"),
        (("clean",), "lab: no Docker engine answers at unix:///nonexistent"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(arguments, message, lab):
    done = lab(*arguments, **NO_ENGINE)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


def test_a_dockerfile_is_printed_as_it_is_committed(lab):
    done = lab("dockerfile", "scratch", "--profile", "optimized", "--allocator", "jemalloc", **NO_ENGINE)
    assert done.returncode == 0
    assert done.stdout == (MYIP / "Dockerfile.scratch").read_text()


@pytest.mark.parametrize(
    ("arguments", "cells"),
    [
        (["--only", "scratch-*,*-baseline-system"],
         ["scratch-baseline-jemalloc", "distroless-baseline-system", "debian-baseline-system",
          "scratch-optimized-jemalloc"]),
        (["--bases", "debian", "--profiles", "strip+lto-fat", "--allocators", "system,mimalloc"],
         ["debian-strip_lto-fat-system", "debian-strip_lto-fat-mimalloc"]),
        (["--knobs", "strip", "--only", "debian-strip-*"], ["debian-strip-system", "debian-strip-jemalloc"]),
    ],
)  # fmt: skip
def test_cells_are_listed_and_selected_by_patterns_without_an_engine(arguments, cells, lab):
    done = lab("cells", *arguments, **NO_ENGINE)
    assert (done.returncode, done.stdout.split()) == (0, cells), done.stderr


def test_a_pattern_that_no_cell_matches_is_one_line_with_the_cells_that_there_are(lab):
    for command in (["cells"], ["run", "--run", "test-none"], ["probe"], ["measure", "--study", "memory"]):
        done = lab(*command, "--bases", "scratch", "--only", "alpine-*", **NO_ENGINE)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert re.search("--only alpine-\\*: no cell matches; there are scratch-", done.stderr)


def test_a_bake_file_has_the_selected_cells_by_their_dockerfiles(lab):
    done = lab("bake", "--only", "scratch-optimized-*", **NO_ENGINE)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    (name,) = made["group"]["default"]["targets"]
    target = made["target"][name]
    assert (name, target["tags"]) == ("scratch-optimized-jemalloc", [f"myip:{name}"])
    assert target["dockerfile-inline"].replace("$${", "${") == (MYIP / "Dockerfile.scratch").read_text()
    assert target["context"] == str(MYIP)


def test_the_help_lists_every_command_and_loads_nothing_that_takes_long():
    code = (
        "import sys; from rustimg_lab.cli import main; main.main(['--help'])\n"
        "print('loaded', *{'pandas', 'numpy', 'docker', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    listed, _, loaded = done.stdout.partition("loaded")
    assert re.findall(r"^  (\w+)  ", listed.partition("Commands:")[2], re.MULTILINE) == list(main.MODULES)
    assert loaded.split() == [], done.stderr


def test_the_help_of_every_command_says_the_defaults():
    context, count = click.Context(main.lab), 0
    for name in main.MODULES:
        command = main.lab.get_command(context, name)
        for option in (each for each in command.params if isinstance(each, click.Option) and not each.is_flag):
            if isinstance(default := option.get_default(context), str | int) and default:
                assert re.search(rf"\(default: .*\b{default}\b.*\)$", option.help), (name, option.opts)
                count += 1
    assert count > 12


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("./lab re", ["report"]),
        ("./lab dockerfile scr", ["scratch"]),
        ("./lab run --bases scratch,d", ["scratch,distroless", "scratch,debian"]),
        ("./lab cells --profiles strip+lto-f", ["strip+lto-fat"]),
        ("./lab bake --allocators je", ["jemalloc"]),
        ("./lab choose --run recorded/mem", ["recorded/memory"]),
        ("./lab compare recorded recorded/f", ["recorded/factorial", "recorded/fd", "recorded/fd-threads"]),
        ("./lab run --bases nothing --debian bookw", ["bookworm"]),
        ("./lab nothing s", []),
    ],
)
def test_a_shell_completes_commands_and_names(line, completed, lab):
    done = lab(_LAB_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(line.count(" ")), **NO_ENGINE)
    assert [each.removeprefix("plain,") for each in done.stdout.split()] == completed
    assert (done.returncode, done.stderr) == (0, "")


def test_bash_completes_the_launcher():
    script = """
        eval "$(_LAB_COMPLETE=bash_source ./lab)"
        complete -p lab
        COMP_WORDS=(./lab dockerfile sta) COMP_CWORD=2
        _lab_completion ./lab
        echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["complete -o nosort -F _lab_completion lab", "static"], done.stderr


def test_packages_of_another_python_do_not_reach_the_launchers(tmp_path):
    (tmp_path / "click.py").write_text("raise ImportError")
    other = {"PYTHONPATH": str(tmp_path), "PYTHONHOME": str(tmp_path)}
    done = subprocess.run([ROOT / "lab", "--help"], env={**os.environ, **other}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and "lab [OPTIONS] COMMAND" in done.stdout


@pytest.mark.parametrize(("flags", "picked"), [([], "scratch-"), (["--shell"], "")])
def test_a_cell_is_chosen_with_its_dockerfile(flags, picked, lab):
    done = lab("choose", "--max-transfer", "3MB", *flags, **NO_ENGINE)
    found = re.search(r"^Selected: (\S+): ", done.stdout, re.MULTILINE)
    assert (done.returncode, done.stderr) == (0 if picked else 1, "")
    assert bool(found) == bool(picked)
    if found:
        assert found[1].startswith(picked)
        assert done.stdout.partition("--- Dockerfile\n")[2] == runs.dockerfile("recorded/service", found[1])


def test_a_choice_without_constraints_is_what_the_page_of_the_run_begins_with(lab):
    first = summary.best({"recorded/service": runs.load("recorded/service")})[0]
    done = lab("choose", **NO_ENGINE)
    assert done.returncode == 0 and f"\nSelected: {first.cell}: " in done.stdout
    assert "at least 95% of the best throughput; no unstable flags" in done.stdout
    smallest = lab("choose", "--weights", "transfer=1", **NO_ENGINE)
    assert "\nConstraints: none. " in smallest.stdout and f"Selected: {first.cell}: " not in smallest.stdout


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM], ids=lambda sign: sign.name)
def test_an_interrupted_command_is_one_line_and_exit_code_130(sign):
    code = (
        "import os, sys; from rustimg_lab.cli import main, output\n"
        f"output.make_report = lambda *about: os.kill(os.getpid(), {sign:d})\n"
        "sys.exit(main.main(['report']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "lab: interrupted; run the same command to resume\n")


@pytest.mark.parametrize("arguments", [["dockerfile", "scratch"], ["--help"]])
def test_who_reads_may_have_enough(arguments):
    process = subprocess.Popen([sys.executable, "-m", "rustimg_lab", *arguments], cwd=ROOT,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == 1


@pytest.mark.parametrize("arguments", [["cells"], ["choose", "--run", "recorded/service"]])
def test_a_stream_may_be_closed_or_take_few_characters(arguments):
    call = [sys.executable, "-m", "rustimg_lab", *arguments]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    plain = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (plain.returncode, plain.stderr) == (0, "") and plain.stdout
    script = ["sh", "-c", '"$@" >&-', "sh", *call]
    closed = subprocess.run(script, cwd=ROOT, capture_output=True, text=True)
    assert (closed.returncode, closed.stderr) == (0, "")


@pytest.mark.parametrize("name", ["allocators", "allocators-intel"])
def test_the_readme_compares_the_allocators_on_both_kinds_of_machine(name):
    other = comparison.of_study(runs.load(f"recorded/{name}"), "throughput-batch-1w-16c", "cpu_us_per_request")
    one = other.set_index("cell").loc["scratch-optimized-jemalloc"]
    assert f"{one['ratio']:.2f}x ({one['low']:.2f} to {one['high']:.2f}): {one['verdict']}" in DOCUMENTS


def test_both_machines_executed_as_many_instructions():
    here, there = (
        comparison.samples(runs.load(f"recorded/{run}"), "instructions-batch", "instructions_per_request")
        .groupby("cell")["value"]
        .mean()
        for run in ("allocators", "allocators-intel")
    )
    assert len(there) == 4 and ((there / here).dropna() - 1).abs().max() < 0.001


def test_the_documents_have_what_choose_says_of_the_recorded_service():
    wishes = Wishes({"transfer": 3e6}, min_throughput=0.95)
    for line in views.recommendation.evidence(recommendation.choose(runs.load("recorded/service"), wishes))[1:]:
        assert line in DOCUMENTS, f"README.md or docs/ should say:\n{line}"


def test_the_readme_says_what_images_survive():
    run = runs.load("recorded/survival")
    assert f"makes {len(probes.PROBES)} probes of every image" in DOCUMENTS
    outcomes, sizes = robustness.matrix(run), robustness.facts(run)["unpacked_bytes"].astype(int)
    best = outcomes.eq(probes.FAILED).sum().idxmin()
    assert list(outcomes.index[outcomes[best] == probes.FAILED]) == ["stack_overflow_main"]
    said = "passes all but `stack_overflow_main`, which no image changes, and costs {:,} bytes more than the article's"
    assert said.format(sizes[best] - sizes["scratch-optimized-jemalloc"]) in " ".join(DOCUMENTS.split())


def test_the_recorded_ladder_is_in_the_readme_and_has_every_profile_at_work():
    table = cells.cell_table(runs.load("recorded/ladder"))
    assert table["ok"].all()
    for base in ("scratch", "debian"):
        assert set(matrix.usual_grid("ladder").profiles) <= set(table.loc[table["base"] == base, "profile"])
    own = table[(table["base"] == "scratch") & (table["allocator"] == "system")]
    stable = own[own["unstable"].ne(True)]
    assert stable["unpacked_bytes"].min() <= 2_000_000 and own["unpacked_bytes"].min() <= 1_500_000
    sizes = [each["unpacked_bytes"].min() / 1e6 for each in (stable, own)]
    said = "the smallest image that fetches over HTTPS has {:.2f} MB with stable flags, {:.2f} with".format(*sizes)
    assert said in " ".join(DOCUMENTS.split())


def test_half_of_a_recorded_factorial_predicts_the_other():
    run = runs.load("recorded/factorial")
    _, reasons = factorials.find_factorials(run)
    assert not {metrics.IMAGE, metrics.APP, "transfer"} & set(reasons)
    scored = factorials.score(factorials.find_factorial(run, metrics.APP))
    assert scored["error"].abs().median() < 0.03 and scored["inside"].mean() >= 0.9


def test_the_recorded_knobs_tell_times_and_memory_and_no_sizes():
    _, reasons = factorials.find_factorials(runs.load("recorded/knobs"))
    assert set(reasons) == {metrics.IMAGE, metrics.APP, "transfer"}


def test_a_recorded_deploy_pulled_what_its_manifest_says_and_the_model_fits():
    times = deploy.times(runs.load("recorded/deploy"))
    cold = times[times["has"] == studies.EMPTY]
    assert (cold["pulled_bytes"] == cold["manifest_bytes"]).all()
    assert deploy.model(times)["error"].abs().max() < 0.1


def test_a_check_of_a_run_for_two_architectures_is_of_both(lab):
    done = lab("check", "--run", "recorded/arm64", "--max-transfer", "32.1MB", **NO_ENGINE)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "lab: failed: debian-baseline-system-arm64: compressed (pull) size 32.300 MB" in done.stderr
    assert "### Run recorded/arm64: all checks passed" in done.stdout
    assert "### Run recorded/arm64@arm64: 1 check failed" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        (["choose"], ["scratch-optimized-jemalloc", "first byte", "213.6 µs", "yes (100%)"]),
        (["demo"], ["distroless", "compressed", "11.3", "32.8"]),
        (["compare", "recorded/allocators", "recorded/threads"], ["scratch-optimized-jemalloc", "1.000 to 1.000"]),
    ],
)
def test_no_number_is_cut_off_or_broken_where_a_terminal_is_narrow(monkeypatch, capsys, arguments, numbers):
    monkeypatch.setattr(output, "console", Console(width=60))
    assert main.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    for number in numbers:
        assert any(number in line for line in lines), number


def test_a_recorded_command_has_no_folder_of_this_machine(tmp_path, monkeypatch):
    (tmp_path / "clients" / "acme" / "service").mkdir(parents=True)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.tar").touch()
    monkeypatch.chdir(tmp_path)
    typed = [
        ("--app", "clients/acme/service/"), ("--app=clients/acme/service",), ("--base", "debian=files/a.tar"),
        ("--base", "alpine=~/b.tar"), ("--app", str(tmp_path)), ("--base", "alpine=registry.example/x/alpine:3"),
        ("--run", "recorded/service"),
    ]  # fmt: skip
    context = click.Context(main.lab, obj=["run", *(word for words in typed for word in words)])
    with context:
        assert selection.typed_command() == (
            f"./lab run --app service --app=service --base debian=a.tar --base alpine=b.tar --app {tmp_path.name} "
            "--base alpine=registry.example/x/alpine:3 --run recorded/service"
        )
