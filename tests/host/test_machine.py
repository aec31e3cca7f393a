"""What this machine is, by what its kernel tells."""

import pytest

from rustimg_lab.errors import LabError
from rustimg_lab.host import machine

X86 = """processor	: 0
vendor_id	: AuthenticAMD
model name	: AMD EPYC 7R13

processor	: 1
model name	: AMD EPYC 7R13
"""
ARM = """processor	: 0
BogoMIPS	: 243.75
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x3
CPU part	: {}
CPU revision	: 1
"""


@pytest.mark.parametrize(
    ("text", "model"),
    [
        (X86, "AMD EPYC 7R13"),
        (ARM.format("0xd0c"), "arm64 CPU 0x41-0xd0c-0x3-1"),  # Neoverse N1
        (ARM.format("0xd4f"), "arm64 CPU 0x41-0xd4f-0x3-1"),  # Neoverse V2
        ("", "unknown"),
    ],
)
def test_the_model_of_a_cpu_is_its_name_or_the_numbers_of_its_design(tmp_path, text, model):
    (tmp_path / "cpuinfo").write_text(text)
    assert machine.cpu_model(str(tmp_path / "cpuinfo")) == model
    assert machine.cpu_model(str(tmp_path / "none")) == "unknown"


def test_threads_of_a_core_are_together_and_slow_cores_come_first(tmp_path):
    def told(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")

    for cpu, threads in ((0, "0,2"), (1, "1,3"), (2, "0,2"), (3, "1,3"), (4, "4"), (5, "5")):
        told(f"system/cpu/cpu{cpu}/topology/thread_siblings_list", threads)
    flat = machine.cores([0, 1, 2, 3, 4, 5], str(tmp_path))
    assert [core.cpus for core in flat] == [(0, 2), (1, 3), (4,), (5,)]
    told("cpu_atom/cpus", "4-5")  # as an Intel CPU of two kinds of core has it
    assert [core.cpus for core in machine.cores([0, 1, 2, 4, 5], str(tmp_path))] == [(4,), (5,), (0, 2), (1,)]
    for cpu, capacity in enumerate((446, 1024, 446, 1024, 871, 871)):  # as arm64 has it
        told(f"system/cpu/cpu{cpu}/cpu_capacity", str(capacity))
    assert [core.cpus for core in machine.cores([0, 1, 2, 3, 4, 5], str(tmp_path))] == [(0, 2), (4,), (5,), (1, 3)]
    assert [core.cpus for core in machine.cores([7, 8], str(tmp_path / "none"))] == [(7,), (8,)]


def test_a_lab_is_told_by_its_files_and_not_by_what_git_or_an_editor_leaves_beside_them(tmp_path, monkeypatch):
    for name, folder in (("PACKAGE", "rustimg_lab"), ("SHARE", "."), ("MYIP", "examples/myip")):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        monkeypatch.setattr(machine, name, tmp_path / folder)
    found = []

    def write(name: str, text: str) -> bool:
        """Whether the lab is another one with that file."""
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        found.append(machine.lab_files())
        return found[-1] not in found[:-1]

    for name in ("rustimg_lab/a.py", "rustimg_lab/build/b.j2", "data/bases.toml", "examples/myip/src/main.rs"):
        assert write(name, "one") and write(name, "two") and not write(name, "one")
    (tmp_path / "rustimg_lab" / "a.py").rename(tmp_path / "rustimg_lab" / "c.py")
    assert machine.lab_files() not in found
    write("rustimg_lab/c.py", "one")
    for beside in ("__pycache__/a.pyc", ".a.py.swp", ".DS_Store", "a.py~", ".cache/x", "_share/data/bases.toml"):
        assert not write(f"rustimg_lab/{beside}", "one"), beside
    assert not write("examples/myip/target/release/myip", "one") and not write("data/runs/a/rows.jsonl", "one")


@pytest.mark.parametrize("name", ["CARGO_HTTP_CAINFO", "SSL_CERT_FILE"])
def test_a_bundle_of_authorities_that_is_not_there_is_refused_and_not_replaced_by_the_systems(
    name, tmp_path, monkeypatch
):
    monkeypatch.delenv("CARGO_HTTP_CAINFO", raising=False)
    monkeypatch.setenv(name, str(tmp_path / "company.pem"))
    with pytest.raises(LabError, match=f"^{name} names {tmp_path}/company.pem, where no file is: name your bundle"):
        machine.ca_bundle()
    (tmp_path / "company.pem").touch()
    assert machine.ca_bundle() == tmp_path / "company.pem"
