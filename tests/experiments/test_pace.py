import math

import pytest

from experiments import _pace


def test_steps_per_second(monkeypatch):
    """Closed form: 2 s a step from the second on; 3 s for measuring now and then do not count."""
    now = iter(10.0 + 2 * step + 3 * (step // 2) for step in range(10))
    monkeypatch.setattr(_pace.time, "monotonic", lambda: next(now))
    told = []
    paced = _pace.Pace(lambda share, said: told.append((share, said)), 10)
    for step in range(10):
        aside = 3.0 if step and step % 2 == 0 else 0.0
        paced.passed(step + 1, said="loss 2", aside=aside)
    assert told[0] == (0.1, "loss 2")
    assert told[4] == (0.5, "loss 2, 0.5 steps/s")
    assert paced.steps_per_second == pytest.approx(0.5)


def test_no_label_no_line(capsys):
    """House rule: a quiet loop says nothing; before the second step there is no pace."""
    with _pace.pace(None, total=2) as paced:
        paced.passed(1, said="")
        assert math.isnan(paced.steps_per_second)
        paced.passed(2, said="")
    assert paced.steps_per_second > 0
    assert not capsys.readouterr().err
