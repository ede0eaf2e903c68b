"""The command line's options, wherever they stand."""

from pathlib import Path

import pytest

from backend import cli

VERBS = [["serve"], ["engine"], ["demo"], ["user", "ann"], ["train", "kto"], ["train", "rounds"], ["promote", "1"]]


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
