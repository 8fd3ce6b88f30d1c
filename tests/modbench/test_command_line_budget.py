"""`modbench run --budget` as a black box: a line before the start, a doubt in the report, and how to go on."""

import pytest

from tests.modbench.test_command_line import modbench, records_of, write_scenario

SCENARIO = """\
name: small
model:
  geometry: {num_hidden_layers: 2, hidden_size: 16, intermediate_size: 32, num_attention_heads: 2, vocab_size: 300}
methods: {dense: {}, skip_layers: {}}
workload: {context: 16, new_tokens: 4, prompt: {synthetic: true}}
measure: {launches: 4, samples: 1, warmup: 0, device: cpu}
"""


def test_a_budget_ends_the_run_and_says_how_to_go_on(tmp_path):
    folder = write_scenario(tmp_path, SCENARIO)
    done = modbench("run", "s.yaml", "--output", "out", "--budget", "1s", folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "budget 1 s: " in done.stdout
    assert len(records_of(folder / "out")) == 4, "one quad, whatever the budget"
    doubt = "the time budget 1 s ended the run with 2 of 4 pairs at 1 of 1 points"
    assert doubt in (folder / "out" / "report.md").read_text()
    assert "the budget is used up" in done.stderr
    again = done.stderr.strip().rpartition("with: ")[2].split()
    assert again == ["modbench", "run", "s.yaml", "--output", "out", "--budget", "1s", "--resume"]
    assert doubt in modbench("report", "out", folder=folder).stdout.replace("\n  ", " ")
    done = modbench("run", "s.yaml", "--output", "out", "--resume", folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(records_of(folder / "out")) == 8
    assert doubt not in (folder / "out" / "report.md").read_text()
    started = {record["environment"]["started"] for record in records_of(folder / "out")}
    assert [text.endswith("+00:00") for text in started] == [True], "one run, begun once"
    assert "expected: 4 pairs at 1 point x 2 methods, about" in done.stdout


@pytest.mark.parametrize(
    ("text", "budget", "message"),
    [
        (SCENARIO, "10", "--budget: got '10'; expected a time with its units h, m and s, such as 90s, 10m or 1h30m"),
        (SCENARIO.replace("context: 16", "context: {search: max}"), "10m", "--budget: got a scenario with a search"),
    ],
)
def test_budgets_that_cannot_be_are_one_line(tmp_path, text, budget, message):
    folder = write_scenario(tmp_path, text)
    done = modbench("run", "s.yaml", "--output", "out", "--budget", budget, folder=folder)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert not (folder / "out").exists()
