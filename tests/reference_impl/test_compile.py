"""torch.compile of a converted model: the same results, and as many compiled graphs as the documentation says."""

import copy

import pytest
import torch

from tests.reference_impl.conftest import FP32_TOLERANCE, random_ids

GRAPHS_AROUND_LAYERS = 4  # embedding and positions, rotary table, final norm, head
LAYOUTS = {"first": ((0,), 3), "all": ((0, 1, 2, 3), 4), "more than the compiler keeps apart": ("interleaved", 20)}


class GraphCounter:
    """A backend that runs each graph as it is and counts those compiled and those run."""

    def __init__(self):
        self.num_compiled = self.num_run = 0

    def __call__(self, graph_module, example_inputs):
        self.num_compiled += 1

        def run(*args):
            self.num_run += 1
            return graph_module(*args)

        return run


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize(("layers", "num_layers"), LAYOUTS.values(), ids=LAYOUTS)
@torch.no_grad()
def test_every_dense_layer_is_one_graph_and_a_routed_layer_none(make_converted, layers, num_layers):
    model = make_converted(model_overrides={"num_hidden_layers": num_layers}, routed_layers=layers)
    counter = GraphCounter()
    compiled = torch.compile(model, backend=counter)
    num_runs = []
    for seed in range(3):
        counter.num_run = 0
        ids = random_ids(2, 17, seed=seed)
        assert torch.equal(compiled(ids, use_cache=False).logits, model(ids, use_cache=False).logits)
        num_runs.append(counter.num_run)
    assert num_runs == [num_layers - len(model.routed_layers) + GRAPHS_AROUND_LAYERS] * 3
    has_dense_layers = len(model.routed_layers) < num_layers
    assert counter.num_compiled == has_dense_layers + GRAPHS_AROUND_LAYERS, (
        "layers share one graph; other keep counts need no other"
    )


@torch.no_grad()
def test_compiled_prefill_and_decode_equal_those_of_the_model(make_converted):
    model = make_converted(model_overrides={"num_hidden_layers": 2})
    compiled = torch.compile(model, backend="eager")
    ids = random_ids(2, 13)
    cache, expected_cache = model.new_cache(), model.new_cache()
    for start, end in [(0, 11), (11, 12), (12, 13)]:
        logits = compiled(ids[:, start:end], past_key_values=cache).logits
        expected = model(ids[:, start:end], past_key_values=expected_cache).logits
        torch.testing.assert_close(logits, expected, atol=FP32_TOLERANCE, rtol=0)
    assert cache.layers[1].get_seq_length() == 13


def loss_and_gradients(model, forward, ids):
    loss = forward(ids, labels=ids).loss
    loss.backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    return loss.detach(), found


# torch's tracer looks at .grad of the hidden states
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_compiled_training_has_the_same_loss_and_gradients(make_converted):
    model = make_converted(model_overrides={"num_hidden_layers": 2}, objective_alpha=1.0).train()
    compiled = torch.compile(model, backend="aot_eager")
    for seed in range(2):
        ids = random_ids(2, 13, seed=seed)
        loss, found = loss_and_gradients(model, compiled, ids)
        expected_loss, expected = loss_and_gradients(model, model, ids)
        torch.testing.assert_close(loss, expected_loss, atol=FP32_TOLERANCE, rtol=0)
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, atol=FP32_TOLERANCE, rtol=1e-4, msg=name)


@torch.no_grad()
def test_a_model_compiled_in_place_replays_masks_and_can_be_copied(make_converted):
    model = make_converted(model_overrides={"num_hidden_layers": 2})
    ids, none_kept = random_ids(1, 9), torch.zeros(1, 9, dtype=torch.bool)
    expected = model(ids).logits
    with model.routing.replay({1: none_kept}):
        expected_of_none = model(ids).logits
    model.compile(backend="eager")
    with model.routing.replay({1: none_kept}):
        assert torch.equal(model(ids).logits, expected_of_none)
    assert torch.equal(copy.deepcopy(model)(ids).logits, expected)


@pytest.mark.slow
# torch's own code generator still imports it
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@torch.no_grad()
def test_the_default_backend_gives_the_same_logits(make_converted):
    model = make_converted(model_overrides={"num_hidden_layers": 2})
    ids = random_ids(2, 13)
    compiled = torch.compile(model)
    torch.testing.assert_close(
        compiled(ids, use_cache=False).logits, model(ids, use_cache=False).logits, atol=FP32_TOLERANCE, rtol=0
    )
