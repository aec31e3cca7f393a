"""Files of `data/`: a fault in one is reported with the file and the name of its table."""

import pytest

from rustimg_lab.errors import LabError
from rustimg_lab.model import toml
from rustimg_lab.model.probes import Probe


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[dns]\ngroup = "DNS"\nquestion = "q"\nremdy = "r"', "probe 'dns': unknown key 'remdy': did you mean"),
        ('[dns]\ngroup = "DNS"\nquestion = "q"', "probes.toml, probe 'dns': has no remedy"),
        ("[dns]\ngroup = 2024-02-28", "probe 'dns': 'group' is a date or a time, a text is needed"),
        ("dns = [1]", "probes.toml, probe 'dns': is a list, a table is needed"),
    ],
)  # fmt: skip
def test_a_probe_that_cannot_be_read_is_told_with_the_file(tmp_path, text, said):
    (tmp_path / "probes.toml").write_text(text)
    with pytest.raises(LabError) as told:
        toml.entries(tmp_path / "probes.toml", "probe", lambda _, table, __: toml.make(Probe, table))
    assert said in str(told.value)
