import pytest

from supreme.cli.words import check, mentioned, unknown_options, write_out
from supreme.errors import ConfigError, UnknownNameError


def test_names_become_dotted_paths():
    words = ["--method", "RL", "--data=RandomSample", "--data.dataset", "ImageFolder", "--method.lr", "3"]
    assert write_out(words) == [
        *("--method", "supreme.methods.random_labels.RandomLabels"),
        "--data=supreme.scenarios.random_sample.RandomSample",
        *("--data.dataset", "supreme.datasets.image_folder.ImageFolder"),
        *("--method.lr", "3"),
    ]


def test_help_takes_names_too():
    assert write_out(["--method.help", "SSD"]) == ["--method.help", "supreme.methods.ssd.SSD"]


def test_the_scenario_of_fit_is_a_name_although_no_list_shows_it():
    assert write_out(["--data", "WholeDataset"]) == ["--data", "supreme.scenarios.WholeDataset"]


def test_an_argument_of_the_network_alone_means_the_default_network():
    assert write_out(["--network.width", "8"])[0] == "--network=supreme.models.resnet.ResNet18"
    assert len(write_out(["--network", "ResNet18", "--network.width", "8"])) == 4


def test_a_network_in_a_file_is_kept(tmp_path):
    (tmp_path / "net.yaml").write_text("network:\n  class_path: torchvision.models.resnet18\n")
    words = ["--config", str(tmp_path / "net.yaml"), "--network.width", "8"]
    assert write_out(words) == words


def test_shipped_files_are_found_away_from_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert write_out(["--config", "configs/method/ssd.yaml"])[1].endswith("configs/method/ssd.yaml")
    assert write_out(["-c", "method/ssd"])[1].endswith("configs/method/ssd.yaml")
    (tmp_path / "mine.yaml").write_text("seed_everything: 1\n")
    assert write_out(["-c", "mine.yaml"]) == ["-c", "mine.yaml"]


def test_what_is_mentioned(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "method:\n  class_path: SSD\n  init_args: {dampening: 1}\ntrainer: {logger: null}\n"
    )
    found = mentioned(["--config", str(tmp_path / "a.yaml"), "--data.init_args.forget=3", "--trainer.callbacks+=X"])
    assert found == {"config", "method", "method.dampening", "trainer", "data.forget", "trainer.callbacks"}


def test_options_that_do_not_exist():
    known = ["trainer.max_epochs", "method"]
    words = ["--trainer.max_epoch", "3", "--method.anything.below", "1", "--trainer.max_epochs=3"]
    assert list(unknown_options(words, known)) == ["trainer.max_epoch"]


@pytest.mark.parametrize("key", ["model.seed", "method.init_args.seed", "model.init_args.network"])
def test_what_is_given_once_is_refused_elsewhere(key):
    with pytest.raises(ConfigError, match="given once for all"):
        check([f"--{key}", "3"])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--method", "SDD"], "did you mean 'SSD'"),
        (["--method", "supreme.methods.ssd.SDD"], "did you mean 'SSD'"),
        (["--method", "not_there.Mine"], "not found"),
        (
            ["--method", "UNSIR", "--method.noise_step", "1"],
            "UNSIR has no argument 'noise_step'; did you mean 'noise_steps'",
        ),
        (["--data.dataset", "Digit"], "did you mean 'Digits'"),
        (["--network", "ResNet18", "--network.widht", "1"], "did you mean 'width'"),
    ],
)
def test_what_is_plainly_wrong(words, text):
    with pytest.raises((UnknownNameError, ConfigError), match=text):
        check(words)


def test_broken_configuration_files(tmp_path):
    (tmp_path / "bad.yaml").write_text("data:\n  forget: [a\n")
    with pytest.raises(ConfigError, match=r"bad.yaml', line \d, is not valid YAML"):
        check(["--config", str(tmp_path / "bad.yaml")])
    with pytest.raises(ConfigError, match=r"no configuration file 'none.yaml'"):
        check(["-c", "none.yaml"])
