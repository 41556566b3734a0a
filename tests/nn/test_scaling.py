import numpy as np
import pytest

from meanfield import nn
from meanfield.nn.scaling import LAWS, decay_scale, time_scale


@pytest.mark.parametrize("law", LAWS)
def test_drift_of_the_decay(law):
    """Closed form: time x decay = 1, so a particle feels -lambda theta at every depth and width."""
    law = LAWS[law]()
    for depth, width in [(1, 1), (6, 16), (7, 3)]:
        assert law.time(depth, width) * law.decay(depth, width) == pytest.approx(1.0, rel=1e-15)
        tree = np.zeros((depth, width, 3))
        assert time_scale(law, tree) == law.time(depth, width)
        assert decay_scale(law, tree) == law.decay(depth, width)


def test_time_scales_belong_to_the_forward_factors():
    """Theorem: in mean field the sum's factor times the time scale is 1; by name, all four laws."""
    law = nn.mean_field()
    for depth, width in [(1, 1), (6, 16)]:
        product = law.width_factor(width) * law.depth_factor(depth) * law.time(depth, width)
        assert product == pytest.approx(1.0, rel=1e-15)
    assert {name: law().name for name, law in LAWS.items()} == {name: name for name in LAWS}
