"""pytest plugin: scenario files as test items, and the `modbench` fixture (docs/pytest.md).

Off unless a scenario file is named on the command line or `--modbench` is given. Loaded by every pytest of the environment, so
it imports nothing but pytest until then; `pytest_scenario` does the work.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from modbench.pytest_fixture import ScenarioRunner
    from modbench.pytest_scenario import ScenarioFile

SUFFIXES = (".yaml", ".yml")
MAX_BYTES = 2**20  # of a scenario file
_SCENARIO_KEY = re.compile(rb"^(model|methods|workload)[ \t]*:", re.MULTILINE)
MIN_SCENARIO_KEYS = 2  # of the three: a scenario that lacks one is an error worth telling, not somebody else's file


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of scenario items."""
    group = parser.getgroup("modbench", "Mixture-of-Depths scenarios")
    group.addoption(
        "--modbench", action="store_true", help="Collect the scenario files (*.yaml, *.yml) under the given paths too."
    )
    group.addoption(
        "--modbench-output",
        type=Path,
        metavar="DIR",
        help="Write each run to DIR/<scenario>. Default: reports/<scenario>/<time>",
    )
    group.addoption(
        "--modbench-set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="Override a key of every scenario, e.g. workload.batch=4. Repeatable.",
    )
    group.addoption("--modbench-device", metavar="cpu|cuda|cuda:N", help="Override measure.device.")
    group.addoption(
        "--modbench-allow-entry",
        action="store_true",
        help="Let scenarios import and run code named by `entry:`.",
    )
    group.addoption(
        "--modbench-baseline", type=Path, metavar="RUN", help="Fail points that are worse than in this earlier run."
    )


def is_scenario(path: Path) -> bool:
    """Whether a file looks like a scenario: two of the keys that each must have. Reads it, and parses nothing."""
    if path.suffix not in SUFFIXES or not path.is_file() or path.stat().st_size > MAX_BYTES:
        return False
    return len({match[1] for match in _SCENARIO_KEY.finditer(path.read_bytes())}) >= MIN_SCENARIO_KEYS


def named_paths(config: pytest.Config) -> list[Path]:
    """What the command line names; `isinitpath` forgets a file where a folder that holds it is named too."""
    return [(config.invocation_params.dir / argument.partition("::")[0]).resolve() for argument in config.args]


def pytest_configure(config: pytest.Config) -> None:
    """Refuse scenarios beside pytest-xdist's workers.

    Raises:
        pytest.UsageError: `-n` (or another way to distribute) stands beside a scenario file or `--modbench`.
    """
    if config.getoption("dist", "no") == "no":
        return
    if config.getoption("modbench") or any(is_scenario(path) for path in named_paths(config)):
        raise pytest.UsageError(
            "modbench: got pytest-xdist's -n; measurements disturb each other: run scenarios without it"
        )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> "ScenarioFile | None":
    """A collector for a scenario that is named, or wanted by `--modbench`; None for every other file."""
    if file_path.suffix not in SUFFIXES:
        return None
    is_wanted = parent.config.getoption("modbench") or file_path.resolve() in named_paths(parent.config)
    if not is_wanted or not is_scenario(file_path):
        return None
    from modbench.pytest_scenario import ScenarioFile

    return ScenarioFile.from_parent(parent, path=file_path)


@pytest.fixture(scope="session", name="modbench")
def modbench_fixture(request: pytest.FixtureRequest) -> "ScenarioRunner":
    """Measure scenarios in tests of your own: `modbench.run("scenario.yaml", set=["workload.batch=4"])`.

    Lives for the session: the same scenario with the same overrides is measured once.
    """
    from modbench.pytest_fixture import ScenarioRunner

    if hasattr(request.config, "workerinput"):
        pytest.fail(
            "modbench: runs in a worker of pytest-xdist; measurements disturb each other: run without -n", False
        )
    return ScenarioRunner(request.config)
