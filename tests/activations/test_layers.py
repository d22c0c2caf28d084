import pytest

from diffharness.activations.layers import resolve_layer
from diffharness.errors import UsageError


@pytest.mark.parametrize(
    ("spec", "layer"), [("0", 0), ("3", 3), ("-1", 3), ("0.5", 2), ("0.0", 0), ("1.0", 3), ("0.74", 2)]
)
def test_layer_is_an_index_or_a_fraction_of_depth(spec, layer):
    assert resolve_layer(spec, 4) == layer


@pytest.mark.parametrize("spec", ["4", "-5", "1.5", "middle", ""])
def test_layer_outside_the_model_is_refused_by_name(spec):
    with pytest.raises(UsageError, match="--layer"):
        resolve_layer(spec, 4)
