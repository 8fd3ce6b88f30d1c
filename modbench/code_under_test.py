"""Which repository holds the code that a scenario measures: modbench's own, or the user's behind `entry:` or `command:`.

In: loaded scenarios. Out: a `Repository`. Nothing is imported to find out.
"""

import importlib.machinery
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from modbench.errors import OptionError
from modbench.provenance import PROJECT, git
from modbench.scenario import LoadedScenario


@dataclass(frozen=True)
class Repository:
    """A git repository; `import_roots` are the folders in it, relative to `root`, that modules are imported from."""

    root: Path
    import_roots: tuple[Path, ...]

    @property
    def is_modbench(self) -> bool:
        """True if the code under test is this package itself."""
        return self.root == PROJECT


def repository_under_test(scenarios: Sequence[LoadedScenario]) -> Repository:
    """The repository of the scenarios' own methods, or modbench's where they have none.

    Raises:
        OptionError: the code is in no git repository, or in several.
    """
    places = dict.fromkeys(place for loaded in scenarios for place in _foreign_places(loaded)) or {PROJECT: None}
    tops: dict[Path, dict[Path, None]] = {}
    for place in places:
        top = git(place, "rev-parse", "--show-toplevel")
        if top is None:
            raise OptionError(
                f"--against: the code under test is in {place}, which is in no git repository; "
                "expected a checkout with the other revision; clone it"
            )
        tops.setdefault(Path(top).resolve(), {})[place] = None
    if len(tops) > 1:
        raise OptionError(
            f"--against: the code under test is in {' and '.join(map(str, tops))}; "
            "expected one repository; check the scenarios one by one"
        )
    ((root, found),) = tops.items()
    return Repository(root, tuple(place.relative_to(root) for place in found))


def _foreign_places(loaded: LoadedScenario) -> Iterator[Path]:
    """The folders that a scenario's `entry` modules are imported from."""
    for label, settings in loaded.scenario.methods.items():
        name = getattr(settings, "entry", None)
        if isinstance(name, str):
            yield _import_root(name.partition(":")[0].partition(".")[0], f"{loaded.path}: methods.{label}")


def _import_root(package: str, where: str) -> Path:
    """The folder that a top-level module is found in; workers look where they are started first."""
    spec = importlib.machinery.PathFinder.find_spec(package, [str(Path.cwd()), *sys.path])
    if spec is None:
        raise OptionError(
            f"{where}: entry: no module {package!r} here; start from its folder, or install it with pip install --editable"
        )
    places = list(spec.submodule_search_locations or []) or [str(spec.origin)]
    return Path(places[0]).resolve().parent
