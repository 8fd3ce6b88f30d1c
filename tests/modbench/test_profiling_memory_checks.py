"""The host's memory, read from made-up kernel files."""

import pytest

from modbench.profiling import memory_checks
from tests.modbench.kernel_tree import make_tree


def meminfo(available_kib: int, swap_free_kib: int = 100) -> dict[str, str]:
    lines = ["MemTotal: 8388608 kB", f"MemAvailable: {available_kib} kB", "HugePages_Total: 0"]
    return {"proc/meminfo": "\n".join([*lines, "SwapTotal: 100 kB", f"SwapFree: {swap_free_kib} kB"])}


def test_little_available_memory_is_a_warning(tmp_path):
    check = memory_checks.memory_check(make_tree(tmp_path, meminfo(6 * 1024**2)))
    assert (check.status, check.finding) == ("ok", "6.00 GiB of 8.00 GiB available (75 %)")
    assert memory_checks.memory_check(make_tree(tmp_path, meminfo(1024**2))).status == "warn"


def test_swapped_out_pages_are_a_warning(tmp_path):
    assert memory_checks.swap_check(make_tree(tmp_path, meminfo(1))).status == "ok"
    check = memory_checks.swap_check(make_tree(tmp_path, meminfo(1, swap_free_kib=40)))
    assert (check.status, check.finding[:18]) == ("warn", "60.0 KiB in use: p")


def test_without_meminfo_nothing_is_claimed(tmp_path):
    assert memory_checks.memory_check(tmp_path).status == "info"
    assert memory_checks.swap_check(tmp_path).status == "info"


V2 = {"proc/self/cgroup": "0::/job", "sys/fs/cgroup/job/memory.max": "max"}
V1 = {"proc/self/cgroup": "4:memory:/job"}
V1_LIMIT = "sys/fs/cgroup/memory/job/memory.limit_in_bytes"


@pytest.mark.parametrize(
    ("files", "status"),
    [
        ({}, "ok"),
        (V2, "ok"),
        ({**V2, "sys/fs/cgroup/job/memory.max": str(1024**3)}, "info"),
        ({**V2, "sys/fs/cgroup/memory.max": str(1024**3)}, "info"),
        ({**V1, V1_LIMIT: "9223372036854771712"}, "ok"),
        ({**V1, V1_LIMIT: str(1024**3)}, "info"),
        ({"proc/self/cgroup": "4:cpu:/job", V1_LIMIT: str(1024**3)}, "ok"),
    ],
)
def test_the_limit_of_a_control_group_is_told_with_its_fix(tmp_path, files, status):
    check = memory_checks.memory_limit_check(make_tree(tmp_path, {**meminfo(1), **files}))
    assert check.status == status
    assert ("1.00 GiB" in check.finding, "docker run --memory" in check.fix) == (status == "info", status == "info")


def test_no_limit_of_version_1_is_none_without_meminfo(tmp_path):
    files = {**V1, V1_LIMIT: "9223372036854771712"}
    assert memory_checks.memory_limit_check(make_tree(tmp_path, files)).status == "ok"
