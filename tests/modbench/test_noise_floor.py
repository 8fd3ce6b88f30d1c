"""Which calibration of this machine counts: exact before general, newest before older, and none of another machine."""

import json
import os

import pytest
from pydantic import ValidationError

from modbench import machine_cache
from modbench.noise_floor import GENERAL, KIND, NoiseFloor, keep, known_floor


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def floor(cells=(GENERAL,), share=0.02, **changes):
    fields = {
        "fingerprint": "here",
        "device_kind": "cpu",
        "threads": 1,
        "scenario": "calibration",
        "cells": list(cells),
        "num_pairs": 40,
        "measured_at": "2026-01-01T00:00:00Z",
        "floors": {"ttft_s": share, "tpot_s": share},
        "smallest_detectable": {"ttft_s": 0.05, "tpot_s": None},
    }
    return NoiseFloor(**{**fields, **changes})


def known(cells=("a",), fingerprint="here", device_kind="cpu", threads=1):
    return known_floor(fingerprint, device_kind, threads, cells)


def age(seconds):
    """Make everything stored so far older."""
    for path in (machine_cache.cache_folder() / KIND).glob("*.json"):
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - seconds))


def test_nothing_is_known_before_a_calibration():
    assert known() is None


def test_what_was_kept_comes_back_whole():
    keep(floor(["a"]))
    assert known() == floor(["a"])


def test_a_calibration_of_the_cells_goes_before_the_general_one_even_if_it_is_older():
    keep(floor(["a", "b"], share=0.05))
    age(100)
    keep(floor(share=0.01))
    assert known(["a"]).floors["ttft_s"] == 0.05
    assert known(["a", "b"]).floors["ttft_s"] == 0.05


def test_cells_that_were_not_all_calibrated_get_the_general_floor():
    keep(floor(["a"], share=0.05))
    assert known(["a", "c"]) is None
    keep(floor(share=0.01))
    assert known(["a", "c"]).floors["ttft_s"] == 0.01
    assert known([]).cells == [GENERAL]


def test_of_two_that_fit_the_newest_counts():
    keep(floor(["a", "b"], share=0.05))
    age(100)
    keep(floor(["a"], share=0.01))
    assert known(["a"]).floors["ttft_s"] == 0.01


def test_a_new_calibration_takes_the_place_of_the_old_one():
    keep(floor(share=0.05))
    keep(floor(share=0.01))
    assert known().floors["ttft_s"] == 0.01
    assert len(list((machine_cache.cache_folder() / KIND).iterdir())) == 1


@pytest.mark.parametrize("changes", [{"fingerprint": "elsewhere"}, {"device_kind": "cuda"}, {"threads": 2}])
def test_another_machine_device_or_thread_count_says_nothing_about_this_one(changes):
    keep(floor(**changes))
    keep(floor(["a"], **changes))
    assert known() is None
    assert known(**changes) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        '{"value": 7}',
        '{"value": {"fingerprint": "here"}}',
        json.dumps({"value": {**floor().model_dump(), "floors": {}}}),
        json.dumps({"value": {**floor().model_dump(), "floors": {"ttft_s": float("nan")}}}),
        json.dumps({"value": {**floor().model_dump(), "floors": {"ttft_s": -0.1}}}),
    ],
)
def test_a_damaged_file_is_passed_over(text):
    keep(floor(share=0.02))
    (machine_cache.cache_folder() / KIND / "damaged.json").write_text(text)
    assert known().floors["ttft_s"] == 0.02


def test_fields_of_a_newer_version_do_not_matter():
    keep(floor())
    (path,) = (machine_cache.cache_folder() / KIND).iterdir()
    stored = json.loads(path.read_text())
    stored["value"]["unheard_of"] = 1
    path.write_text(json.dumps(stored))
    assert known() == floor()


def test_a_floor_is_a_share_and_never_nan():
    with pytest.raises(ValidationError):
        floor(share=float("nan"))
