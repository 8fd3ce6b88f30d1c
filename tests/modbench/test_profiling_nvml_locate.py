"""Which NVML device is CUDA's device: no driver, no GPU, several GPUs, CUDA_VISIBLE_DEVICES by number, UUID and MIG id."""

import subprocess
import sys

import pynvml
import pytest

from modbench.profiling.nvml import NvmlAbsent, NvmlDevice, open_device
from tests.modbench.fake_nvml import FakeGpu, FakeInstance, FakeNvml, State

FIRST, SECOND, THIRD = "GPU-8932f937-aaaa", "GPU-8932f0d7-bbbb", "GPU-c0ffee00-cccc"


def three_gpus(**changes) -> FakeNvml:
    return FakeNvml([FakeGpu(uuid) for uuid in (FIRST, SECOND, THIRD)], **changes)


def split_gpu(uuid: str = FIRST, num_instances: int = 2) -> FakeGpu:
    names = ["MIG-11111111-1111", "MIG-22222222-2222"][:num_instances]
    found = [FakeInstance(name, 7 + place, 0, State(used_bytes=2**30)) for place, name in enumerate(names)]
    return FakeGpu(uuid, instances=[None, *found, None])


def uuid_of(found: NvmlDevice | NvmlAbsent) -> str:
    assert isinstance(found, NvmlDevice), found
    return found.facts()["uuid"]


def reason_of(found: NvmlDevice | NvmlAbsent) -> str:
    assert isinstance(found, NvmlAbsent)
    return found.reason


def test_the_real_bindings_without_a_driver_are_absent_with_the_reason():
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        assert "no NVIDIA driver is installed" in reason_of(open_device(0, None))
    else:
        pynvml.nvmlShutdown()
        pytest.skip("this machine has a driver")


def test_no_bindings_are_absent_with_the_reason():
    code = (
        "import sys; sys.modules['pynvml'] = None; from modbench.profiling.nvml import open_device; "
        "print(open_device(0, None).reason)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "nvidia-ml-py is not installed" in printed


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "no NVIDIA driver is installed"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "not loaded"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "different versions"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "may not talk"),
        (pynvml.NVML_ERROR_UNKNOWN, "nvmlInit: Unknown Error"),
    ],
)
def test_a_driver_that_does_not_start_is_absent_with_the_reason(error, words):
    assert words in reason_of(open_device(0, None, FakeNvml(init_error=error)))


def test_what_was_opened_in_vain_is_closed_again():
    nvml = FakeNvml([])
    assert "lists no GPU" in reason_of(open_device(0, None, nvml))
    assert nvml.num_open == 0
    device = open_device(0, None, found := FakeNvml())
    assert found.num_open == 1
    device.close()
    assert found.num_open == 0


def test_a_driver_that_cannot_count_its_gpus_is_absent():
    nvml = FakeNvml(unsupported={"nvmlDeviceGetCount": pynvml.NVML_ERROR_UNKNOWN})
    assert reason_of(open_device(0, None, nvml)) == "nvmlDeviceGetCount: Unknown Error"


@pytest.mark.parametrize(
    ("visible", "cuda_index", "expected"),
    [
        (None, 2, THIRD),
        ("1", 0, SECOND),
        (" 2 , 0 ", 0, THIRD),
        ("2,0", 1, FIRST),
        ("0,2,-1,1", 1, THIRD),
        ("GPU-8932f9", 0, FIRST),
        (f"1,{THIRD}", 1, THIRD),
        (f"{SECOND},GPU-8932f937", 1, FIRST),
    ],
)
def test_visible_devices_are_counted_as_cuda_counts_them(visible, cuda_index, expected):
    assert uuid_of(open_device(cuda_index, visible, three_gpus(), device_order="PCI_BUS_ID")) == expected


@pytest.mark.parametrize(
    ("visible", "cuda_index", "words"),
    [
        (None, 3, "CUDA_VISIBLE_DEVICES is not set: got CUDA device 3; CUDA sees 3"),
        ("1", 1, "CUDA_VISIBLE_DEVICES='1': got CUDA device 1; CUDA sees 1"),
        ("", 0, "CUDA sees 0; entry '' is no number"),
        ("-1", 0, "CUDA sees 0; entry '-1' is no number"),
        ("NoDevFiles", 0, "entry 'NoDevFiles' is no number"),
        ("0,2,-1,1", 2, "CUDA sees 2; entry '-1' is no number, GPU UUID or MIG id, which ends the list"),
        ("0,3", 1, "CUDA sees 1; entry '3' is beyond the 3 GPUs"),
        ("GPU-8932f", 0, "CUDA sees 0; entry 'GPU-8932f' names 2 devices"),
        ("GPU-dead", 0, "entry 'GPU-dead' names 0 devices"),
        ("MIG-11111111-1111", 0, "names 0 devices"),
        ("0,GPU-8932f9", 0, "names a device again"),
        ("0", -1, "got CUDA device -1"),
    ],
)
def test_a_device_that_cuda_does_not_see_is_absent_with_the_reason(visible, cuda_index, words):
    assert words in reason_of(open_device(cuda_index, visible, three_gpus(), device_order="PCI_BUS_ID"))


