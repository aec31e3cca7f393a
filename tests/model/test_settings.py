"""Settings of allocators: what a text becomes, and which texts are refused."""

import pytest

from rustimg_lab.errors import LabError
from rustimg_lab.model import settings


def test_a_setting_is_the_variables_of_its_allocator():
    purge, decay, arenas = map(settings.parse, ("purge_delay=0", "dirty_decay_ms=-1", "narenas=1"))
    assert purge.allocator == "mimalloc" and purge.environment == {"MIMALLOC_PURGE_DELAY": "0"}
    both = {"_RJEM_MALLOC_CONF": "dirty_decay_ms:-1", "MALLOC_CONF": "dirty_decay_ms:-1"}
    assert decay.allocator == arenas.allocator == "jemalloc" and decay.environment == both
    assert len({purge, settings.parse("purge_delay=0"), settings.parse("purge_delay=10")}) == 2
    assert [str(each) for each in (purge, decay, arenas)] == ["purge_delay=0", "dirty_decay_ms=-1", "narenas=1"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("narena=1", "unknown setting 'narena': did you mean 'narenas'?"),
        ("narenas", "after 'narenas=' comes a whole number"),
        ("narenas=", "after 'narenas=' comes a whole number"),
        ("narenas=1.5", "after 'narenas=' comes a whole number"),
        ("narenas=1,dirty_decay_ms:0", "after 'narenas=' comes a whole number"),
        ("=1", "unknown setting ''"),
    ],
)
def test_what_is_no_setting_is_refused_in_one_line(text, said):
    with pytest.raises(LabError) as error:
        settings.parse(text)
    assert said in str(error.value) and "\n" not in str(error.value)
