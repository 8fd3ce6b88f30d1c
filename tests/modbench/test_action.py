"""The GitHub action: its files against their schemas, and its shell steps run by bash with fakes of modbench and gh."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from modbench.cli import app
from modbench.scenario import load_scenario

PROJECT = Path(__file__).resolve().parents[2]
ACTION = yaml.safe_load((PROJECT / "action.yml").read_text(encoding="utf-8"))
STEPS = {step.get("id", step["name"]): step for step in ACTION["runs"]["steps"]}
DOCS = (PROJECT / "docs" / "ci.md").read_text(encoding="utf-8")
WORKFLOWS = [text for text in re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL) if "\njobs:" in text]
# Options of `check` that its part for two revisions brings; drop what the command has.
HOSTILE = ('"; touch hacked; "', "$(touch hacked)", "`touch hacked`", "' ; touch hacked #", "a b * ~")
FAKE_PYTHON = """#!/bin/bash
printf '%s\\0' "$@" > "$SEEN/arguments"
[[ -z $VERDICT ]] || printf 'exit_code=%s\\nverdict=%s\\n' "$CODE" "$VERDICT" >> "$GITHUB_OUTPUT"
exit "$CODE"
"""
FAKE_GH = """#!/bin/bash
printf '%s\\0' "$@" >> "$SEEN/gh_calls"; echo >> "$SEEN/gh_calls"
[[ $* != *--jq* ]] || printf '%b' "$COMMENTS"
exit "$GH_CODE"
"""


@dataclass
class Runner:
    """Runs one step as GitHub does: values filled into `env`, the script given to bash."""

    folder: Path

    def run(self, step_id: str, values: dict[str, str], **environment: str) -> subprocess.CompletedProcess:
        step = STEPS[step_id]
        self.output.write_text("")
        script = self.folder / "step.sh"
        script.write_text(step["run"])
        inputs = {f"inputs.{name}": facts.get("default", "") for name, facts in ACTION["inputs"].items()}
        known = inputs | {"inputs.python": str(self.folder / "python")} | values
        filled = {
            key: re.sub(r"\$\{\{ (.+?) \}\}", lambda match: known.get(match[1], ""), value)
            for key, value in step["env"].items()
        }
        outside = {
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "SEEN": str(self.folder),
            "GITHUB_OUTPUT": str(self.output),
            "RUNNER_TEMP": str(self.folder),
            "GITHUB_REPOSITORY": "me/mine",
            "CODE": "0",
            "VERDICT": "same-or-faster",
            "COMMENTS": "",
            "GH_CODE": "0",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
        }
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
        return subprocess.run(
            command, cwd=self.work, env=outside | filled | environment, capture_output=True, text=True, check=False
        )

    @property
    def output(self) -> Path:
        return self.folder / "output"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def outputs(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.output.read_text().splitlines())

    @property
    def arguments(self) -> list[str]:
        return (self.folder / "arguments").read_text().split("\0")[:-1]

    @property
    def gh_calls(self) -> list[list[str]]:
        path = self.folder / "gh_calls"
        return [call.split("\0")[:-1] for call in path.read_text().split("\n")[:-1]] if path.exists() else []


@pytest.fixture
def runner(tmp_path):
    (tmp_path / "work").mkdir()
    made = Runner(tmp_path)
    for name, text in (("python", FAKE_PYTHON), ("gh", FAKE_GH)):
        path = tmp_path / name
        path.write_text(text)
        path.chmod(0o755)
    return made


def git(folder, *arguments):
    identity = [word for key in ("user.name", "user.email") for word in ("-c", f"{key}=x")]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def commit(folder, name):
    git(folder, "commit", "--quiet", "--allow-empty", "--message", name)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def history(runner):
    """A base branch that moved on, and a pull request merged into it as GitHub does: name -> commit."""
    work = runner.work
    git(work, "init", "--quiet", "--initial-branch=main")
    shas = {"first": commit(work, "first"), "fork": commit(work, "fork")}
    git(work, "checkout", "--quiet", "-b", "change")
    shas["change"] = commit(work, "change")
    git(work, "checkout", "--quiet", "main")
    shas["base"] = commit(work, "base")
    git(work, "checkout", "--quiet", "--detach")
    git(work, "merge", "--quiet", "--no-ff", "--message", "merge", "change")
    return shas | {"merge": git(work, "rev-parse", "HEAD")}


@pytest.mark.parametrize("name", ["action.yml", ".github/workflows/ci.yml"])
def test_the_file_is_valid_by_githubs_schema(name):
    assert_valid("github-actions" if name == "action.yml" else "github-workflows", PROJECT / name)


@pytest.mark.parametrize("text", WORKFLOWS)
def test_the_workflows_of_the_docs_are_valid_and_use_inputs_that_exist(tmp_path, text):
    for job in yaml.safe_load(text)["jobs"].values():
        for step in job["steps"]:
            if step.get("uses") == "./" or "modbench@" in step.get("uses", ""):
                assert set(step["with"]) <= set(ACTION["inputs"])
    (tmp_path / "workflow.yml").write_text(text)
    assert_valid("github-workflows", tmp_path / "workflow.yml")


def assert_valid(schema, path):
    pytest.importorskip("check_jsonschema", reason="check-jsonschema, of the extra dev, is not installed")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_docs_have_a_workflow_for_this_repository_and_one_for_others():
    assert len(WORKFLOWS) == 2


def test_the_scenario_of_the_docs_is_valid(tmp_path):
    (text,) = re.findall(r"```yaml\n(# bench/ci.yaml\n.*?)```", DOCS, re.DOTALL)
    (tmp_path / "ci.yaml").write_text(text)
    assert list(load_scenario(tmp_path / "ci.yaml").scenario.methods) == ["dense", "mine"]


def test_no_script_has_a_value_pasted_into_it():
    for step in STEPS.values():
        assert "${{" not in step["run"]


def test_outputs_are_those_of_the_steps():
    used = re.findall(r"steps\.(\w+)\.outputs\.([\w-]+)", str(ACTION))
    assert {name for step, name in used if step == "check"} == {"verdict", "exit-code", "report"}
    for step, name in used:
        assert f"{name}=" in STEPS[step]["run"]


def test_every_option_that_is_used_exists():
    known = {name for option in get_command(app).commands["check"].params for name in option.opts}
    used = set(re.findall(r"--[a-z-]+(?==)", STEPS["check"]["run"]))
    used |= {
        option
        for line in DOCS.splitlines()
        if "modbench check" in line
        for option in re.findall(r"--[a-z][a-z-]+", line.replace("--set ", ""))
    }
    for text in WORKFLOWS:
        used |= set(re.findall(r"^ +(?:extra-args: )?(--[a-z-]+)(?:=\w+)?$", text, re.MULTILINE))
    assert {"--allow-entry", "--budget", "--junit", "--metric"} <= used
    assert used <= known


def test_all_inputs_become_arguments_and_the_scenarios_stand_last(runner):
    values = {
        "inputs.scenario": "a.yaml\n  b c.yaml  \n\n",
        "inputs.metric": "tpot_s\nttft_s\n",
        "inputs.extra-args": "--allow-entry\n--budget=10m",
        "steps.revision.outputs.against": "main",
    }
    done = runner.run("check", values)
    assert done.returncode == 0, done.stderr
    report = runner.outputs["report"]
    assert runner.arguments == [
        *("-m", "modbench", "check", "--against=main", "--tolerance=3%", "--inconclusive=pass"),
        *(f"--junit={report}/junit.xml", f"--markdown={report}/comment.md", f"--output={report}/runs"),
        *("--metric=tpot_s", "--metric=ttft_s", "--allow-entry", "--budget=10m", "--", "a.yaml", "b c.yaml"),
    ]
    assert runner.outputs["verdict"] == "same-or-faster"


@pytest.mark.parametrize(("code", "verdict"), [(0, "inconclusive"), (1, "slower"), (5, "failed")])
def test_the_step_ends_as_the_check_does(runner, code, verdict):
    done = runner.run("check", {"inputs.scenario": "a.yaml"}, CODE=str(code), VERDICT=verdict)
    assert done.returncode == code
    assert (runner.outputs["exit-code"], runner.outputs["verdict"]) == (str(code), verdict)


def test_a_check_without_a_verdict_is_an_error(runner):
    assert runner.run("check", {"inputs.scenario": "a.yaml"}, CODE="2", VERDICT="").returncode == 2
    assert runner.outputs["verdict"] == "error"


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_inputs_are_arguments_and_never_run(runner, text):
    names = ("scenario", "tolerance", "inconclusive", "metric", "extra-args")
    values = {f"inputs.{name}": text for name in names} | {"steps.revision.outputs.against": text}
    assert runner.run("check", values).returncode == 0
    assert runner.arguments.count(text) == 2, "extra argument and scenario"
    for option in ("against", "tolerance", "inconclusive", "metric"):
        assert f"--{option}={text}" in runner.arguments
    runner.run("revision", {"inputs.against": text})
    assert runner.outputs == {"against": text}
    assert not list(runner.folder.rglob("hacked"))


def test_a_scenario_cannot_pass_for_an_option(runner):
    runner.run("check", {"inputs.scenario": "--allow-entry"})
    assert runner.arguments[-2:] == ["--", "--allow-entry"]


def test_the_install_command_is_run_with_the_interpreter(runner):
    done = runner.run(
        "Install modbench", {"inputs.install": 'echo "$PYTHON" | tee installed; false | true; touch never'}
    )
    assert done.returncode != 0, "a failure anywhere fails the step"
    assert (runner.work / "installed").read_text().strip() == str(runner.folder / "python")
    assert not (runner.work / "never").exists()


def against(runner, **facts):
    names = {"base": "github.event.pull_request.base.sha", "before": "github.event.before"}
    names |= {"group": "github.event.merge_group.base_sha", "against": "inputs.against"}
    values = {names[key]: value for key, value in facts.items() if key in names}
    environment = {key: value for key, value in facts.items() if key.startswith("GITHUB_")}
    done = runner.run("revision", values, **environment)
    return runner.outputs.get("against") if done.returncode == 0 else done.stdout


def test_githubs_merge_of_a_pull_request_is_compared_with_the_base_as_it_is_now(runner, history):
    github = {"GITHUB_REF": "refs/pull/7/merge", "GITHUB_SHA": history["merge"]}
    assert against(runner, base=history["fork"], **github) == history["base"], "not what it was when the event came"


def test_a_pull_requests_own_branch_is_compared_with_where_it_left(runner, history):
    git(runner.work, "checkout", "--quiet", history["change"])
    github = {"GITHUB_REF": "refs/pull/7/merge", "GITHUB_SHA": history["merge"]}
    assert against(runner, base=history["base"], **github) == history["fork"]


def test_a_push_is_compared_with_what_was_there_before(runner, history):
    git(runner.work, "checkout", "--quiet", "main")
    assert against(runner, before=history["first"]) == history["first"]


@pytest.mark.parametrize("before", ["0" * 40, "change"])
def test_a_new_branch_or_forced_push_is_compared_with_the_previous_commit(runner, history, before):
    git(runner.work, "checkout", "--quiet", "main")
    assert against(runner, before=history.get(before, before)) == history["fork"]


def test_a_merge_queue_and_a_given_revision(runner, history):
    assert against(runner, group=history["first"]) == history["first"]
    assert against(runner, against="origin/main\nverdict=same-or-faster") == "origin/main", "one line"


def test_a_shallow_checkout_is_completed(runner, history):
    shallow = runner.folder / "shallow"
    git(runner.work, "checkout", "--quiet", "main")
    git(runner.folder, "clone", "--quiet", "--depth=1", f"file://{runner.work}", str(shallow))
    runner.work.rename(runner.folder / "upstream")
    git(shallow, "remote", "set-url", "origin", f"file://{runner.folder}/upstream")
    shallow.rename(runner.work)
    assert against(runner) == history["fork"]


def test_without_history_the_step_says_what_to_do(runner, history):
    git(runner.work, "checkout", "--quiet", history["first"])
    said = against(runner)
    assert (
        said
        == "::error title=modbench::no earlier revision is there; give actions/checkout fetch-depth 0, or set against\n"
    )


def comment(runner, **environment):
    report = runner.folder / "report"
    report.mkdir()
    (report / "comment.md").write_text("<!-- modbench -->\n")
    values = {"github.event.pull_request.number": "7", "steps.check.outputs.report": str(report)}
    done = runner.run("Comment on the pull request", {**values, "inputs.token": "t"}, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_comment_is_posted(runner):
    assert comment(runner) == ""
    assert [call[-3:-1] for call in runner.gh_calls[1:]] == [["repos/me/mine/issues/7/comments", "--field"]]
    assert runner.gh_calls[1][-1] == f"body=@{runner.folder}/report/comment.md"


def test_a_comment_that_is_there_is_replaced(runner):
    comment(runner, COMMENTS="11\\n12\\n")
    assert runner.gh_calls[1][:5] == ["api", "--silent", "--method", "PATCH", "repos/me/mine/issues/comments/11"]
    assert len(runner.gh_calls) == 2


def test_a_comment_that_cannot_be_posted_warns_and_fails_nothing(runner):
    assert comment(runner, GH_CODE="1").startswith("::warning title=modbench::the comment could not be posted")
    assert len(runner.gh_calls) == 1


def test_ci_yaml_is_valid_and_small():
    loaded = load_scenario(PROJECT / "scenarios" / "ci.yaml")
    assert list(loaded.scenario.methods) == ["dense", "threshold"]
    assert [point.workload.context for point in loaded.points] == [512, 2048]
