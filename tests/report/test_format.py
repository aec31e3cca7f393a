"""Numbers as a reader sees them."""

import pytest

from rustimg_lab.report import format


@pytest.mark.parametrize(
    "value, text", [(1.2, "1.20"), (12.34, "12.3"), (123.4, "123"), (999.7, "1,000"), (24_130.4, "24,130"), (None, "")]
)
def test_three_digits_are_written_without_exponent_and_without_a_bare_point(value, text):
    assert format.three_digits(value) == text
    assert format.megabytes(value and value * 1e6) == text
