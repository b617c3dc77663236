"""The command line of the benchmark."""

from __future__ import annotations

import pytest

from bench.__main__ import options

VARIABLES = ("QUICK", "FULL", "E2E")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_help_says_what_there_is_and_measures_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        options(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    assert all(each in shown for each in ("--quick", "--full", "--e2e", "make bench QUICK=1"))


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_does_what_the_option_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    by_option = options([f"--{name.lower()}"])
    monkeypatch.setenv(name, "1")
    assert options([]) == by_option
    assert getattr(by_option, name.lower()) is True


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
    chosen = options([])
    assert (chosen.quick, chosen.full, chosen.e2e) == (False, False, False)


@pytest.mark.parametrize(
    ("arguments", "variable", "says"),
    [
        (["--quick", "--full"], None, "not allowed with argument"),
        (["--quick"], "FULL", "exclude each other"),
        (["--fast"], None, "unrecognized arguments: --fast"),
        (["1000"], None, "unrecognized arguments: 1000"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: list[str],
    variable: str | None,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if variable:
        monkeypatch.setenv(variable, "1")
    with pytest.raises(SystemExit) as ended:
        options(arguments)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err
