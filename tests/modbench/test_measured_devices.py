"""What was measured once is found again, by whoever asks on the same machine, and by nobody else."""

import os

import pytest

from modbench import machine_cache, measured_devices
from modbench.host import fingerprint, host_facts
from modbench.measured_devices import MeasuredDevice


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # the session's cache is shared by all tests


def make_device(**changes) -> MeasuredDevice:
    fields = {
        "name": "Example CPU",
        "kind": "cpu",
        "memory_bytes": 2**34,
        "host": fingerprint(host_facts()),
        "machine": "m",
        "torch": "2.13.0",
        "dtype": "float32",
        "threads": 1,
        "copy_bytes_per_s": 1e10,
        "matmul_flops_per_s": 1e11,
    }
    return MeasuredDevice(**{**fields, **changes})


def test_a_device_is_recalled_by_machine_torch_dtype_and_threads():
    device = make_device()
    measured_devices.remember(device)
    assert measured_devices.recall("m", "2.13.0", "float32", 1) == device
    assert measured_devices.recall("m", "2.13.0", "bfloat16", 1) is None
    assert measured_devices.recall("m", "2.13.0", "float32", 2) is None


def test_only_devices_of_this_host_are_listed_the_newest_first():
    measured_devices.remember(make_device())
    measured_devices.remember(make_device(dtype="bfloat16"))
    measured_devices.remember(make_device(machine="other", host="another host"))
    files = {path: path.read_text() for path in (machine_cache.cache_folder() / "ceilings").iterdir()}
    for path, text in files.items():
        os.utime(path, (0, 2e9 if "bfloat16" in text else 1e9))
    assert [device.dtype for device in measured_devices.on_this_host()] == ["bfloat16", "float32"]


def test_what_an_older_version_kept_is_measured_again():
    machine_cache.store("ceilings", ["m", "2.13.0", "float32", 1], {"copy_bytes_per_s": 1.0, "matmul_flops_per_s": 1.0})
    assert measured_devices.recall("m", "2.13.0", "float32", 1) is None
    assert measured_devices.on_this_host() == []
