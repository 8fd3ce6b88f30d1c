"""An entry under another interpreter: one that has torch and none of modbench, pydantic or transformers."""

import ast
import importlib.util
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from modbench import entry_host, worker
from modbench.job import Job
from modbench.profiling import contamination, process_memory, timing, torch_memory
from tests.modbench.jobs import make_job

TORCH_AND_WHAT_IT_NEEDS = (
    "torch",
    "torchgen",
    "functorch",
    "typing_extensions",
    "sympy",
    "mpmath",
    "networkx",
    "jinja2",
    "markupsafe",
    "filelock",
    "fsspec",
    "numpy",
)
OLD_ENGINE = """
import importlib.util
import sys
import torch

assert not [name for name in ("modbench", "pydantic", "transformers", "psutil") if importlib.util.find_spec(name)]
assert "tokens" not in sys.modules and importlib.util.find_spec("launch_server") is None, "modbench's own folder is not on the path"


class Sum:
    attention_path = "none at all"

    def prefill(self, input_ids):
        state = [input_ids.sum(dim=1, keepdim=True)]
        return torch.nn.functional.one_hot(state[0] % 300, 300).float(), state

    def decode(self, token_ids, state):
        state[0] = state[0] + token_ids
        return torch.nn.functional.one_hot(state[0] % 300, 300).float()

    def kv_cache_bytes(self, state):
        return state[0].numel() * 8, 512

    def weights_bytes(self):
        return 24

    def keep_ratio(self):
        return {"prefill": [1, 0.5, 1, 0.5], "decode": [1, 0.25, 1, 0.25]}


def make(point, options, device):
    print("a word from the factory", options["word"], device, point["dtype"], torch.get_num_threads())
    return Sum()


def half(point, options, device):
    return object()


def raises(point, options, device):
    raise RuntimeError("a mistake\\nover two lines")


def hoards(point, options, device):
    torch.empty(2**60, dtype=torch.uint8)
"""


@pytest.fixture(scope="module")
def interpreters(tmp_path_factory) -> dict[str, str]:
    """Two virtual environments: `torch` sees torch and what that needs, `bare` the standard library alone."""
    folder = tmp_path_factory.mktemp("interpreters")
    seen = folder / "seen"
    seen.mkdir()
    for name in TORCH_AND_WHAT_IT_NEEDS:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            origin = Path(spec.origin)
            source = origin.parent if spec.submodule_search_locations else origin
            (seen / source.name).symlink_to(source)
    for name in ("torch", "bare"):
        venv.create(folder / name, symlinks=True)
    (packages,) = (folder / "torch").glob("lib/python*/site-packages")
    (packages / "seen.pth").write_text(f"{seen}\n")
    return {name: str(folder / name / "bin" / "python") for name in ("torch", "bare")}


@pytest.fixture
def engine_folder(tmp_path, monkeypatch) -> Path:
    """Where modbench is started, with the module of the entry in it."""
    (tmp_path / "old_engine.py").write_text(OLD_ENGINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return tmp_path


def host_job(folder: Path, python: str, factory: str = "make", job_kind: str = "launch") -> Job:
    settings = {"entry": f"old_engine:{factory}", "options": {"word": "aloud"}, "python": python}
    return make_job(folder, "entry", job_kind, settings=settings)


def test_an_entry_is_timed_where_nothing_of_modbench_can_be_imported(engine_folder, interpreters, capfd):
    record = worker.do_job(host_job(engine_folder, interpreters["torch"])).record
    assert (record.status, record.error) == ("ok", None)
    assert len(record.samples.ttft_s) == len(record.samples.prefill_cpu_s) == 2
    assert len(record.samples.itl_s) == 2 * 16
    assert record.samples.prefill_device_s == []
    metrics = record.metrics
    assert (metrics["kv_cache_bytes"], metrics["kv_cache_allocated_bytes"], metrics["weights_bytes"]) == (16, 512, 24)
    assert metrics["num_warmups"] == 1
    assert metrics["peak_rss_bytes"] > 0
    assert record.keep_ratio.decode == [1, 0.25, 1, 0.25]
    assert record.environment["attention_path"] == "none at all"
    assert record.environment["program"]["command"][0] == interpreters["torch"]
    assert record.environment["program"]["facts"].keys() == {"python", "torch"}
    assert "a word from the factory aloud cpu float32 1" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("factory", "status", "text"),
    [
        ("half", "unsupported", "old_engine:half returned a object without prefill, decode, kv_cache_bytes"),
        ("absent", "unsupported", "has no attribute 'absent'"),
        ("raises", "failed", "exit code 1: RuntimeError: a mistake over two lines"),
        ("hoards", "oom", "exit code 1: RuntimeError: "),
    ],
)
def test_failures_of_an_entry_elsewhere_are_those_of_an_entry_here(engine_folder, interpreters, factory, status, text):
    record = worker.do_job(host_job(engine_folder, interpreters["torch"], factory)).record
    assert record.status == status, record.error
    assert text in record.error


def test_an_interpreter_without_torch_is_unsupported(engine_folder, interpreters):
    record = worker.do_job(host_job(engine_folder, interpreters["bare"])).record
    assert record.status == "unsupported"
    assert record.error == f"{interpreters['bare']} has no torch (No module named 'torch'); install it there"


def test_an_interpreter_that_is_not_there_is_unsupported(engine_folder):
    record = worker.do_job(host_job(engine_folder, "./no/python")).record
    assert record.status == "unsupported"
    assert "methods.entry.python: ./no/python: not there, or not executable" in record.error


def test_another_interpreter_is_not_started_for_the_guard(engine_folder):
    guard = worker.do_job(host_job(engine_folder, "./no/python", job_kind="guard")).guard
    assert set(guard.identities.values()) == {"declared"}


@pytest.mark.parametrize(
    "module", [entry_host, timing, torch_memory, process_memory, contamination], ids=lambda module: module.__name__
)
def test_what_runs_under_another_interpreter_imports_torch_and_the_standard_library(module):
    tree = ast.parse(Path(module.__file__).read_text())
    imported = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= {*sys.stdlib_module_names, "torch"}


def test_an_interpreter_that_is_too_old_is_told_so():
    too_new = "import sys; sys.argv = ['']; import runpy; host = runpy.run_path({0!r}); "
    too_new += "host['main'].__globals__['OLDEST_PYTHON'] = (99,); host['main']()"
    script = too_new.format(entry_host.__file__)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True, input=""
    )
    assert "expected 3.10 or newer" in done.stdout
    assert '"status": "unsupported"' in done.stdout
