"""Tables as CSV, Markdown and LaTeX keep the text of their cells."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess

import pytest

from visual_transformers.tables import print_table, to_csv, to_latex, to_markdown

ROWS = [{"name": 'a|b, "c"\nd', "share, %": "50.00 ± 1.25"}, {"share, %": "7 (paper)"}]


def test_csv_is_read_back_as_it_was():
    expected = [ROWS[0], {"name": "", "share, %": "7 (paper)"}]
    assert list(csv.DictReader(io.StringIO(to_csv(ROWS), newline=""))) == expected


def test_a_markdown_cell_stays_within_its_line_and_its_column():
    lines = to_markdown([*ROWS, {"name": "<b>"}]).splitlines()
    assert lines[2] == r'| a\|b, "c" d | 50.00 ± 1.25 |'
    assert lines[4] == "| &lt;b> |  |"
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in lines)


def test_a_latex_table_is_ruled_by_booktabs_and_numbers_are_flush_right():
    lines = to_latex(ROWS).splitlines()
    assert lines[0] == r"\begin{tabular}{lr}"
    assert [lines[i] for i in (1, 3, -2, -1)] == [r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}"]
    assert lines[4] == r'a\textbar{}b, "c" d & 50.00 $\pm$ 1.25 \\'


SPECIAL = r"10% of $5 & #1_a {b} ~c ^d \e <f> [g] *"


def test_special_characters_are_escaped_for_latex():
    (cell,) = to_latex([{"x": SPECIAL}]).splitlines()[4:5]
    text = cell.removesuffix(r" \\")
    assert text == (
        r"10\% of \$5 \& \#1\_a \{b\} \textasciitilde{}c \textasciicircum{}d \textbackslash{}e "
        r"\textless{}f\textgreater{} {[}g] {*}"
    )


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex here")
def test_a_latex_table_compiles(tmp_path):
    table = to_latex([*ROWS, {"name": SPECIAL}, {"name": "[g]"}])
    document = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{table}\end{{document}}"
    (tmp_path / "table.tex").write_text(document)
    subprocess.run(["pdflatex", "-halt-on-error", "table.tex"], cwd=tmp_path, check=True, capture_output=True)


def test_a_table_printed_to_a_file_is_not_wrapped_and_keeps_brackets(capsys):
    print_table("[bold]", [{"column": f"[red] {'x' * 500}"}])
    printed = capsys.readouterr().out
    assert "[bold]" in printed
    assert f"[red] {'x' * 500}" in printed
