"""The command line's options, wherever they stand."""

from pathlib import Path

import pytest

from backend import cli

VERBS = [
    ["serve"],
    ["engine"],
    ["demo"],
    ["user", "ann"],
    ["train", "kto"],
    ["train", "rounds"],
    ["promote", "1"],
    ["scenario", "list"],
]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_an_option_before_the_verb_holds_and_one_behind_it_holds_over_it(verb: list[str]) -> None:
    parse = cli._parser().parse_args
    assert parse(["--data-dir", "here", "--model", "m", *verb]).data_dir == Path("here")
    assert parse(["--data-dir", "here", *verb, "--data-dir", "there"]).data_dir == Path("there")
    told = parse(["--model", "m", *verb, "--data-dir", "there"])
    assert (told.data_dir, told.model) == (Path("there"), "m")
    assert parse(verb).data_dir is None


def test_a_port_before_serve_holds() -> None:
    told = cli._parser().parse_args(["--port", "8000", "--behind-proxy", "serve"])
    assert told.port == 8000 and told.behind_proxy is True


def test_a_setting_that_is_not_given_is_not_changed() -> None:
    told = cli._parser().parse_args(["train", "ppo", "--kl-coef", "0.1", "--no-whiten-rewards"])
    assert cli.changes_of(told) == {"kl_coef": 0.1, "whiten_rewards": False}
    assert (told.seed, told.despite) == (0, "")


def test_a_scenario_is_listed_and_added_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*verb: str) -> tuple[int, str]:
        status = cli.main(["--data-dir", str(tmp_path), *verb], lambda settings: 1)
        return status, "".join(capsys.readouterr())

    status, said = run("scenario", "list", "--language", "zh")
    assert status == 0 and "service intent           zh  客服：顾客想办什么" in said and " en  " not in said
    add = ("scenario", "add", "service intent", "--project", "Help desk")
    assert run(*add)[1].endswith("2 template versions, 16 demonstrations and 77 cases are new.\n")
    assert run(*add)[1].endswith("0 template versions, 0 demonstrations and 0 cases are new.\n")
    status, said = run("scenario", "add", "weather", "--project", "Help desk")
    assert status == 2 and 'no scenario "weather"' in said
