"""Every probe must pass where it should and fail where it should: on the article's images, with additions and without,
and on images that are made to fail."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace

import pytest
from support.lab import derived, forget, ours, wait_for

from rustimg_lab.analysis import robustness
from rustimg_lab.build import lab_toml
from rustimg_lab.engine import client, containers, local_registry
from rustimg_lab.host.tools import registry_command
from rustimg_lab.measure import plan, smoke
from rustimg_lab.measure.probes import inventory, runner
from rustimg_lab.model import matrix, probes
from rustimg_lab.model.app import Check, Serve
from rustimg_lab.paths import MYIP, RUNS
from rustimg_lab.store import runs

RUN = "test-probes"
SCRATCH, DEBIAN = "scratch-optimized-jemalloc", "debian-baseline-system"  # of the article: other tests build them too
WITH = f"{matrix.WITH}ca-certificates_init_tmp_tzdata"
NOTHING = ["/bin/sh", "-c", "exit 1"]

pytestmark = [pytest.mark.engine, pytest.mark.builds]


@pytest.fixture(scope="module")
def recorded(lab):
    """The run of `./lab probe` on scratch stripped and on debian unstripped, with all additions and without."""
    forget(RUN)
    done = [_probe(lab, *cell.split("-")) for cell in (SCRATCH, DEBIAN)]
    assert [each.returncode for each in done] == [0, 0], "".join(each.stdout + each.stderr for each in done)
    yield runs.load(RUN)
    forget(RUN)


def _probe(lab: Callable, base: str, profile: str, allocator: str) -> subprocess.CompletedProcess:
    cells = ("--bases", base, "--profiles", profile, "--allocators", allocator)
    return lab("probe", "--run", RUN, *cells, "--with", "ca-certificates,init,tmp,tzdata")


@pytest.fixture(scope="module")
def subject(images, tools) -> runner.Subject:
    """A cell whose programs do nothing but fail; a test replaces what it is about."""
    app = replace(lab_toml.load(MYIP), check=Check(prints="done"))
    image = client.connect().images.get(images["alpine"].image)
    made = derived(image.id, NOTHING)
    yield runner.Subject(app, made, made, None, "", images["alpine"].digest, tools)
    client.connect().images.remove(made, force=True)


@pytest.fixture
def made(images) -> Callable[..., str]:
    """Makes an image on the alpine stand-in with a command, and with files (mode and text by path) in it."""
    ids = []

    def make(command: list[str], user: str = smoke.USER, image: str = "", **files: tuple[int, str]) -> str:
        ids.append(derived(image or images["alpine"].image, command, user, files))
        return ids[-1]

    yield make
    for each in ids:
        client.connect().images.remove(each, force=True)


def shell(text: str) -> list[str]:
    return ["/bin/sh", "-c", text]


def outcomes(found) -> dict[str, str]:
    return {name: outcome for name, (outcome, evidence) in found}


# What each of the four images must give, where it is not the same in all.
PASSES_EVERYWHERE = (
    "tls_bundled", "tls_cert_file", "dns_plain", "dns_many", "dns_truncated", "dns_ipv6", "dns_search", "read_only",
    "no_privileges", "user", "memory_limit", "oom", "sigterm", "panic", "stack_overflow", "thread_stack", "sbom",
)  # fmt: skip
EXPECTED = {  # scratch, scratch with additions, debian, debian with additions
    "tls_system": "-+-+",
    "time_zone": "-+?+",
    "tmp": "-+++",
    "zombies": "-+-+",
    "backtrace": "--++",
    "stack_overflow_main": "--++",
    "shell": "++--",
    "package_manager": "++--",
    "setuid": "++--",
    "writable": "++??",
    "crates": "----",
    **dict.fromkeys(runner.PAGES_KIB, "nnnn"),  # of arm64: tests/pipeline/test_arm64.py
}


def test_there_are_twenty_probes_and_more_and_all_are_made(recorded):
    found = robustness.matrix(recorded)
    assert len(probes.PROBES) >= 20
    assert set(PASSES_EVERYWHERE) | set(EXPECTED) == set(probes.PROBES)
    assert found.isin(probes.OUTCOMES).all(axis=None)
    assert list(found.columns) == [SCRATCH, SCRATCH + WITH, DEBIAN, DEBIAN + WITH]


@pytest.mark.parametrize("probe", probes.PROBES)
def test_what_images_survive_with_additions_and_without(recorded, probe):
    found = robustness.matrix(recorded).loc[probe]
    marks = {probes.PASSED: "+", probes.FAILED: "-", probes.NOT_APPLICABLE: "n"}
    expected = EXPECTED.get(probe, "++++")
    seen = "".join("?" if one == "?" else marks[each] for one, each in zip(expected, found, strict=True))
    assert seen == expected, runs.load(RUN).rows.query("metric == @probe")[["cell", "detail"]].to_string()


def test_what_additions_cost_and_mend_is_told(recorded):
    found = robustness.costs(recorded).set_index("cell").loc[SCRATCH + WITH]
    assert found["without"] == SCRATCH
    assert found["mended"] == "tls_system, time_zone, tmp, zombies"
    assert found["left"] == "backtrace, stack_overflow_main, crates"
    assert 500_000 < found["compressed_bytes"] < found["unpacked_bytes"] < 6_000_000


def test_each_image_has_a_bill_of_materials_and_its_own_dockerfile(recorded):
    inventory = json.loads((RUNS / RUN / "sboms" / f"{DEBIAN}.spdx.json").read_text())
    assert inventory["spdxVersion"].startswith("SPDX-")
    assert {"libc6", "dpkg"} <= {each["name"] for each in inventory["packages"]}
    assert 'ENTRYPOINT ["/myip/tini", "--", "/myip/myip"]\n' in runs.dockerfile(RUN, SCRATCH + WITH)
    assert 'ENTRYPOINT ["/myip/myip"]\n' in runs.dockerfile(RUN, SCRATCH)


def test_what_was_probed_is_not_probed_again(recorded, lab):
    done = _probe(lab, *SCRATCH.split("-"))
    assert done.returncode == 0 and "probing" not in done.stdout
    assert len(runs.load(RUN).rows) == len(recorded.rows)


@pytest.mark.parametrize("group", runner.GROUPS)
def test_a_program_that_does_nothing_passes_no_probe_of_what_a_program_does(subject, group):
    passed = {name for name, outcome in outcomes(runner.GROUPS[group](subject, [])).items() if outcome == "passed"}
    assert passed <= {"setuid", "shell", "package_manager"}  # of which it says nothing


def test_a_program_that_writes_to_its_root_file_system(subject, made):
    image = made(shell("echo done > /tmp/x && busybox cat /tmp/x"), tmp=(0o1777, ""))
    assert smoke.why_not(image, subject.app)  # /tmp is a file there
    image = made(shell("echo done > /home && busybox cat /home"), home=(0o666, ""))
    assert smoke.why_not(image, subject.app) == ""
    assert outcomes(runner.GROUPS["rights"](replace(subject, image=image), []))["read_only"] == probes.FAILED


def test_a_program_that_needs_a_capability(subject, made):
    image = made(shell("busybox chown 7:7 /file && echo done"), user="", file=(0o600, ""))
    assert smoke.why_not(image, subject.app) == ""
    found = outcomes(runner.GROUPS["rights"](replace(subject, image=image), []))
    assert (found["no_privileges"], found["user"]) == (probes.FAILED, probes.FAILED)


def test_files_that_everyone_may_write_to_and_programs_with_the_rights_of_others(recorded, subject, made):
    prober = runs.load(RUN).rows.query("metric == 'probed_with' and cell == @SCRATCH")["value"].iloc[-1].split()[-1]
    image = made([f"/{runner.NAME}/{runner.NAME}"], image=prober, **{"data": (0o666, ""), "tool": (0o4755, "")})
    files = runner.files_of(image)
    found = dict(runner.GROUPS["rights"](replace(subject, image=image, probe=image), files))
    assert found["writable"] == (probes.FAILED, "1 beside folders for temporary files: /data")
    assert found["setuid"] == (probes.FAILED, "1: tool")


def test_threads_with_a_small_stack(recorded, subject):
    prober = runs.load(RUN).rows.query("metric == 'probed_with' and cell == @SCRATCH")["value"].iloc[-1].split()[-1]
    ended = runner.call(prober, "stack", "1024", environment={"RUST_MIN_STACK": "65536"})
    assert ended.passes()[0] == probes.FAILED


def test_a_program_that_takes_more_memory_than_it_may(subject, made):
    image = made(shell("busybox dd if=/dev/zero of=/dev/null bs=64M count=1 && echo done"))
    assert smoke.why_not(image, subject.app) == ""
    assert outcomes(runner.GROUPS["memory"](replace(subject, image=image), []))["memory_limit"] == probes.FAILED


def test_a_server_that_does_not_hear_of_sigterm_as_process_1(recorded, subject, made):
    """busybox's httpd leaves the signal to the kernel, which does nothing of that kind to a process 1; and asks the
    kernel itself to take up what has lost its parent."""
    prober = runs.load(RUN).rows.query("metric == 'probed_with' and cell == @SCRATCH")["value"].iloc[-1].split()[-1]
    serve = Serve(arguments=("-f", "-p", "{host}:{port}", "-h", "/etc"), path="/hosts")
    app = replace(subject.app, check=None, serve=serve)
    server = made(["busybox", "httpd"])
    found = dict(runner.GROUPS["process 1"](replace(subject, probe=prober, server_app=app, server=server), []))
    assert found["sigterm"] == (probes.FAILED, "still there after 2 s")
    assert found["zombies"][0] == probes.PASSED


def test_a_bill_of_materials_that_does_not_name_what_is_there(images):
    found = inventory.inventory_of(images["debian"].image, [], '{"packages": []}')
    assert {each.metric: each.value for each in found}["sbom"] == probes.FAILED


def test_the_crates_of_an_auditable_program_are_seen(builds, images):
    app = runner.load_app()  # for debian and unstripped it is compiled already, for the run of the probes
    (plain,), (auditable,) = (builds([matrix.cell("debian", profile, "system")], app)
                              for profile in ("strip", "strip+auditable"))  # fmt: skip
    document = inventory.sbom(auditable.image)
    found = {each.metric: each for each in inventory.inventory_of(auditable.image, [], document)}
    assert found["crates"].value == probes.PASSED and found["crates_seen"].value > 10
    more = auditable.shipped.stat().st_size - plain.shipped.stat().st_size
    assert 0 < more < 8192


def test_a_name_server_that_does_not_start_is_told(subject, images):
    with pytest.raises(plan.FailedTrial, match="name server"), runner.resolver(images["alpine"].image):
        pass


def test_a_probe_that_cannot_be_made_is_a_row_with_its_reason(subject, monkeypatch):
    monkeypatch.setattr(inventory, "SBOM_TIMEOUT_S", 60)
    broken = replace(subject, tools=subject.image)  # which has no dnsmasq
    with local_registry.serve() if registry_command() else pytest.skip("no registry") as own:
        found = {each.metric: each for each in runner.measure(broken, own)[0]}
    assert not found["dns_plain"].ok and "name server" in found["dns_plain"].reason
    assert found["tmp"].ok and set(probes.PROBES) <= set(found)


def test_no_container_asks_for_more_than_it_needs(recorded, least_privilege, images):
    """What is looked at is held to it at the end of all tests, in conftest.py: here, that there is something to see."""
    assert len(least_privilege) > 50
    with containers.created(images["alpine"].image, command=["true"], network_mode="host"):  # as studies make them
        assert wait_for(lambda: {"none", "host"} <= {each["NetworkMode"] for each in least_privilege}, 30)


def test_nothing_is_left_of_a_probe(recorded):
    # A killed lab of the tests beside these has a moment to be cleaned up after.
    assert wait_for(lambda: not ours(), 60)
