"""Which layers `routed_layers` means."""

import pytest

from modbench.errors import ScenarioError
from modbench.scenario import resolve_routed_layers


def test_interleaved_is_every_other_layer_from_the_second() -> None:
    assert resolve_routed_layers("interleaved", 7) == (1, 3, 5)
    assert all(resolve_routed_layers(0.5, n) == resolve_routed_layers("interleaved", n) for n in range(2, 100, 2))


@pytest.mark.parametrize("num_layers", [1, 2, 7, 26, 80])
@pytest.mark.parametrize("fraction", [0.01, 0.25, 1 / 3, 0.5, 0.75, 1.0])
def test_a_fraction_routes_that_many_different_layers_and_the_last(num_layers: int, fraction: float) -> None:
    count = round(fraction * num_layers)
    if count == 0:
        with pytest.raises(ScenarioError, match="routes none"):
            resolve_routed_layers(fraction, num_layers)
        return
    layers = resolve_routed_layers(fraction, num_layers)
    assert len(set(layers)) == count
    assert layers == tuple(sorted(layers))
    assert layers[-1] == num_layers - 1
    gaps = {after - before for before, after in zip((-1, *layers), layers, strict=False)}
    assert max(gaps) - min(gaps) <= 1, "as even as whole layers allow"
