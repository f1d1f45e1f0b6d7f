import io
import sys
import textwrap

from rich.console import Console
from tiny_terminal import WIDTH, Screen, run_in_terminal

from unlearnkit.reporting import StageProgress

LONG = "a question with a name that is longer than the terminal is wide: " * 3
CHILD = textwrap.dedent(
    f"""
    import time
    from unlearnkit.reporting import StageProgress
    with StageProgress(total=4) as progress:
        for record in range(4):
            progress({LONG!r} + str(record), 0, 3)
            for epoch in (1, 2, 3):
                time.sleep(0.1)
                progress({LONG!r} + str(record), epoch, 3)
            progress.advance()
            if record == 1:
                progress.say("a cell failed")
    print("done")
    """
)


def test_a_terminal_of_eighty_columns_shows_each_bar_once():
    code, last, screens = run_in_terminal([sys.executable, "-c", CHILD])
    assert code == 0
    assert last.splitlines() == ["a cell failed", "done"]  # the bars are gone
    assert max(screen.count("of 4 records") for screen in screens) == 1
    assert max(screen.count("a question with") for screen in screens) == 1
    assert max(len(line) for screen in screens for line in screen.splitlines()) <= WIDTH
    assert any("/s, 0:0" in screen and "left" in screen for screen in screens)
    assert any("…" in screen and "/3" in screen for screen in screens)


def test_the_tiny_terminal_shows_what_wraps_twice():
    """A bar that is wider than the terminal leaves a part behind at each refresh."""
    screen = Screen()
    screen.feed("x" * 100 + "\r\x1b[2K" + "x" * 100)
    assert screen.text().count("x" * 80) == 2


def test_elsewhere_each_stage_is_a_line():
    file = io.StringIO()
    with StageProgress(Console(file=file, width=40), total=2) as progress:
        for stage in ("one", "two\x1b[2J"):
            for done in range(3):
                progress(stage, done, 2)
            progress.advance()
        progress.say("x" * 60)
    one, two, said = file.getvalue().splitlines()
    assert one.endswith("0/2 one")
    assert two.endswith(r"1/2 two\x1b[2J")
    assert said == "x" * 60


def test_without_a_total_stages_stand_alone():
    file = io.StringIO()
    with StageProgress(Console(file=file)) as progress:
        progress("training", 0, 3)
        progress.advance()
    assert file.getvalue().endswith("s] training\n")
