"""Limits are taken from what the machine and its control groups have left, and hold in the process that sets them."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from modbench import memory_limit
from modbench.memory_limit import automatic_limit, available_bytes, job_limits, oom_kill_count
from modbench.units import GIB, MIB

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts allocations on Linux only")


def in_a_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@on_linux
def test_a_process_gets_what_its_limit_says_and_no_more():
    code = (
        "from modbench.memory_limit import limit_this_process; limit_this_process(64 << 20)\n"
        "held = bytearray(48 << 20)\n"
        "try: bytearray(32 << 20)\n"
        "except MemoryError: print('no more')"
    )
    assert in_a_process(code) == "no more"


@on_linux
def test_reserved_address_space_does_not_count():
    code = (
        "import ctypes, mmap; from modbench.memory_limit import limit_this_process; limit_this_process(64 << 20)\n"
        "libc = ctypes.CDLL(None); libc.mmap.restype = ctypes.c_ssize_t\n"
        "libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]\n"
        "PROT_NONE, NORESERVE = 0, 0x4000\n"
        "print(libc.mmap(None, 1 << 40, PROT_NONE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE, -1, 0) != -1)"
    )
    assert in_a_process(code) == "True"


@on_linux
def test_a_limit_never_raises_the_one_in_force():
    code = (
        "import resource; from modbench.memory_limit import limit_this_process\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (256 << 20, resource.RLIM_INFINITY)); limit_this_process(1 << 40)\n"
        "print(resource.getrlimit(resource.RLIMIT_DATA)[0] >> 20)"
    )
    assert in_a_process(code) == "256"


def test_without_a_limit_nothing_is_set(monkeypatch):
    monkeypatch.setattr(memory_limit.resource, "setrlimit", lambda *_: pytest.fail("a limit was set"))
    memory_limit.limit_this_process(None)
    monkeypatch.setattr(memory_limit.sys, "platform", "darwin")
    memory_limit.limit_this_process(GIB)
    assert automatic_limit() is None


@on_linux
def test_the_kernel_kills_a_volunteer_first():
    code = (
        "from pathlib import Path; from modbench.memory_limit import be_killed_first; be_killed_first()\n"
        "print(Path('/proc/self/oom_score_adj').read_text())"
    )
    assert in_a_process(code) == "1000"


@on_linux
@pytest.mark.parametrize("free_gib", [1, 4, 100])
def test_auto_leaves_a_reserve(monkeypatch, free_gib):
    monkeypatch.setattr(memory_limit, "available_bytes", lambda: free_gib * GIB)
    expected_gib = {1: 0.5, 4: 3, 100: 95}[free_gib]
    assert automatic_limit() == pytest.approx(expected_gib * GIB)


def test_a_limit_is_the_hosts_on_a_cpu_and_the_devices_on_cuda():
    def limits(wanted, automatic, kind):
        return tuple(job_limits(wanted, automatic, kind).values())

    assert limits("auto", 7, "cpu") == (7, None)
    assert limits(5, 7, "cpu") == (5, None)
    assert limits("auto", 7, "cuda") == (7, None)
    assert limits(5, 7, "cuda") == (7, 5)
    assert limits(5, None, "cpu") == (None, None), "a system that takes no limit"


class Machine:
    """Fake /proc and /sys/fs/cgroup."""

    def __init__(self, tmp_path: Path, cgroup_line: str) -> None:
        self.proc, self.cgroups = tmp_path / "proc", tmp_path / "cgroup"
        self.write(self.proc / "self" / "cgroup", cgroup_line + "\n")
        self.cgroups.mkdir()

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def group(self, place: str, **files: str) -> None:
        for name, text in files.items():
            self.write(self.cgroups / place / name.replace("__", "."), text)

    def available(self) -> int:
        return available_bytes(self.cgroups, self.proc)

    def kills(self) -> int | None:
        return oom_kill_count(self.cgroups, self.proc)


@pytest.fixture
def roomy(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 64 * GIB}))


@pytest.mark.usefixtures("roomy")
def test_the_tightest_group_above_this_process_counts(tmp_path):
    machine = Machine(tmp_path, "0::/job/step")
    assert machine.available() == 64 * GIB
    machine.group("job/step", memory__max="max\n", memory__current=f"{GIB}\n", memory__events="oom 1\noom_kill 3\n")
    assert machine.available() == 64 * GIB
    machine.group("job", memory__max=f"{8 * GIB}\n", memory__current=f"{5 * GIB}\n")
    machine.group("job", memory__stat=f"anon 7\ninactive_file {MIB}\n", memory__events="oom_kill 9\n")
    assert machine.available() == 3 * GIB + MIB, "file pages can be dropped"
    assert machine.kills() == 3, "of the innermost group"


@pytest.mark.usefixtures("roomy")
def test_groups_of_the_first_version_are_read_too(tmp_path):
    machine = Machine(tmp_path, "4:memory:/outside/of/the/container\n0::/")
    machine.group("memory", memory__limit_in_bytes=f"{2**63 - 4096}\n", memory__usage_in_bytes="5\n")
    assert machine.available() == 64 * GIB, "that number means no limit"
    machine.group("memory", memory__limit_in_bytes=f"{2 * GIB}\n", memory__usage_in_bytes=f"{3 * GIB}\n")
    machine.group("memory", memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert machine.available() == 0
    assert machine.kills() == 2


@pytest.mark.usefixtures("roomy")
def test_a_machine_without_groups_has_what_it_has_and_counts_nothing(tmp_path):
    assert available_bytes(tmp_path / "absent", tmp_path / "absent") == 64 * GIB
    assert oom_kill_count(tmp_path / "absent", tmp_path / "absent") is None


@on_linux
def test_large_blocks_go_back_when_they_are_freed():
    code = (
        "import ctypes, psutil\n"
        "from modbench.memory_limit import return_large_blocks\n"
        "{setting}\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.malloc.restype, libc.free.argtypes, size = ctypes.c_void_p, [ctypes.c_void_p], 16 << 20\n"
        "libc.free(libc.malloc(size))\n"  # without the setting, glibc keeps blocks of this size in its heap from now on
        "before = psutil.Process().memory_info().rss\n"
        "blocks = [libc.malloc(size) for _ in range(4)]\n"
        "for block in blocks: ctypes.memset(block, 1, size)\n"
        "libc.malloc(1 << 19)\n"  # on top of the heap, which then cannot shrink
        "for block in blocks: libc.free(block)\n"
        "print(psutil.Process().memory_info().rss - before)"
    )
    assert int(in_a_process(code.format(setting="assert return_large_blocks()"))) < 8 * MIB
    assert int(in_a_process(code.format(setting=""))) > 48 * MIB
