import math
import re

from experiments import _pace


def test_lines_in_a_log(capsys, monkeypatch):
    """Closed form: 2 s a step, 3 s of which every other went into measuring, told every 20 s."""
    now = iter([0.0, *(10.0 + 2 * step + 3 * (step // 2) for step in range(10))])
    monkeypatch.setattr(_pace.time, "monotonic", lambda: next(now))
    with _pace.pace("8 heads", total=10) as paced:
        for step in range(10):
            aside = 3.0 if step and step % 2 == 0 else 0.0
            paced.passed(step + 1, said="loss 2", aside=aside)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "8 heads: 5 of 10 steps, loss 2, 0.5 steps/s, 00:17 to go"
    assert lines[-1] == "8 heads: 10 of 10 steps, loss 2, 0.5 steps/s, 00:00 to go"
    assert len(lines) == 2
    assert all(re.fullmatch(r"8 heads: \d+ of 10 steps, .* to go", line) for line in lines)


def test_no_label_no_line(capsys):
    """House rule: a quiet loop says nothing; before the second step there is no pace."""
    with _pace.pace(None, total=2) as paced:
        paced.passed(1, said="")
        assert math.isnan(paced.steps_per_second)
        paced.passed(2, said="")
    assert paced.steps_per_second > 0
    assert not capsys.readouterr().err
