"""`modbench report --scoreboard` as a black box: what is typed, what is printed, and what is refused."""

import json
import os
import subprocess
import sys

import pytest

from tests.modbench.scoreboard_factory import CLAIMS, write_claims, write_run
from tests.modbench.test_command_line import PROJECT, modbench

SEARCH = (
    CLAIMS[: CLAIMS.index("matrix:")].replace("context: 1024,", "context: {search: max, from: 64},")
    + 'expect: ["threshold.context_limit_ratio >= 1.2"]\n'
)
HEAVY = ("torch", "transformers", "pandas", "matplotlib", "jinja2")


def parsed(*arguments, folder):
    done = modbench("report", "--scoreboard", *arguments, "--format", "json", folder=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_without_a_run_the_papers_claims_are_predictions_of_a_named_card():
    done = modbench("report", "--scoreboard", folder=PROJECT)
    assert done.returncode == 0, done.stderr
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    words = " ".join(done.stdout.split())
    assert words.count("Ideal: predicted from data-sheet peaks of NVIDIA H200 SXM") == 5
    assert words.count("Measured: nothing.") == 5
    assert " measured " not in "".join(line for line in done.stdout.splitlines() if line.startswith("context "))
    places = [words.index(f"paper-{scale}: ") for scale in ("3b", "7b", "13b", "34b", "70b")]
    assert places == sorted(places)


def test_a_run_of_the_scenario_is_measured_on_its_own_ceilings(tmp_path):
    write_run(tmp_path / "run", write_claims(tmp_path / "claims"), ["measure.launches=8"])
    (board,) = parsed("run", "--scenarios", "claims", folder=tmp_path)["boards"]
    assert (board["run"], board["overrides"]) == ("run", ["measure.launches=8"])
    assert board["ideal_from"]["ceilings_source"] == "measured ceilings"
    assert {score["source"] for score in board["scores"]} == {"measured"}
    assert any("calibrated random router" in doubt for doubt in board["doubts"])


def test_runs_of_two_machines_have_a_board_each(tmp_path):
    scenario = write_claims(tmp_path / "claims")
    for name in ("a", "b"):
        write_run(tmp_path / name, scenario)
    assert [board["run"] for board in parsed("a", "b", "--scenarios", "claims", folder=tmp_path)["boards"]] == [
        "a",
        "b",
    ]


def test_a_run_of_another_model_by_that_name_is_left_out_in_words(tmp_path):
    write_run(tmp_path / "run", write_claims(tmp_path / "claims"), ["model.preset=tiny"])
    facts = parsed("run", "--scenarios", "claims", folder=tmp_path)
    (board,) = facts["boards"]
    assert {(score["source"], score["measured"]) for score in board["scores"]} == {("predicted", None)}
    (note,) = facts["left_out"]
    assert note.startswith("run: none of its points is the work of a scenario here")
    assert "it had --set model.preset=tiny" in note


def test_a_named_device_is_what_ideals_are_for_also_beside_a_run(tmp_path):
    write_run(tmp_path / "run", write_claims(tmp_path / "claims"))
    (board,) = parsed("run", "--scenarios", "claims", "--device", "l4", folder=tmp_path)["boards"]
    assert (board["ideal_from"]["device"], board["ideal_from"]["ceilings_source"]) == ("NVIDIA L4", "data-sheet peaks")
    assert {score["source"] for score in board["scores"]} == {"measured"}


def test_a_run_whose_time_was_up_says_so_beside_its_scores(tmp_path):
    folder = write_run(tmp_path / "run", write_claims(tmp_path / "claims"))
    facts = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**facts, "budget_doubt": "the budget ended it"}))
    (board,) = parsed("run", "--scenarios", "claims", folder=tmp_path)["boards"]
    assert "the budget ended it" in board["doubts"]


def test_a_scenario_that_searches_a_size_is_left_out_and_told(tmp_path):
    write_claims(tmp_path / "claims")
    write_claims(tmp_path / "claims", SEARCH, "searching.yaml")
    done = modbench("report", "--scoreboard", "--scenarios", "claims", "--format", "json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["boards"]) == 1
    assert [note for note in found["left_out"] if "claims/searching.yaml: left out: it searches a size" in note]


def test_markdown_goes_to_standard_output_alone(tmp_path):
    write_claims(tmp_path / "claims")
    done = modbench("report", "--scoreboard", "--scenarios", "claims", "--format", "markdown", folder=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("# Scoreboard")
    assert "| *context 1,024* |" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"claims"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scoreboard"], "--scenarios: got scenarios/paper, where no *.yaml is; expected a folder of scenarios"),
        (["--scoreboard", "--scenarios", "searching"], "got searching, where every scenario searches a size"),
        (["--scoreboard", "--scenarios", "claims", "nowhere"], "nowhere: no run there"),
        (["--scoreboard", "--scenarios", "claims", "--device", "h2000"], "--device: got 'h2000'; expected one of"),
        (["--scoreboard", "--scenarios", "claims", "--format", "pytest-benchmark"], "expected console, markdown or"),
        (["--scoreboard", "--history"], "--history: got it with --scoreboard"),
        (["--scoreboard", "--metric", "ttft_s"], "--metric: got it with --scoreboard"),
        (["--scoreboard", "-o", "x.md"], "--output: got it with --scoreboard"),
        (["--device", "h200", "run"], "--device: got it without --scoreboard"),
        ([], "report: got no RUN"),
        (["--history"], "report: got no RUN"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(tmp_path, arguments, message):
    write_claims(tmp_path / "claims")
    write_claims(tmp_path / "searching", SEARCH, "s.yaml")
    done = modbench("report", *arguments, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_nothing_heavy_is_imported():
    probe = "import sys, modbench.cli as c; sys.argv = ['modbench', 'report', '--scoreboard']\n"
    probe += "try: c.main()\nexcept SystemExit: pass\n"
    probe += f"print([name for name in {HEAVY} if name in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=PROJECT, env=environment, capture_output=True, text=True, check=True
    )
    assert "paper-70b" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
