"""Every probe must pass where it should and fail where it should: on the article's images, with additions and without,
and on images that are made to fail."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace

import pytest
from conftest import derived, forget, ours, work_folders

from rustimg_lab import apps, engine, host, matrix, registry, store, survival
from rustimg_lab.matrix import Check, Serve
from rustimg_lab.measure import probes, serving, working
from rustimg_lab.paths import MYIP, RUNS

RUN = "test-probes"
SCRATCH, DEBIAN = "scratch-optimized-jemalloc", "debian-baseline-system"  # of the article: other tests build them too
WITH = f"{matrix.WITH}ca-certificates_init_tmp_tzdata"
NOTHING = ["/bin/sh", "-c", "exit 1"]

pytestmark = [pytest.mark.engine, pytest.mark.builds]


@pytest.fixture(scope="module")
def rows(lab):
    """The rows of `./lab probe` on scratch stripped and on debian unstripped, with all additions and without."""
    forget(RUN)
    done = [_probe(lab, *cell.split("-")) for cell in (SCRATCH, DEBIAN)]
    assert [each.returncode for each in done] == [0, 0], "".join(each.stdout + each.stderr for each in done)
    yield store.load(RUN)
    forget(RUN)


def _probe(lab: Callable, base: str, profile: str, allocator: str) -> subprocess.CompletedProcess:
    cells = ("--bases", base, "--profiles", profile, "--allocators", allocator)
    return lab("probe", "--run", RUN, *cells, "--with", "ca-certificates,init,tmp,tzdata")


@pytest.fixture(scope="module")
def subject(images, tools) -> probes.Subject:
    """A cell whose programs do nothing but fail; a test replaces what it is about."""
    app = replace(apps.load(MYIP), check=Check(prints="done"))
    image = engine.client().images.get(images["alpine"].image)
    made = derived(image.id, NOTHING)
    yield probes.Subject(app, made, made, None, "", images["alpine"].digest, tools)
    engine.client().images.remove(made, force=True)


@pytest.fixture
def made(images) -> Callable[..., str]:
    """Makes an image on the alpine stand-in with a command, and with files (mode and text by path) in it."""
    ids = []

    def make(command: list[str], user: str = working.USER, image: str = "", **files: tuple[int, str]) -> str:
        ids.append(derived(image or images["alpine"].image, command, user, files))
        return ids[-1]

    yield make
    for each in ids:
        engine.client().images.remove(each, force=True)


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
}


def test_there_are_twenty_probes_and_more_and_all_are_made(rows):
    found = survival.matrix(rows)
    assert len(survival.PROBES) >= 20
    assert set(PASSES_EVERYWHERE) | set(EXPECTED) == set(survival.PROBES)
    assert found.isin(survival.OUTCOMES).all(axis=None)
    assert list(found.columns) == [SCRATCH, SCRATCH + WITH, DEBIAN, DEBIAN + WITH]


@pytest.mark.parametrize("probe", survival.PROBES)
def test_what_images_survive_with_additions_and_without(rows, probe):
    found = survival.matrix(rows).loc[probe]
    marks = {survival.PASSED: "+", survival.FAILED: "-", survival.NOT_APPLICABLE: "n"}
    expected = EXPECTED.get(probe, "++++")
    seen = "".join("?" if one == "?" else marks[each] for one, each in zip(expected, found, strict=True))
    assert seen == expected, store.load(RUN).query("metric == @probe")[["cell", "detail"]].to_string()


def test_what_additions_cost_and_mend_is_told(rows):
    found = survival.costs(rows).set_index("cell").loc[SCRATCH + WITH]
    assert found["without"] == SCRATCH
    assert found["mended"] == "tls_system, time_zone, tmp, zombies"
    assert found["left"] == "backtrace, stack_overflow_main, crates"
    assert 500_000 < found["compressed_bytes"] < found["unpacked_bytes"] < 6_000_000


def test_each_image_has_a_bill_of_materials_and_its_own_dockerfile(rows):
    inventory = json.loads((RUNS / RUN / "sboms" / f"{DEBIAN}.spdx.json").read_text())
    assert inventory["spdxVersion"].startswith("SPDX-")
    assert {"libc6", "dpkg"} <= {each["name"] for each in inventory["packages"]}
    assert 'ENTRYPOINT ["/myip/tini", "--"]' in store.dockerfile(RUN, SCRATCH + WITH)
    assert "ENTRYPOINT" not in store.dockerfile(RUN, SCRATCH)


def test_what_was_probed_is_not_probed_again(rows, lab):
    done = _probe(lab, *SCRATCH.split("-"))
    assert done.returncode == 0 and "probing" not in done.stdout
    assert len(store.load(RUN)) == len(rows)


@pytest.mark.parametrize("group", probes.GROUPS)
def test_a_program_that_does_nothing_passes_no_probe_of_what_a_program_does(subject, group):
    passed = {name for name, outcome in outcomes(probes.GROUPS[group](subject, [])).items() if outcome == "passed"}
    assert passed <= {"setuid", "shell", "package_manager"}  # of which it says nothing


def test_a_program_that_writes_to_its_root_file_system(subject, made):
    image = made(shell("echo done > /tmp/x && busybox cat /tmp/x"), tmp=(0o1777, ""))
    assert working.why_not(image, subject.app)  # /tmp is a file there
    image = made(shell("echo done > /home && busybox cat /home"), home=(0o666, ""))
    assert working.why_not(image, subject.app) == ""
    assert outcomes(probes.GROUPS["rights"](replace(subject, image=image), []))["read_only"] == survival.FAILED


def test_a_program_that_needs_a_capability(subject, made):
    image = made(shell("busybox chown 7:7 /file && echo done"), user="", file=(0o600, ""))
    assert working.why_not(image, subject.app) == ""
    found = outcomes(probes.GROUPS["rights"](replace(subject, image=image), []))
    assert (found["no_privileges"], found["user"]) == (survival.FAILED, survival.FAILED)


def test_files_that_everyone_may_write_to_and_programs_with_the_rights_of_others(rows, subject, made):
    prober = store.load(RUN).query("metric == 'probed_with' and cell == @SCRATCH")["value"].iloc[-1].split()[-1]
    image = made([f"/{probes.NAME}/{probes.NAME}"], image=prober, **{"data": (0o666, ""), "tool": (0o4755, "")})
    files = probes.files_of(image)
    found = dict(probes.GROUPS["rights"](replace(subject, image=image, probe=image), files))
    assert found["writable"] == (survival.FAILED, "1 beside folders for temporary files: /data")
    assert found["setuid"] == (survival.FAILED, "1: tool")


def test_threads_with_a_small_stack(rows, subject):
    prober = store.load(RUN).query("metric == 'probed_with' and cell == @SCRATCH")["value"].iloc[-1].split()[-1]
    ended = probes.call(prober, "stack", "1024", environment={"RUST_MIN_STACK": "65536"})
    assert ended.passes()[0] == survival.FAILED


def test_a_program_that_takes_more_memory_than_it_may(subject, made):
    image = made(shell("busybox dd if=/dev/zero of=/dev/null bs=64M count=1 && echo done"))
    assert working.why_not(image, subject.app) == ""
    assert outcomes(probes.GROUPS["memory"](replace(subject, image=image), []))["memory_limit"] == survival.FAILED


def test_a_server_that_does_not_hear_of_sigterm_as_process_1(rows, subject, made):
    """busybox's httpd leaves the signal to the kernel, which does nothing of that kind to a process 1; and asks the
    kernel itself to take up what has lost its parent."""
    prober = store.load(RUN).query("metric == 'probed_with' and cell == @SCRATCH")["value"].iloc[-1].split()[-1]
    serve = Serve(arguments=("-f", "-p", "{host}:{port}", "-h", "/etc"), path="/hosts")
    app = replace(subject.app, check=None, serve=serve)
    server = made(["busybox", "httpd"])
    found = dict(probes.GROUPS["process 1"](replace(subject, probe=prober, server_app=app, server=server), []))
    assert found["sigterm"] == (survival.FAILED, "still there after 2 s")
    assert found["zombies"][0] == survival.PASSED


def test_a_bill_of_materials_that_does_not_name_what_is_there(images):
    found = probes.inventory_of(images["debian"].image, [], '{"packages": []}')
    assert {each.metric: each.value for each in found}["sbom"] == survival.FAILED


def test_the_crates_of_an_auditable_program_are_seen(builds, images):
    app = probes.load_app()
    (plain,), (auditable,) = (builds([matrix.cell("scratch", profile, "system")], app)
                              for profile in ("strip", "strip+auditable"))  # fmt: skip
    found = {each.metric: each for each in probes.inventory_of(auditable.image, [], probes.sbom(auditable.image))}
    assert found["crates"].value == survival.PASSED and found["crates_seen"].value > 10
    more = auditable.shipped.stat().st_size - plain.shipped.stat().st_size
    assert 0 < more < 8192


def test_a_name_server_that_does_not_start_is_told(subject, images):
    with pytest.raises(serving.Lost, match="name server"), probes.resolver(images["alpine"].image):
        pass


def test_a_probe_that_cannot_be_made_is_a_row_with_its_reason(subject, monkeypatch):
    monkeypatch.setattr(probes, "SBOM_TIMEOUT_S", 60)
    broken = replace(subject, tools=subject.image)  # which has no dnsmasq
    with registry.serve() if host.registry_command() else pytest.skip("no registry") as own:
        found = {each.metric: each for each in probes.measure(broken, own)[0]}
    assert not found["dns_plain"].ok and "name server" in found["dns_plain"].reason
    assert found["tmp"].ok and set(survival.PROBES) <= set(found)


def test_no_container_asks_for_more_than_it_needs(rows, least_privilege):
    """What is looked at is held to it at the end of all tests, in conftest.py: here, that there is something to see."""
    assert len(least_privilege) > 50
    assert {"none", "host"} <= {each["NetworkMode"] for each in least_privilege}


def test_nothing_is_left_of_a_probe(rows):
    assert ours() == []
    assert not work_folders()
