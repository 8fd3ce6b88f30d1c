"""The pytest plugin as a black box: a pytest of its own over scenario files, with an executor that answers at once."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from importlib.util import find_spec
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
LOADED = "from importlib.metadata import entry_points; print(len(entry_points(group='pytest11', name='modbench')))"
IS_INSTALLED = (
    subprocess.check_output([sys.executable, "-c", LOADED], cwd="/") != b"0\n"
)  # not what lies in this checkout
SCENARIO = """\
name: scripted
model: {preset: tiny}
methods: {dense: {}, threshold: {keep_ratio: 0.25}}
workload: {context: 8, new_tokens: 5, prompt: {synthetic: true}}
measure: {launches: 2, device: cpu}
matrix: {workload.context: [8, 16, 4096]}
expect: ["threshold.prefill_speedup >= 1.5", "threshold.prefill_speedup >= 3 @ workload.context == 4096"]
"""
REAL = """\
name: micro
model:
  geometry: {num_hidden_layers: 2, hidden_size: 16, intermediate_size: 32, num_attention_heads: 2, vocab_size: 300}
methods: {dense: {}, threshold: {keep_ratio: 0.25}}
workload: {context: 64, new_tokens: 17, prompt: {synthetic: true}}
measure: {launches: 2, samples: 1, warmup: 0, device: cpu}
expect: ["threshold.kv_cache_reduction >= 1.5"]
"""
SCRIPTED = """\
import contextlib
import modbench.report.write
import modbench.runner
from modbench.job import GuardReport, JobResult
from tests.modbench.test_runner import ScriptedExecutor

class Executor(ScriptedExecutor):
    def run(self, job, timeout_s):
        if job.kind == "guard" and job.spec.method in {wrong}:
            return JobResult(guard=GuardReport(identities={{"causal": "failed"}}))
        if job.kind == "launch" and len(self.launches()) == {interrupted_after}:
            raise KeyboardInterrupt
        return super().run(job, timeout_s)

@contextlib.contextmanager
def scripted(*arguments):
    yield Executor(statuses={statuses})

modbench.runner.LocalExecutor = scripted
modbench.report.write.draw_plots = lambda summary: []  # a second per run, and nothing that is looked at here
"""


@pytest.fixture(autouse=True)
def no_worker(monkeypatch):
    """The pytest inside is nobody's worker; pytest-benchmark would take it for one where this suite runs on several."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)


