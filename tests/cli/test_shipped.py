import pytest

from supreme.cli.shipped import plan_file, shipped_file, shipped_plans
from supreme.errors import UnknownNameError


def test_a_plan_by_name(inside):
    assert plan_file("quickstart").name == "quickstart.yaml"
    assert plan_file("configs/quickstart.yaml") == plan_file("quickstart")
    assert "quickstart" in shipped_plans()


def test_a_file_that_is_there_wins(inside):
    (inside / "configs").mkdir()
    (inside / "configs" / "quickstart.yaml").write_text("name: mine")
    assert plan_file("configs/quickstart.yaml").read_text() == "name: mine"


@pytest.mark.parametrize("text", ["quickstrat", "configs/quickstrat.yaml"])
def test_a_plan_that_is_not_there(text, inside):
    with pytest.raises(UnknownNameError, match="quickstart"):
        plan_file(text)


@pytest.mark.parametrize("text", ["", "..", "../configs/quickstart.yaml", "/quickstart", "nothing"])
def test_what_means_no_file(text):
    assert shipped_file(text) is None
