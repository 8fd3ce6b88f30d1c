import pytest

from modbench import measured_devices
from modbench.devices import DATA_SHEETS, measured_device, named_device
from modbench.errors import UnsupportedError
from tests.modbench.test_measured_devices import make_device


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # the session's cache is shared by all tests


def remember(**changes) -> None:
    measured_devices.remember(make_device(**changes))


def test_a_named_device_has_its_data_sheets_peaks_in_base_units():
    found = named_device("H100-SXM", "bfloat16")
    assert (found.memory_bytes, found.copy_bytes_per_s, found.matmul_flops_per_s) == (80 * 2**30, 3.35e12, 989e12)
    assert found.source == "data-sheet peaks"
    assert named_device("h100-sxm", "float16").matmul_flops_per_s == found.matmul_flops_per_s
    assert named_device("h100-sxm", "float32").matmul_flops_per_s == 67e12


def test_every_data_sheet_is_of_a_plausible_card():
    for sheet in DATA_SHEETS.values():
        assert sheet.half_tflops > sheet.float_tflops > 1
        assert sheet.memory_gb >= 24
        assert 300 <= sheet.bandwidth_gb_per_s < 10_000


def test_an_unknown_device_is_refused_with_the_names_and_the_nearest():
    with pytest.raises(
        UnsupportedError, match=r"got 'a100-8O'; expected one of measured, a100-40, .*; did you mean a100-80\?"
    ):
        named_device("a100-8O", "float32")


def test_the_measured_device_has_the_dtype_and_if_it_can_the_threads():
    remember(threads=1)
    remember(threads=2, copy_bytes_per_s=2e10)
    remember(dtype="bfloat16", threads=4)
    found = measured_device("float32", threads=2)
    assert (found.copy_bytes_per_s, found.source, found.detail) == (
        2e10,
        "measured ceilings",
        "2 threads, torch 2.13.0",
    )
    assert measured_device("bfloat16", threads=1).detail.startswith("4 threads")


def test_a_scenario_for_a_gpu_does_not_take_the_ceilings_of_the_cpu():
    remember()
    with pytest.raises(UnsupportedError, match="no ceilings of float32 on cuda were measured"):
        measured_device("float32", kind="cuda")


def test_nothing_measured_says_how_to_measure_and_what_can_be_named():
    with pytest.raises(UnsupportedError, match=r"run `modbench doctor --remeasure`, or name a device: a100-40, "):
        measured_device("float16")


def test_a_name_that_is_begun_is_completed():
    with pytest.raises(UnsupportedError, match=r"did you mean h100-sxm or h100-pcie\?"):
        named_device("h100", "bfloat16")


def test_more_threads_than_cores_are_taken_only_where_they_are_asked_for():
    remember(threads=1, copy_bytes_per_s=1e10)
    remember(threads=4096, copy_bytes_per_s=1e9)
    assert measured_device("float32").copy_bytes_per_s == 1e10
    assert measured_device("float32", threads=4096).copy_bytes_per_s == 1e9
