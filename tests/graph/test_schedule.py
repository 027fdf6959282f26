"""The arithmetic of time."""

from __future__ import annotations

import pytest

from snnconvert.errors import OptionError
from snnconvert.graph.schedule import SCHEDULES, Bistable, Streaming, Wait


def test_bistable_answers_after_depth_plus_one_windows_and_then_every_second() -> None:
    schedule = Bistable(107, 19, window=4)
    assert schedule.frames == 4
    assert [schedule.answer_step(frame) for frame in range(4)] == [80, 88, 96, 104]
    assert schedule.latency == {"window": 4, "first_output": 80, "total": 104}


def test_a_site_integrates_while_the_one_before_sends() -> None:
    schedule = Bistable(100, 3, window=5)
    assert schedule.intervals(1)[:2] == [(5, 10), (15, 20)]
    assert schedule.intervals(0)[:2] == [(0, 5), (10, 15)]
    assert schedule.integration_step(1, 1) == 10
    assert schedule.emission_step(2, 1, 3) == 23


def test_wait_staggers_layers() -> None:
    schedule = Wait(32, 4, wait=3)
    assert schedule.frames == 20
    assert schedule.intervals(2) == [(6, 26)]
    assert schedule.answer_step(0) == 13
    assert schedule.latency == {"window": 20, "first_output": 13, "total": 32}


def test_too_few_steps_say_how_many_are_needed() -> None:
    with pytest.raises(OptionError) as raised:
        Bistable(32, 19, window=5)
    assert "-T 40" in raised.value.hint
    assert "-T 80" in raised.value.hint
    with pytest.raises(OptionError) as raised:
        Wait(19, 19, wait=1)
    assert "-T 20" in raised.value.hint
    Wait(20, 19, wait=1)


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("phases", "ternary", "power2"),
        ("residual", "drop", "clamp"),
        ("rounding", "ceil", "floor"),
        ("window", 17, "16"),
        ("window", 0, "1"),
    ],
)
def test_options_outside_their_values_name_the_allowed_ones(option: str, value: object, named: str) -> None:
    options = {"window": 4, option: value}
    with pytest.raises(OptionError) as raised:
        Bistable(1000, 3, **options)  # type: ignore[arg-type]
    assert named in raised.value.hint + raised.value.message


def test_levels_by_code() -> None:
    assert Bistable(1000, 3, window=5).levels == 31
    assert Bistable(1000, 3, window=5, phases="uniform").levels == 5
    assert Bistable(1000, 3, window=5, rounding="floor").initial == 0.0
    assert Bistable(1000, 3, window=5).initial == 0.5


def test_interval_between_pipelined_answers() -> None:
    assert Bistable(100, 19, window=5).interval == 10
    assert Bistable(130, 19, window=5).interval == 40
    assert Streaming(32, 19).interval == 32
    assert Wait(32, 4, wait=3).interval == 20


def test_a_late_read_out_answers_later_and_takes_as_long() -> None:
    schedule = Wait(12, 4, wait=1, read_from=3)
    assert schedule.latency == {"window": 8, "first_output": 8, "total": 12}
    assert schedule.answer_steps == [8, 9, 10, 11, 12]
    assert Streaming(4, 9, read_from=3).answer_steps == [4]


@pytest.mark.parametrize(
    ("kind", "read_from", "plan", "named"),
    [("streaming", 8, {}, "0 to 7"), ("wait", 5, {"wait": 1}, "0 to 4"), ("streaming", -1, {}, "0 to 7")],
)  # fmt: skip
def test_a_read_out_that_starts_too_late_is_refused(
    kind: str, read_from: int, plan: dict[str, int], named: str
) -> None:
    with pytest.raises(OptionError) as raised:
        SCHEDULES[kind](8, 3, read_from=read_from, **plan)
    assert named in raised.value.message