def run_pytest(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """A pytest in a process of its own with the plugin, named only where the environment does not load it by itself."""
    plugin = () if IS_INSTALLED else ("-p", "modbench.pytest_plugin")
    return pytester.runpytest_subprocess(*plugin, *arguments)


def script(pytester: pytest.Pytester, wrong=(), interrupted_after=-1, statuses=None) -> None:
    text = SCRIPTED.format(wrong=set(wrong) or "()", interrupted_after=interrupted_after, statuses=statuses or {})
    pytester.makeconftest(text)


def measured_contexts(folder: Path) -> list[int]:
    lines = (folder / "records.jsonl").read_text().splitlines()
    return sorted({json.loads(line)["point"]["workload"]["context"] for line in lines})


@pytest.fixture(autouse=True)
def this_tree(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code under test is this checkout's, `s.yaml` is a scenario, and no guard outcome of another test is cached."""
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.setenv("XDG_CACHE_HOME", str(pytester.path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    (pytester.path / "s.yaml").write_text(SCENARIO)


def test_a_named_scenario_has_an_item_per_point_and_collecting_measures_nothing(pytester):
    script(pytester)
    result = run_pytest(pytester, "s.yaml", "--collect-only", "-q")
    assert [line for line in result.outlines if "::" in line] == [
        "s.yaml::context 8",
        "s.yaml::context 16",
        "s.yaml::context 4,096",
    ]
    assert not (pytester.path / "reports").exists()


def test_points_fail_by_their_own_expectation_without_a_traceback(pytester):
    script(pytester)
    result = run_pytest(pytester, "s.yaml", "--modbench-output", "out", "--junitxml", "j.xml")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "expectation not met: threshold.prefill_speedup >= 3 @ workload.context == 4096: measured 2 (*",
            "report: out/scripted/report.html",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*pytest_scenario.py*")
    assert (pytester.path / "out/scripted/report.html").exists()
    cases = ElementTree.parse(pytester.path / "j.xml").iter("testcase")
    properties = [{found.get("name"): found.get("value") for found in case.iter("property")} for case in cases]
    assert [float(found["threshold.prefill_speedup"]) for found in properties] == [2, 2, 2]


@pytest.mark.parametrize(
    "arguments", [("s.yaml::context 16",), ("s.yaml", "-k", "context_16"), (".", "--modbench", "-k", "16")]
)
def test_only_selected_points_are_measured_and_judged(pytester, arguments):
    script(pytester)
    result = run_pytest(pytester, *arguments, "--modbench-output", "out")
    result.assert_outcomes(passed=1, deselected=0 if "::" in arguments[0] else 2)
    assert measured_contexts(pytester.path / "out/scripted") == [16]
    assert "4096" not in (pytester.path / "out/scripted/report.md").read_text()


def test_wrong_methods_and_failed_launches_fail_their_points(pytester):
    script(pytester, wrong=["threshold"], statuses={("dense", 4096): "oom"})
    result = run_pytest(pytester, "s.yaml")
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(
        [
            "threshold is wrong: identity causal failed",
            "dense: 1 launch ended as oom in prefill: scripted",
            "dense: 1 launch ended as pruned in start: an earlier launch of this point ended as oom in prefill",
        ]
    )


def test_a_scenario_error_is_a_collection_error_of_one_line(pytester):
    (pytester.path / "s.yaml").write_text(SCENARIO.replace("context: 8,", "context: 0,").replace("matrix", "#"))
    result = run_pytest(pytester, "s.yaml")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*ERROR collecting s.yaml*", "s.yaml:4: workload.context: got 0; expected *"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_overrides_and_the_device_hold_for_every_scenario(pytester):
    script(pytester)
    result = run_pytest(
        pytester, "s.yaml", "--modbench-set", "workload.context=32", "--modbench-device=cpu", "--modbench-output=out"
    )
    result.assert_outcomes(passed=1)
    run = json.loads((pytester.path / "out/scripted/run.json").read_text())
    assert run["overrides"] == ["workload.context=32", "measure.device=cpu"]
    assert run["command"].startswith("pytest ")
    again = run_pytest(pytester, "s.yaml", "--modbench-output=out")
    again.assert_outcomes(failed=3)
    again.stdout.fnmatch_lines(["--modbench-output: out/scripted holds a run already; name another folder"])


def test_code_of_the_scenario_runs_only_if_it_is_allowed(pytester):
    script(pytester)
    entry = 'threshold: {method: entry, entry: "tests.modbench.subjects:sound"}'.replace("threshold", "mine")
    text = SCENARIO.replace("threshold: {keep_ratio: 0.25}", entry).split("expect:")[0]
    (pytester.path / "s.yaml").write_text(text)
    refused = run_pytest(pytester, "s.yaml")
    refused.assert_outcomes(failed=3)
    refused.stdout.fnmatch_lines(
        ["s.yaml: methods.mine: entry imports and runs *; pass --modbench-allow-entry if you trust it"]
    )
    assert not (pytester.path / "reports").exists()
    run_pytest(pytester, "s.yaml", "--modbench-allow-entry").assert_outcomes(passed=3)


def test_an_interrupted_run_stays_on_disk(pytester):
    script(pytester, interrupted_after=3)
    result = run_pytest(pytester, "s.yaml", "--modbench-output=out")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert len((pytester.path / "out/scripted/records.jsonl").read_text().splitlines()) == 3
    result.stdout.fnmatch_lines(["out/scripted: not finished; 3 launches are on disk*"])


def test_other_peoples_yaml_is_left_alone_and_nothing_heavy_is_loaded(pytester):
    """The scenario in the folder is not collected either, since it is not named."""
    pytester.makeconftest("""
        import pytest
        class Item(pytest.Item):
            def runtest(self): pass
        class File(pytest.File):
            def collect(self): yield Item.from_parent(self, name="theirs")
        def pytest_collect_file(file_path, parent):
            return File.from_parent(parent, path=file_path) if file_path.name == "other.yaml" else None
    """)
    (pytester.path / "other.yaml").write_text("stages: []\nmodel: car\n")
    pytester.makepyfile("""
        import sys
        def test_modules():
            heavy = {"torch", "transformers", "typer", "rich", "pydantic", "pandas", "yaml", "modbench.pytest_scenario"}
            assert "modbench.pytest_plugin" in sys.modules and not heavy & set(sys.modules)
    """)
    run_pytest(pytester, "-W", "error").assert_outcomes(passed=2)
    run_pytest(pytester, "other.yaml").assert_outcomes(passed=1)
    beside_its_folder = run_pytest(pytester, ".", "s.yaml", "--collect-only", "-q")
    assert sum("s.yaml::" in line for line in beside_its_folder.outlines) == 3


def test_the_option_collects_scenarios_beside_other_files(pytester):
    (pytester.path / "other.yaml").write_text("stages: []\nmodel: car\n")
    pytester.makepyfile("def test_one(): pass")
    result = run_pytest(pytester, "--modbench", "--collect-only", "-q")
    assert sum("s.yaml::" in line for line in result.outlines) == 3
    result.stdout.no_fnmatch_line("*other.yaml*")


def test_collecting_scenarios_never_loads_torch(pytester):
    code = (
        "import sys, pytest; code = pytest.main(['-p', 'modbench.pytest_plugin', 's.yaml', '--collect-only', '-q']);"
        "assert not {'torch', 'transformers', 'pandas', 'matplotlib'} & set(sys.modules), 'heavy'; sys.exit(code)"
    ).replace("'-p', 'modbench.pytest_plugin', ", "" if IS_INSTALLED else "'-p', 'modbench.pytest_plugin', ")
    done = subprocess.run([sys.executable, "-c", code], cwd=pytester.path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(find_spec("xdist") is None, reason="needs pytest-xdist")
@pytest.mark.parametrize("arguments", [("s.yaml",), ("s.yaml::context 8",), ("--modbench",)])
def test_parallel_workers_are_refused(pytester, arguments):
    result = run_pytest(pytester, *arguments, "-n", "2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: modbench: got pytest-xdist's -n; *"])


@pytest.mark.skipif(find_spec("xdist") is None, reason="needs pytest-xdist")
def test_the_fixture_refuses_a_parallel_worker_and_other_tests_go_on(pytester):
    pytester.makepyfile("def test_one(modbench): pass\ndef test_two(): pass")
    result = run_pytest(pytester, "-n", "1")
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines(["modbench: runs in a worker of pytest-xdist; *"])


def test_a_baseline_never_passes_unseen(pytester):
    script(pytester)
    result = run_pytest(pytester, "s.yaml", "--modbench-baseline", "earlier")
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(["--modbench-baseline: earlier: no records there; *"])
    assert not (pytester.path / "reports").exists(), "measured before the baseline was read"


def test_a_baseline_that_shows_nothing_is_noted(pytester):
    script(pytester)
    run_pytest(pytester, "s.yaml", "--modbench-output", "earlier")
    result = run_pytest(pytester, "s.yaml", "--modbench-baseline", "earlier/scripted")
    result.stdout.fnmatch_lines(["against earlier/scripted: * comparisons are inconclusive and fail nothing (*)"])


def test_results_stand_in_the_benchmark_file_where_no_other_benchmark_ran(pytester):
    """And count as benchmarks for --benchmark-only."""
    script(pytester)
    arguments = ("--benchmark-json=x.json", "--benchmark-only", "-W", "error", "--strict-markers")
    result = run_pytest(pytester, "s.yaml::context 8", *arguments)
    result.assert_outcomes(passed=1)
    content = json.loads((pytester.path / "x.json").read_text())
    assert [found["fullname"] for found in content["benchmarks"]] == [
        f"scripted::{method} {metric}[context 8]" for method in ("dense", "threshold") for metric in ("ttft", "tpot")
    ]
    assert content["benchmarks"][0]["stats"]["data"] == [1.0, 1.0]
    result.stdout.fnmatch_lines(["*benchmark 'scripted ttft*context 8*': 2 tests*"])


def test_results_stand_beside_those_of_ordinary_benchmarks(pytester):
    script(pytester)
    pytester.makepyfile(test_sum="def test_sum(benchmark): benchmark.pedantic(sum, args=([1, 2],), rounds=2)")
    arguments = ("--benchmark-json=x.json", "--benchmark-save=one", "-q")
    run_pytest(pytester, "s.yaml::context 8", "test_sum.py", *arguments).assert_outcomes(passed=2)
    names = [found["name"] for found in json.loads((pytester.path / "x.json").read_text())["benchmarks"]]
    assert sorted(names) == [
        "dense tpot[context 8]",
        "dense ttft[context 8]",
        "test_sum",
        "threshold tpot[context 8]",
        "threshold ttft[context 8]",
    ]
    compared = run_pytest(pytester, "s.yaml::context 8", "--benchmark-compare=0001", "--benchmark-compare-fail=mean:5%")
    compared.assert_outcomes(passed=1)
    compared.stdout.fnmatch_lines(["threshold ttft*(0001_one)*"])


def test_the_fixture_gives_numbers_by_name_and_measures_once(pytester):
    script(pytester, wrong=["threshold"])
    (pytester.path / "t.yaml").write_text(SCENARIO.replace("threshold:", "masked:").replace("threshold.", "masked."))
    pytester.makepyfile("""
        import modbench as package
        import pytest
        from modbench.errors import NoNumberError, ScenarioError

        def test_numbers(modbench):
            run = modbench.run("t.yaml", set=["workload.context=[8,16]"])
            assert run.cell(context=16)["masked"].prefill_speedup == 2
            assert run.cell(context=16)["dense"].ttft_s == 1
            assert run.cell(context=16)["dense"].energy_j is None
            assert modbench.run("t.yaml", set=["workload.context=[8,16]"]).folder == run.folder
            assert (run.folder / "report.html").exists()
            run.assert_expectations()

        def test_wrong_numbers(modbench):
            run = modbench.run("s.yaml", set=["workload.context=8"])
            with pytest.raises(NoNumberError, match="threshold.prefill_speedup: the method is wrong: identity causal failed"):
                run.cell()["threshold"].prefill_speedup
            with pytest.raises(NoNumberError, match="which 0 cells have; expected one of: context 8"):
                run.cell(context=5)
            with pytest.raises(NoNumberError, match="got 'topk'; expected one of: dense, threshold"):
                run.cell()["topk"]
            with pytest.raises(AttributeError, match="no metric"):
                run.cell()["dense"].speed

        def test_expectations(modbench):
            modbench.run("s.yaml", set=["workload.context=8"]).assert_expectations()

        def test_a_bad_override(modbench):
            with pytest.raises(ScenarioError, match="--set workload.batch=0"):
                modbench.run("s.yaml", set=["workload.batch=0"])
    """)
    result = run_pytest(pytester, "--modbench-output=out")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        [
            "context 8 · batch 1: threshold is wrong: identity causal failed",
            "report: out/scripted/report.html",
            "report: out/scripted-2/report.html",
        ]
    )
    result.stdout.no_fnmatch_line("*scripted-3*")


def test_a_real_scenario_is_measured_under_capture_and_a_short_timeout(pytester, monkeypatch, own_machine_cache):
    monkeypatch.setenv("XDG_CACHE_HOME", str(own_machine_cache))
    (pytester.path / "s.yaml").write_text(REAL)
    result = run_pytest(pytester, "s.yaml", "--modbench-output=out", "--timeout=1", "--strict-markers", "-W", "error")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["report: out/micro/report.html"])
    assert len((pytester.path / "out/micro/records.jsonl").read_text().splitlines()) == 4


def test_launches_are_told_where_output_is_not_captured(pytester):
    script(pytester)
    run_pytest(pytester, "s.yaml::context 8").stdout.no_fnmatch_line("*dense: ok in*")
    run_pytest(pytester, "s.yaml::context 8", "-s").stdout.fnmatch_lines(["*dense: ok in*"])
