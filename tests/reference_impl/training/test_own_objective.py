"""`module:factory` -> an objective; each thing that can be wrong with it is one line."""

import pytest
import torch

from reference_impl import ModConfig
from reference_impl.errors import TrainingError
from reference_impl.training.own_objective import own_objective

SOURCE = """
number = 3

def half():
    def objective(loads, config, progress):
        return torch.tensor(progress * config.threshold_p + len(loads))
    return objective

def nothing():
    return None

def a_float():
    return lambda loads, config, progress: 0.5

def a_vector():
    return lambda loads, config, progress: torch.zeros(2)

def whole():
    return lambda loads, config, progress: torch.tensor(1)

def broken():
    raise RuntimeError("mine")
"""


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("import torch\n" + SOURCE)
    (tmp_path / "needs_another.py").write_text("import not_here_at_all\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "inner.py").write_text("import torch\n" + SOURCE)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("module", ["mine", "package.inner"])
def test_the_factorys_function_is_asked_with_loads_settings_and_progress(module):
    assert own_objective(f"{module}:half")([None], ModConfig(threshold_p=0.5), 0.5).item() == 1.25


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine", "got 'mine'; expected package.module:factory"),
        ("mine:", "expected package.module:factory"),
        (":half", "expected package.module:factory"),
        ("mine:half()", "expected package.module:factory"),
        ("../mine:half", "expected package.module:factory"),
        ("not_here:half", "no module 'not_here' to import; put its folder on PYTHONPATH"),
        ("not_here.inner:half", "no module 'not_here.inner' to import"),
        ("package.other:half", "no module 'package.other' to import"),
        ("mine:other", "mine has no 'other'"),
        ("mine:number", "mine has int, not a function, 'number'"),
        ("mine:nothing", "the factory returned NoneType; expected a function of"),
    ],
)
def test_what_cannot_be_an_objective_is_one_line(name, message):
    with pytest.raises(TrainingError, match=message) as caught:
        own_objective(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a_float", "float"),
        ("a_vector", r"a tensor of torch.float32 \(2,\)"),
        ("whole", r"a tensor of torch.int64 \(\)"),
    ],
)
def test_what_it_returns_must_be_a_scalar_tensor(name, found):
    objective = own_objective(f"mine:{name}")
    with pytest.raises(TrainingError, match=f"mine:{name}: it returned {found}; expected a scalar tensor"):
        objective([], ModConfig(), 0.0)


def test_errors_of_the_users_own_code_come_as_they_are():
    with pytest.raises(RuntimeError, match="mine"):
        own_objective("mine:broken")
    with pytest.raises(ModuleNotFoundError, match="not_here_at_all"):
        own_objective("needs_another:half")
    assert torch.is_grad_enabled()
