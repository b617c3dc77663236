"""What `make chaos` plans, sends and expects: repeatable, complete, and able to find what is wrong."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chaos import account, inputs, plan
from chaos.inputs import NUMBER, Expected


def test_the_same_seed_makes_the_same_plan() -> None:
    assert plan.make(7, 100_000) == plan.make(7, 100_000)


def test_another_seed_makes_another_plan() -> None:
    assert plan.make(7, 100_000) != plan.make(8, 100_000)


@pytest.mark.parametrize("records", [100, 2_000, 19_999, 20_000, 100_000, 336_776])
def test_every_record_is_in_one_wave(records: int) -> None:
    assert sum(wave.records for wave in plan.make(1, records).waves) == records


@pytest.mark.parametrize("records", [2_000, 100_000])
def test_the_first_wave_is_calm_and_the_others_are_not(records: int) -> None:
    first, *others = plan.make(1, records).waves
    assert not first.faults
    assert all(wave.faults for wave in others)


@pytest.mark.parametrize("seed", range(10))
def test_every_kind_of_fault_is_planned(seed: int) -> None:
    waves = plan.make(seed, 100_000).waves
    faults = {(fault.kind, fault.target) for wave in waves for fault in wave.faults}
    assert {("postgres", "fast"), ("postgres", "immediate"), ("sessions", "")} < faults
    assert {("notification", ""), ("jobs", "")} < faults
    assert {("kill", each) for each in ("producer", "consumer", "register", "plan", "chunks")} < faults
    assert {wave.reshard for wave in waves} == {"split", "merge", None}


def test_faults_are_in_the_order_in_which_they_are_due() -> None:
    for wave in plan.make(3, 100_000).waves:
        assert [fault.at for fault in wave.faults] == sorted(fault.at for fault in wave.faults)
        assert all(0 <= fault.at < 1 for fault in wave.faults)


def test_nothing_is_resharded_after_the_last_wave() -> None:
    assert plan.make(1, 100_000).waves[-1].reshard is None


def test_a_calm_plan_sends_the_same_and_breaks_nothing() -> None:
    calm, broken = plan.make(5, 100_000, calm=True), plan.make(5, 100_000)
    assert [wave.in_files for wave in calm.waves] == [wave.in_files for wave in broken.waves]
    assert not any(wave.faults or wave.reshard for wave in calm.waves)


# ------------------------------------------------------------------ inputs


def _flights() -> Iterator[dict[str, Any]]:
    return ({"flight": number % 10} for number in itertools.count())


@pytest.fixture
def sent(tmp_path: Path) -> inputs.WaveInput:
    wave = plan.Wave(2, in_files=(10, 11, 12), through_api=4)
    return inputs.write(wave, tmp_path, _flights(), start=100)


def test_every_good_record_has_a_number_of_its_own(sent: inputs.WaveInput) -> None:
    numbers = [payload[NUMBER] for file in sent.files for _, payload in file.lines]
    numbers += [record["payload"][NUMBER] for record in sent.api]
    assert sorted(numbers) == list(range(100, 137))


def test_the_lines_are_where_their_offsets_say(sent: inputs.WaveInput) -> None:
    for file in sent.files:
        content = file.path.read_bytes()
        for offset, payload in file.lines:
            assert json.loads(content[offset : content.index(b"\n", offset)]) == payload


def test_the_poison_is_in_the_files(sent: inputs.WaveInput) -> None:
    for file in sent.files:
        lines = file.path.read_bytes().splitlines()
        assert len(lines) == file.records
        assert set(file.poison) < set(lines)


def test_no_two_bad_records_of_a_plan_are_equal(tmp_path: Path) -> None:
    wanted = plan.make(1, 300)
    source = _flights()
    waves = [inputs.write(wave, tmp_path, source, wave.number * 1_000) for wave in wanted.waves]
    bad = [raw for wave in waves for file in wave.files for raw in file.poison]
    bad += [raw for wave in waves for raw in wave.garbage]
    assert len(set(bad)) == len(bad) == wanted.poison


def test_a_file_brings_its_ids_or_gets_them_from_its_lines_places(sent: inputs.WaveInput) -> None:
    by_place, by_field, _ = sent.files
    expected = Expected()
    by_place.expect_in(expected, "upload-a")
    assert set(expected.digests) == {f"upload-a:{offset}" for offset, _ in by_place.lines}
    expected = Expected()
    by_field.expect_in(expected, "upload-b")
    assert set(expected.digests) == {payload["chaos_id"] for _, payload in by_field.lines}


def test_the_order_of_keys_is_no_difference() -> None:
    assert inputs.digest({"a": 1, "b": [None, "é"]}) == inputs.digest({"b": [None, "é"], "a": 1})
    assert inputs.digest({"a": 1}) != inputs.digest({"a": 2})


def test_two_records_with_one_id_are_a_defect_of_the_input() -> None:
    expected = Expected()
    expected.expect("a", {})
    with pytest.raises(ValueError, match="two records with the id a"):
        expected.expect("a", {})


# ----------------------------------------------------------------- account

ROWS = [("a", '{"chaos_number": 1}'), ("b", '{"chaos_number": 2}')]
BAD = [b"bad", b"worse"]


@pytest.fixture
def expected() -> Expected:
    made = Expected()
    for record_id, text in ROWS:
        made.expect(record_id, json.loads(text))
    made.rejected.update(BAD)
    return made


def test_the_account_closes_when_everything_is_there_once(expected: Expected) -> None:
    found = account.compare(expected, ROWS, BAD, repeated=0)
    assert found.closes
    assert (found.records, found.rows, found.poison, found.rejected) == (2, 2, 2, 2)


@pytest.mark.parametrize(
    ("rows", "rejected", "repeated", "wrong"),
    [
        (ROWS[:1], BAD, 0, {"lost": 1}),
        ([*ROWS, ("c", '{"chaos_number": 2}')], BAD, 0, {"duplicated": 1, "unexpected": 1}),
        ([*ROWS, ("c", '{"chaos_number": 3}')], BAD, 0, {"unexpected": 1}),
        ([ROWS[0], ("b", '{"chaos_number": 2, "x": 0}')], BAD, 0, {"altered": 1}),
        # As many rows as there should be, and the wrong ones: counts alone would not see it.
        ([("b", ROWS[0][1]), ("a", ROWS[1][1])], BAD, 0, {"altered": 2}),
        (ROWS[:1], [*BAD, b"good"], 0, {"lost": 1, "wrongly_rejected": 1}),
        (ROWS, [*BAD, BAD[0]], 0, {"wrongly_rejected": 1}),
        (ROWS, BAD[:1], 0, {"poison_missing": 1}),
        (ROWS, BAD, 1, {"repeated": 1}),
    ],
)
def test_whatever_is_wrong_keeps_the_account_open(
    expected: Expected,
    rows: list[tuple[str, str]],
    rejected: list[bytes],
    repeated: int,
    wrong: dict[str, int],
) -> None:
    found = account.compare(expected, rows, rejected, repeated)
    assert not found.closes
    told = {name: number for name, number in found.to_json().items() if number}
    told = {
        name: number for name, number in told.items() if name not in ("records", "rows", "poison", "rejected")
    }
    assert told == wrong
