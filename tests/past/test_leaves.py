import json

import numpy as np

from meanfield import past


def test_flat_names_and_numbers():
    """Closed form: names in order; only what stands alone and is a number counts as one."""
    arrays = {
        "loss": np.ones(2),
        "a": {"steps": np.int64(12), "result": np.array("completed"), "done": np.array(True)},
        "rate": np.float32(0.5),
    }
    assert list(past.flat(arrays)) == ["a/done", "a/result", "a/steps", "loss", "rate"]
    found = past.scalars(arrays)
    assert json.loads(json.dumps(found)) == {"a/done": True, "a/steps": 12, "rate": 0.5}
