"""Options of calibration methods: every method's own are known, everything else is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from snnconvert.calibrate import check_options
from snnconvert.calibrate.options import Reconstruct
from snnconvert.errors import OptionError


@pytest.mark.parametrize(
    ("method", "given", "message", "hint"),
    [
        ("percentile", {"percentle": 99}, "options.percentle means nothing", "did you mean percentile?"),
        ("mse", {"percentile": 99}, "--percentile means nothing to --calibration mse", "--calibration percentile"),
        ("mse", {"rounds": 2}, "options.rounds means nothing", "add --calibration reconstruct"),
        ("mse", {"zzz": 2}, "options.zzz means nothing", "mse has initial"),
        ("percentile", {"percentile": 0}, "--percentile 0 is not a number above 0, at most 100", "give --percentile"),
        ("percentile", {"percentile": "a"}, "--percentile 'a' is not a number", "give"),
        ("rnl", {"granularity": "image"}, "--granularity 'image' is not known; there are channel, layer", "give"),
        ("rnl", {"p": 1.5}, "options.p 1.5 is not a number above 0, at most 1", "give"),
        ("rnl", {"headroom": 1}, "--headroom means nothing", "add --calibration reconstruct or --calibration mse"),
        ("mse", {"headroom": -1}, "--headroom -1 is not a number from 0", "give --headroom"),
        ("reconstruct", {"rounds": 1.5}, "options.rounds 1.5 is not a whole number from 0", "give"),
        ("reconstruct", {"rounds": True}, "options.rounds True is not a whole number", "give"),
        ("reconstruct", {"weights": 1}, "options.weights 1 is not true or false", "give"),
        ("reconstruct", {"read_at": [0]}, r"options.read_at \[0\] is not a list of whole numbers from 1", "give"),
    ],
)
def test_what_does_not_fit_is_refused(method: str, given: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        check_options(method, given)
    assert hint in caught.value.hint


def test_longer_runs_need_fewer_positions() -> None:
    usual = Reconstruct()
    assert [usual.rows_for(frames) for frames in (2, 8, 9, 64)] == [32_768, 32_768, 8_192, 8_192]
    assert usual.rows_for(4, solved=False) == 8_192  # thresholds and biases alone: one number of a channel
    early = Reconstruct(read_at=(4,))  # has to be right after four steps as well
    assert early.rows_for(64) == early.rows
