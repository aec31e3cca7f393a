"""A study of layouts through the command line, of a server that compiles in seconds; and what it refuses."""

import pytest
from support.crates import crate
from support.lab import SERVER, adds_nothing, measured

from rustimg_lab.analysis import layouts
from rustimg_lab.model import metrics
from rustimg_lab.paths import REPORTS
from rustimg_lab.store import runs

NAME = "test-layouts"
SERVE = '[serve]\narguments = ["{port}"]\n'
MEASURE = ("measure", "--study", "layouts", "--app", str(SERVER), "--run", NAME, "--bases", "scratch",
           "--profiles", "baseline,opt-z", "--allocators", "system", "--layouts", "2", "--blocks", "2",
           "--seconds", "1", "--connections", "4")  # fmt: skip


@pytest.fixture(scope="module")
def study(lab):
    with measured(lab, NAME, MEASURE) as done:
        yield done


@pytest.mark.engine
def test_all_layouts_of_a_cell_are_in_the_same_blocks_and_rows_have_their_seeds(study):
    data = runs.load(NAME)
    own = data.rows[data.rows["study"].eq("layouts-own-1w-4c") & data.rows["metric"].eq(metrics.TRIAL)]
    assert own["ok"].all() and own.groupby("block").size().tolist() == [5, 5]  # the A/A control is the fifth
    assert set(own["layout"]) == {1, 2}
    built = data.rows[data.rows["metric"].eq(metrics.BINARY_SHA256)]
    assert built["value"].nunique() == len(built) == 4
    code = data.rows[data.rows["metric"].eq(metrics.CODE_SHA256)].groupby("profile")["value"]
    assert code.nunique().tolist() == [1, 1] and code.size().tolist() == [2, 2]
    cells, found = layouts.of_study(data, "layouts-own-1w-4c")
    assert cells["cell"].tolist() == ["scratch-baseline-system", "scratch-opt-z-system"]
    assert (cells["within"] > 0).all() and (cells["between_high"] >= cells["between"]).all() and len(found) == 1
    assert all((each.between_high == 0) == (each.cell in cells.attrs["warning"]) for each in cells.itertuples())
    page = (REPORTS / NAME / "report.html").read_text()
    assert "2 layouts of the same code" in page and "Which differences remain" in page


@pytest.mark.engine
def test_the_same_call_measures_nothing_again(study, pageless):
    adds_nothing(pageless, NAME, MEASURE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--layouts", "2"), "--layouts does not apply to --study throughput: leave it out"),
        (("--study", "layouts", "--width", "5%"), "--width does not apply to --study layouts: leave it out"),
        (("--study", "layouts", "--layouts", "1"), "Invalid value for '--layouts': 1 is not in the range x>=2"),
    ],
)
def test_what_does_not_apply_is_refused_in_one_line(options, message, lab):
    done = lab("measure", *options)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


def test_a_cell_whose_linker_is_another_is_refused_with_the_file_that_names_it(tmp_path, lab):
    configuration = '[target.x86_64-unknown-linux-gnu]\nrustflags = ["-Clink-arg=-fuse-ld=mold"]\n'
    folder = crate(tmp_path, {".cargo/config.toml": configuration, "lab.toml": SERVE})
    done = lab("measure", "--study", "layouts", "--app", str(folder), "--bases", "debian")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    said = ".cargo/config.toml names the linker mold for x86_64-unknown-linux-gnu, but lld links layouts: leave it out"
    assert said in done.stderr