def test_a_number_among_equal_gpus_carries_a_doubt_unless_cuda_counts_by_bus():
    doubtful = open_device(0, "1", three_gpus())
    assert uuid_of(doubtful) == SECOND
    assert doubtful.doubts == (
        "one of 3 GPUs, known by its number without CUDA_DEVICE_ORDER=PCI_BUS_ID: it may be another",
    )
    assert open_device(0, "1", three_gpus(), device_order="PCI_BUS_ID").doubts == ()
    assert open_device(0, SECOND, three_gpus()).doubts == (), "a UUID needs no order"
    assert open_device(0, "0", FakeNvml()).doubts == (), "there is but one"


def test_a_number_among_different_gpus_is_absent_unless_cuda_counts_by_bus():
    gpus = [FakeGpu(FIRST, "NVIDIA T1000"), FakeGpu(SECOND, "NVIDIA H100")]
    assert "GPUs of different kinds" in reason_of(open_device(0, None, FakeNvml(gpus), device_order="FASTEST_FIRST"))
    assert uuid_of(open_device(0, None, FakeNvml(gpus), device_order="PCI_BUS_ID")) == FIRST
    assert uuid_of(open_device(0, "GPU-8932f0", FakeNvml(gpus))) == SECOND


@pytest.mark.parametrize("uuid", [THIRD, THIRD.removeprefix("GPU-")])
def test_the_uuid_that_cuda_tells_wins_over_counting(uuid):
    found = open_device(0, "0", three_gpus(), uuid=uuid)
    assert uuid_of(found) == THIRD
    assert found.doubts == ()


def test_a_uuid_unknown_to_nvml_falls_back_to_counting_with_a_doubt():
    found = open_device(0, SECOND, three_gpus(), uuid="f00d")
    assert uuid_of(found) == SECOND
    assert found.doubts == ("CUDA's UUID f00d names no single device of NVML's; the device was found by counting",)


def test_a_gpu_that_cannot_be_opened_keeps_its_place():
    def gpus():
        return FakeNvml([FakeGpu(FIRST, open_error=pynvml.NVML_ERROR_GPU_IS_LOST), FakeGpu(SECOND)])

    assert reason_of(open_device(0, None, gpus(), device_order="PCI_BUS_ID")) == "GPU 0: GPU is lost"
    assert uuid_of(open_device(1, None, gpus(), device_order="PCI_BUS_ID")) == SECOND
    assert uuid_of(open_device(0, "GPU-8932f0", gpus())) == SECOND


@pytest.mark.parametrize(
    "visible", ["MIG-22222222-2222", "MIG-2222", f"MIG-{FIRST}/8/0", f"MIG-22222222-2222,{SECOND}"]
)
def test_a_mig_instance_is_found_by_its_id_and_by_the_older_one(visible):
    found = open_device(0, visible, FakeNvml([split_gpu(), FakeGpu(SECOND)]))
    assert uuid_of(found) == "MIG-22222222-2222"
    assert len(found.doubts) == 1
    assert "are of the whole GPU" in found.doubts[0]


@pytest.mark.parametrize("visible", [f"MIG-{FIRST}/8/1", f"MIG-{FIRST}/8", "MIG-3333", "MIG-"])
def test_a_mig_id_that_names_no_single_instance_is_absent(visible):
    assert "devices of this machine" in reason_of(open_device(0, visible, FakeNvml([split_gpu()])))


def test_a_split_gpu_stands_for_its_only_instance_and_never_for_one_of_several():
    assert uuid_of(open_device(0, "0", FakeNvml([split_gpu(num_instances=1)]))) == "MIG-11111111-1111"
    assert uuid_of(open_device(0, None, FakeNvml([split_gpu()]), uuid="22222222-2222")) == "MIG-22222222-2222"
    for visible, uuid in [("0", None), (None, None), (FIRST, None), (None, FIRST)]:
        reason = reason_of(open_device(0, visible, FakeNvml([split_gpu()]), uuid=uuid))
        assert "MIG mode with 2 instances; name one by its MIG id" in reason


def test_a_number_means_nothing_where_one_of_several_gpus_is_split():
    gpus = [FakeGpu(SECOND), split_gpu()]
    assert "some in MIG mode" in reason_of(open_device(0, "0", FakeNvml(gpus), device_order="PCI_BUS_ID"))


def test_an_instance_is_found_by_its_id_where_cuda_tells_the_uuid_of_the_whole_gpu():
    nvml = FakeNvml([split_gpu()])
    found = open_device(0, "MIG-22222222-2222", nvml, uuid=FIRST)
    assert uuid_of(found) == "MIG-22222222-2222"
    assert any("found by counting" in doubt for doubt in found.doubts)
