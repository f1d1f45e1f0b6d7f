from docs.transcripts import Transcripts, compare, main
from unlearnkit.cli import running


def test_the_commands_print_what_the_page_says(capsys, monkeypatch):
    monkeypatch.setattr(running, "report_page", lambda *_, **__: "")  # drawn, and not printed
    assert main(Transcripts(check=True)) == 0, capsys.readouterr().out


def test_numbers_may_differ_and_words_may_not():
    page = "[   0.1 s] 0/8 training\nGap  4.33±0.44\n───\nnearer"
    assert compare(page, "[  12.9 s] 3/8 training\nGap 11.00±0.4\n──\nnearer") == []
    stage = "store/stages/audit/{}: values of single examples"
    assert compare(stage.format("4f/4fbe03c9c…"), stage.format("c1/c15fb2d00…")) == []
    assert compare(page, page.replace("nearer", "farther"))[-2:] == ["-nearer", "+farther"]
