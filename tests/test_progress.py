import io

from meanfield import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    """Seconds that a test sets."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def written(moments, *, label="training"):
    """Lines of a log file; moments are pairs of seconds since the start and shares."""
    stream, clock = io.StringIO(), Clock()
    here = progress.shown(label, stream=stream, clock=clock)
    for seconds, share in moments:
        clock.now = 100.0 + seconds
        here.update(share)
    here.close()
    assert "\r" not in stream.getvalue()
    return stream.getvalue().splitlines()


def test_a_log_file_gets_whole_lines():
    """Closed form: after a second, then every half minute at most, and at the end."""
    assert written((second, second / 90) for second in range(91)) == [
        "training: 1 %, 00:01 so far, 01:29 to go",
        "training: 34 %, 00:31 so far, 00:59 to go",
        "training: 67 %, 01:01 so far, 00:29 to go",
        "training: 100 %, 01:30 so far",
    ]


def test_what_is_short_is_one_line():
    """Closed form: nothing within the first second but the end."""
    assert written([(0.1, 0.0), (0.5, 1.0)]) == ["training: 100 %, 00:00 so far"]
    assert written([(0.1, 0.0), (40.0, 1.0)]) == ["training: 100 %, 00:40 so far"]
    assert written([(0.5, 0.999)], label="") == ["progress: ended at 99 %, 00:00 so far"]


def test_the_time_to_go_from_a_checkpoint():
    """Closed form: half was there already; half a minute for a tenth says two for the rest."""
    assert written([(1.5, 0.5), (11.5, 0.6), (31.5, 0.6)]) == [
        "training: 50 %, 00:01 so far",
        "training: 60 %, 00:31 so far, 02:00 to go",
        "training: ended at 60 %, 00:31 so far",
    ]


def test_what_else_is_said():
    """Closed form: at the end of a line in a log, and of a bar on a terminal."""
    lines = progress.Lines("training", io.StringIO(), Clock())
    lines.clock.now = 102.0
    lines.update(0.5, "loss 2")
    assert lines.stream.getvalue() == "training: 50 %, 00:02 so far, loss 2\n"
    terminal = progress.Bar("training", Terminal())
    terminal.update(0.5, "loss 2")
    terminal.close()
    assert ", loss 2" in terminal.bar.fp.getvalue()


def test_a_terminal_gets_a_bar():
    """Closed form: drawn again in place, with the label, up to the end."""
    stream = Terminal()
    here = progress.shown("training", stream=stream)
    for share in (0.0, 0.5, 1.0):
        here.update(share)
    here.close()
    drawn = stream.getvalue()
    assert drawn.count("\n") == 1
    assert "\rtraining" in drawn
    assert " 50% |" in drawn
    assert "100% |" in drawn


def test_loops(capsys):
    """Closed form: the items in order; a line under the label, nothing without one."""
    assert list(progress.through("abc", "letters")) == ["a", "b", "c"]
    assert capsys.readouterr().err == "letters: 100 %, 00:00 so far\n"
    assert list(progress.through("abc", None)) == ["a", "b", "c"]
    broken = progress.through("abcd", "parts")
    next(broken), next(broken)
    broken.close()
    assert capsys.readouterr().err == "parts: ended at 25 %, 00:00 so far\n"
