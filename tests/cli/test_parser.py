"""Messages of jsonargparse, which its versions word differently, end up as one sentence all the same."""

import pytest

from supreme.cli.parser import foreseen, sentence
from supreme.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "the following arguments are required: unlearn.method",
            "Missing --method; 'supreme list methods' shows all of them.",
        ),
        ('Key "unlearned" is required but not included in config object', "Missing --unlearned."),
        ("unrecognized arguments: stray", "Unexpected word 'stray'; an option starts with two dashes."),
        ("something\n   new", "something new"),
    ],
)
def test_sentences(message, expected):
    assert sentence(message) == expected


def test_the_error_behind_an_error():
    cause = DataError("no image")
    outer = ValueError("union")
    outer.__cause__ = cause
    assert foreseen(outer) is cause
    assert foreseen(ValueError("alone")) is None
    assert foreseen(None) is None


def test_a_circle_of_errors_ends():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert foreseen(first) is None
    assert isinstance(foreseen(ConfigError("x")), ConfigError)
