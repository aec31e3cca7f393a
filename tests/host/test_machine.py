"""What this machine is, by what its kernel tells."""

import pytest

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
