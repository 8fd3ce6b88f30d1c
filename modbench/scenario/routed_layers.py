"""Which layers a method routes: what a scenario says -> layer indices."""

from modbench.errors import ScenarioError
from modbench.scenario.models import RoutedLayersValue


def resolve_routed_layers(value: RoutedLayersValue, num_layers: int) -> tuple[int, ...]:
    """Turn `routed_layers` into sorted layer indices.

    Args:
        value: "interleaved" is every other layer starting with the second: 1, 3, 5, ...; a fraction f is round(f * L)
            layers at equal distances, the last layer among them (0.5 is interleaved for even L); a list is itself.
        num_layers: L, the model's layers, at least 1.

    Raises:
        ScenarioError: without a location: an index outside 0..L-1, or no layer at all.

    Source: interleaving is the published choice (every other layer); the placement of fractions is our choice.
    """
    assert num_layers >= 1, f"a model has layers, got {num_layers}"
    if isinstance(value, tuple):
        outside = [index for index in value if not 0 <= index < num_layers]
        if outside:
            raise ScenarioError(f"got layer {outside[0]}; expected indices from 0 to {num_layers - 1}")
        return tuple(sorted(value))
    if value == "interleaved":
        layers = tuple(range(1, num_layers, 2))
    else:
        count = round(value * num_layers)
        layers = tuple((step * num_layers) // count - 1 for step in range(1, count + 1))
    if not layers:
        raise ScenarioError(f"got {value}, which routes none of the model's {num_layers} layers; expected at least one")
    return layers
