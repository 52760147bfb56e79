import pytest

from supreme.cli.list import corrections
from supreme.components import KINDS, listing


@pytest.mark.parametrize("kind", KINDS)
def test_every_component_with_what_it_is(kind, supreme):
    shown = supreme("list", kind)
    assert shown.code == 0
    lines = shown.out.splitlines()
    for component in listing(kind):
        line = next(line for line in lines if line.lstrip().startswith(component.name))
        assert component.summary.split()[0] in line


def test_aliases_papers_and_needs_are_shown(supreme):
    line = next(line for line in supreme("list", "methods").out.splitlines() if "RandomLabels" in line)
    assert "RL" in line
    assert "arXiv:1911.04933" in line
    assert "forget, retain" in line


def test_one_of_a_kind_will_do(supreme):
    assert supreme("list", "method").out == supreme("list", "methods").out


@pytest.mark.parametrize(("words", "text"), [(["methds"], "did you mean 'methods'"), ([], "KIND"), (["a", "b"], "'b'")])
def test_wrong_words(words, text, supreme, refused):
    refused(supreme("list", *words), text)


def test_corrections_say_what_why_and_how_to_get_the_published_number(supreme):
    shown = supreme("list", "corrections").out
    assert all(word in shown for word in ("published implementation", "why", "to get the published one"))
    assert all(row["what"] in shown for row in corrections())
    assert all(row["published"] and row["here"] and row["why"] for row in corrections())
