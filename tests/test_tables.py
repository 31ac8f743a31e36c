"""Tables as CSV, Markdown and LaTeX keep whatever stands in their cells."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess

import pytest

from visual_transformers.tables import csv_text, latex_table, markdown_table, print_table

ROWS = [{"name": 'a|b, "c"\nd', "share, %": "50.00 ± 1.25"}, {"share, %": "7 (theirs)"}]


def test_csv_is_read_back_as_it_was():
    expected = [ROWS[0], {"name": "", "share, %": "7 (theirs)"}]
    assert list(csv.DictReader(io.StringIO(csv_text(ROWS), newline=""))) == expected


def test_a_markdown_cell_stays_within_its_line_and_its_column():
    lines = markdown_table([*ROWS, {"name": "<b>"}]).splitlines()
    assert lines[2] == r'| a\|b, "c" d | 50.00 ± 1.25 |'
    assert lines[4] == "| &lt;b> |  |"
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in lines)


def test_a_latex_table_is_ruled_by_booktabs_and_numbers_are_flush_right():
    lines = latex_table(ROWS).splitlines()
    assert lines[0] == r"\begin{tabular}{lr}"
    assert [lines[i] for i in (1, 3, -2, -1)] == [r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}"]
    assert lines[4] == r'a\textbar{}b, "c" d & 50.00 $\pm$ 1.25 \\'


SPECIAL = r"10% of $5 & #1_a {b} ~c ^d \e <f> [g] *"


def test_what_tex_would_read_as_a_command_is_escaped():
    (cell,) = latex_table([{"x": SPECIAL}]).splitlines()[4:5]
    text = cell.removesuffix(r" \\")
    assert text == (
        r"10\% of \$5 \& \#1\_a \{b\} \textasciitilde{}c \textasciicircum{}d \textbackslash{}e "
        r"\textless{}f\textgreater{} {[}g] {*}"
    )


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex here")
def test_a_latex_table_compiles(tmp_path):
    table = latex_table([*ROWS, {"name": SPECIAL}, {"name": "[g]"}])
    document = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{table}\end{{document}}"
    (tmp_path / "table.tex").write_text(document)
    subprocess.run(["pdflatex", "-halt-on-error", "table.tex"], cwd=tmp_path, check=True, capture_output=True)


def test_what_is_printed_to_a_file_is_as_wide_as_it_needs_and_takes_brackets_as_they_are(capsys):
    print_table("[bold]", [{"column": f"[red] {'x' * 500}"}])
    printed = capsys.readouterr().out
    assert "[bold]" in printed
    assert f"[red] {'x' * 500}" in printed
