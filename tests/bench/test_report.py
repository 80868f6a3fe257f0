from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path

import pytest

from bench import ROOT
from bench.report import answer_words, charts, document, figures, raw
from bench.report import docs as comparison_docs
from bench.report.answer import Finding, answer
from bench.report.answer_words import RUSSIAN
from bench.report.command import write
from bench.report.comparison import Case, Cell, Comparison, read
from bench.report.overview import hops, overview
from bench.report.stats import Summary
from tests.bench.comparisons import COST, ROUNDS, call, comparison


def case_of(found: Comparison, part: str, title: str) -> Case:
    chosen = found.part(part)
    assert chosen is not None
    return next(case for case in chosen.cases if case.title == title)


def finding(found: Comparison, who: str) -> Finding:
    return next(each for each in answer(found).findings if each.need.who == who)


def report(found: Comparison, folder: Path) -> tuple[str, str]:
    """As Markdown and as HTML."""
    write(found, folder)
    return (folder / "report.md").read_text(), (folder / "report.html").read_text()


def spoil(case: Case, mode: str, fault: str) -> None:
    """One of its rounds was wrong."""
    case.cells[mode][2] = Cell(fault=fault)


def scale(case: Case, mode: str, factor: float, name: str = "cpu_us") -> None:
    for cell in case.cells[mode]:
        cell.values[name] *= factor


# Figures


def test_a_ratio_is_made_of_pairs_of_one_round() -> None:
    case = Case("a", "a")
    case.cells = {
        "direct": [Cell({"a": 1.0}), Cell({"a": 100.0}), Cell({"a": 10.0})],
        "plain": [Cell({"a": 2.0}), Cell({"a": 300.0}), Cell({"a": 40.0})],
    }
    assert figures.ratio(case, "plain", ["a"]) == Summary(3.0, 2.0, 4.0, 3)


def test_what_a_mode_does_not_have_counts_nothing_in_a_sum() -> None:
    case = Case("a", "a")
    case.cells = {"direct": [Cell({"service_kib": 6.0})], "plain": [Cell({"nginx_kib": 20.0, "service_kib": 6.0})]}
    names = ("nginx_kib", "service_kib")
    assert figures.rounds(case, "direct", names) == [6.0]
    assert figures.rounds(case, "plain", names) == [26.0]
    assert figures.rounds(case, "njs", names) == []


def test_a_round_without_a_value_has_no_ratio() -> None:
    case = Case("a", "a")
    case.cells = {"direct": [Cell({"a": 1.0}), Cell({})], "plain": [Cell({"a": 2.0}), Cell({"a": 9.0})]}
    assert figures.ratio(case, "plain", ["a"]) == Summary(2.0, 2.0, 2.0, 1)


def test_the_case_that_stands_for_a_part_is_the_one_that_is_hinted_at_or_the_first() -> None:
    found = comparison()
    chosen = figures.CALL_CPU.case(found)
    assert chosen is not None
    assert chosen.title == "100 B, 10 in flight"
    part = found.part("call")
    assert part is not None
    part.cases = [call("something else"), call("another")]
    chosen = figures.CALL_CPU.case(found)
    assert chosen is not None
    assert chosen.title == "something else"


@pytest.mark.parametrize(("value", "text"), [(0.01234, "0.0123"), (9.876, "9.88"), (123.4, "123"), (12345.6, "12,346")])
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert figures.number(value) == text


# The answer


def test_the_edge_with_the_least_is_named_with_what_the_others_cost() -> None:
    found = finding(comparison(), "calls that are answered soon")
    assert found.best == ["plain"]
    assert {mode: round(other.ratio.middle, 3) for mode, other in found.behind.items() if other.ratio} == {
        "openresty": 1.333,
        "njs": 2.667,
    }
    assert found.to_direct is not None
    assert round(found.to_direct.middle, 3) == COST["plain"]


def test_the_answer_follows_the_figures() -> None:
    found = comparison()
    assert answer(found).first == ["plain"]
    for part in found.parts:
        for case in part.cases:
            if "njs" in case.cells:
                case.cells["njs"], case.cells["plain"] = case.cells["plain"], case.cells["njs"]
    assert answer(found).first == ["njs"]
    assert answer_words.opening(answer(found))[0].startswith("**Take njs, unless")


def test_a_mode_that_is_best_for_one_need_is_named_for_it() -> None:
    found = comparison()
    scale(case_of(found, "handshake", "50 at a time"), "openresty", 0.5)
    said = answer_words.opening(answer(found))
    assert any(line.startswith("**openresty** alone is best for: clients that come and go;") for line in said)


def test_a_mode_that_was_not_behind_in_every_round_is_no_worse() -> None:
    found = comparison()
    case = case_of(found, "call", "100 B, 10 in flight")
    for n, cell in enumerate(case.cells["openresty"]):
        cell.values["cpu_us"] = case.cells["plain"][n].values["cpu_us"] * (0.99 if n == 0 else 1.05)
    need = finding(found, "many calls, and CPU is short")
    assert need.best == ["plain", "openresty"]
    _, rows = answer_words.table(answer(found))
    row = next(row for row in rows if row[0] == need.need.who)
    assert row[1] == "**plain or openresty**"
    assert "no difference that this run can show" in row[3]


def test_a_mode_that_was_behind_in_every_round_is_worse_though_the_rounds_overlap() -> None:
    found = comparison()
    case = case_of(found, "call", "100 B, 10 in flight")
    for n, cell in enumerate(case.cells["openresty"]):  # by 5 %, where the rounds differ by 8 %
        cell.values["cpu_us"] = case.cells["plain"][n].values["cpu_us"] * 1.05
    assert finding(found, "many calls, and CPU is short").best == ["plain"]


def test_what_is_little_beside_the_most_does_not_matter() -> None:
    found = comparison()
    case = case_of(found, "call", "100 B, 10 in flight")
    for mode, value in {"plain": 300.0, "njs": 1.0, "openresty": 3.0}.items():
        for cell in case.cells[mode]:
            cell.values["service_cpu_us"] = value
    need = finding(found, "many calls, and the service's core is full")
    assert need.best == ["njs", "openresty"]
    _, rows = answer_words.table(answer(found))
    row = next(row for row in rows if row[0] == need.need.who)
    assert row[3] == "plain 300 x\nopenresty 3 x: no difference that matters"


def test_a_wrong_run_takes_a_mode_out_of_the_answer() -> None:
    found = comparison()
    spoil(case_of(found, "call", "100 B, 10 in flight"), "plain", "a reply was lost")
    need = finding(found, "many calls, and CPU is short")
    assert need.best == ["openresty"]
    assert need.left_out == {"plain": "a reply was lost"}


def test_nothing_is_concluded_where_the_load_client_was_the_limit() -> None:
    found = comparison()
    for cell in case_of(found, "call", "100 B, 10 in flight").cells["plain"]:
        cell.client_share, cell.server_share = 0.97, 0.5
    need = finding(found, "many calls, and CPU is short")
    assert need.left_out == {"plain": "the load client was the limit"}
    assert "plain" not in need.best


def test_nothing_is_concluded_from_few_rounds(tmp_path: Path) -> None:
    found = comparison()
    found.rounds = ROUNDS - 1
    for part in found.parts:
        for case in part.cases:
            case.cells = {mode: cells[:-1] for mode, cells in case.cells.items()}
    assert answer(found).concluded == []
    markdown, _ = report(found, tmp_path)
    assert "**4 rounds, 5 are needed" in markdown
    assert "Take " not in markdown


def test_nothing_is_concluded_from_one_edge() -> None:
    found = comparison()
    found.modes = ["direct", "plain"]
    need = finding(found, "mostly pushes")
    assert need.best == ()
    assert need.reason == "only one edge was measured"


def test_without_direct_edges_are_still_compared() -> None:
    found = comparison()
    found.modes = ["plain", "njs", "openresty"]
    for part in found.parts:
        for case in part.cases:
            case.cells.pop("direct", None)
    need = finding(found, "mostly pushes")
    assert need.best == ["plain"]
    assert need.to_direct is None


def test_where_the_best_has_nothing_the_others_are_told_by_their_figures() -> None:
    found = finding(comparison(), "reloads that clients should see coming")
    assert found.best == ["openresty"]
    _, rows = answer_words.table(answer(comparison()))
    assert rows[-1][1:] == [
        "**openresty**",
        "0 %\ncut without a close frame",
        "plain 100 (96 .. 104) %\nnjs 100 (96 .. 104) %",
    ]


# The report


def test_an_edge_otherwise_is_held_against_the_same_as_shipped_and_is_none_to_choose() -> None:
    found = comparison()
    assert hops(found) is None
    found.modes = ["direct", "plain", "plain-tcp", "njs", "openresty", "openresty-relay"]
    for part in found.parts:
        for case in part.cases:
            for mode, other, by in (("plain", "-tcp", 2.0), ("openresty", "-relay", 0.5)):
                cells = case.cells.get(mode, ())
                case.cells[mode + other] = [Cell({name: by * x for name, x in one.values.items()}) for one in cells]
    table = hops(found)
    assert table is not None
    assert [row[0] for row in table.rows] == ["plain / plain-tcp", "openresty / openresty-relay"]
    assert [row[1:] for row in table.rows] == [["0.5 x"] * (len(table.head) - 1), ["2 x"] * (len(table.head) - 1)]
    assert table.head[3].startswith("CPU per delivery (")
    said = answer(found)
    assert said.edges == ["plain", "njs", "openresty"]
    assert "openresty-relay" not in said.costs


def test_the_overview_has_ratios_to_direct() -> None:
    table = overview(comparison())
    plain = next(row for row in table.rows if row[0] == "plain")
    assert table.head[1] == "round trip of a call, p50, ms (100 B, 10 in flight)"
    assert plain[1] == "0.45\n0.432 .. 0.468\n1.5 x"
    direct = next(row for row in table.rows if row[0] == "direct")
    assert direct[1] == "0.3\n0.288 .. 0.312"


def test_a_wrong_run_prints_no_figure(tmp_path: Path) -> None:
    found = comparison()
    for part in found.parts:
        part.cases = [case for case in part.cases if case.title == "100 B, 10 in flight"]
    case = case_of(found, "call", "100 B, 10 in flight")
    for n, cell in enumerate(case.cells["njs"]):
        cell.values = dict.fromkeys(cell.values, 77771.0 + n)
        cell.curves = {"latency": [(50.0, 77771.0)]}
    assert all("77,77" in text for text in report(found, tmp_path))
    case.cells["njs"][1].fault = "2 of 100 calls were answered by the service"
    for text in report(found, tmp_path):
        assert "77,77" not in text
        assert "2 of 100 calls were answered by the service" in text


def test_the_page_is_well_formed_and_needs_nothing_else(tmp_path: Path) -> None:
    _, page = report(comparison(), tmp_path)
    root = ElementTree.fromstring(page.replace("<!DOCTYPE html>", ""))
    names = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert "svg" in names
    assert names.isdisjoint({"script", "link", "img", "iframe", "object", "image", "use"})
    for element in root.iter():
        assert not {"src", "href"} & set(element.attrib)
    assert "url(" not in page
    assert "@import" not in page


def test_every_chart_has_a_title_and_says_its_figures_in_words(tmp_path: Path) -> None:
    _, page = report(comparison(), tmp_path)
    drawn = [each for each in ElementTree.fromstring(page).iter() if each.tag.endswith("}svg")]
    assert len(drawn) >= 8
    for svg in drawn:
        title, words = svg[0], svg[1]
        assert title.tag.endswith("title")
        assert words.tag.endswith("desc")
        assert title.text
        assert words.text
        assert all(mode in words.text for mode in COST)


def test_text_of_the_run_is_text_in_the_report(tmp_path: Path) -> None:
    found = comparison()
    evil = '<script>alert("1")</script> & a | b\x00'
    found.problems = [evil]
    found.command = found.conditions["what"] = evil
    case = case_of(found, "call", "100 B, 10 in flight")
    case.title = case.cells["plain"][0].fault = evil
    markdown, page = report(found, tmp_path)
    ElementTree.fromstring(page)
    assert "<script" not in page
    assert "<script" not in markdown
    assert all(line.count(" | ") == 3 for line in markdown.splitlines() if line.startswith("| many calls, and CPU"))


def test_what_is_missing_is_left_out(tmp_path: Path) -> None:
    found = comparison()
    found.complete = False
    found.problems = ["njs: there is no such nginx"]
    found.modes = ["direct", "plain"]
    found.parts = [part for part in found.parts if part.name == "call"]
    for case in found.parts[0].cases:
        case.cells = {mode: case.cells[mode] for mode in found.modes}
    markdown, page = report(found, tmp_path)
    assert "**Not complete" in markdown
    assert "njs: there is no such nginx" in markdown
    assert "memory per connection" not in markdown
    assert "CPU per call" in page
    found.parts = []
    markdown, _ = report(found, tmp_path)
    assert "**Not complete" in markdown


def test_what_clients_saw_is_in_the_report(tmp_path: Path) -> None:
    markdown, _ = report(comparison(), tmp_path)
    assert "| closed | 1006: 50 | 1006: 50 | 1001: 50 |" in markdown


# Charts


def test_bars_begin_at_zero_and_are_as_long_as_their_figures() -> None:
    rows = [
        charts.Bar("direct", [("service", 10.0)], Summary(10.0, 10.0, 10.0, 5)),
        charts.Bar("njs", [("nginx", 30.0), ("service", 10.0)], Summary(40.0, 38.0, 42.0, 5)),
    ]
    root = ElementTree.fromstring(charts.bars("CPU", "µs", rows))
    widths = {
        group.attrib["class"]: sum(float(rect.attrib["width"]) + 1 for rect in group if rect.tag.endswith("rect"))
        for group in root
        if group.tag.endswith("}g") and group.attrib["class"] != "key"
    }
    assert widths["njs"] == pytest.approx(4 * widths["direct"], rel=0.01)


def test_percentiles_are_the_median_of_the_rounds_and_the_hundredth_is_left_out() -> None:
    line = charts.Curve("plain", [[(50.0, n), (99.0, 2.0 * n), (100.0, 1000.0)] for n in (1.0, 2.0, 9.0)])
    svg = charts.percentiles("latency", [line], ("percentile", "ms"))
    assert "plain at most 4 at 99" in svg
    assert "1,000" not in svg


def test_charts_without_curves_are_empty() -> None:
    assert charts.percentiles("latency", [charts.Curve("plain", [[]])], ("percentile", "ms")) == ""
    assert charts.shares("storm", [charts.Curve("plain", [[]])], ("s", "back")) == ""


def test_labels_of_curves_that_end_together_stand_apart() -> None:
    lines = [charts.Curve(mode, [[(50.0, 1.0), (99.0, 2.0)]]) for mode in COST]
    root = ElementTree.fromstring(charts.percentiles("latency", lines, ("percentile", "ms")))
    heights = sorted(float(text.attrib["y"]) for text in root.iter() if text.text in COST)
    assert len(heights) == len(COST)
    assert all(later - earlier >= 14 for earlier, later in pairwise(heights))
    assert heights[-1] < charts.HEIGHT - charts.BOTTOM + 6


# Pages


def test_a_cell_of_markdown_is_one_line_and_one_column() -> None:
    text = document.markdown([document.Table(["a", "b"], [["1\n2", "x | y <b>"]])])
    assert text.splitlines()[-1] == "| 1; 2 | x \\| y &lt;b> |"


def test_the_report_is_written_again_from_its_raw_figures(tmp_path: Path) -> None:
    found = comparison()
    found.write(tmp_path)
    assert read(tmp_path) == found
    expected = report(found, tmp_path / "expected")
    command = [sys.executable, "-m", "bench", "report", str(tmp_path)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0
    assert ((tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()) == expected


def test_a_folder_without_a_comparison_is_refused(tmp_path: Path) -> None:
    raw.write(tmp_path, {"series": []})
    command = [sys.executable, "-m", "bench", "report", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is no comparison" in done.stderr


def test_figures_go_between_the_marks_of_both_pages(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for name, _ in comparison_docs.PAGES:
        (docs / name).write_text(f"before\n\n{comparison_docs.BEGIN}\nlast year's\n{comparison_docs.END}\n\nafter\n")
    comparison_docs.refresh(comparison(), tmp_path / "bench" / "results" / "today", docs)
    english, russian = ((docs / name).read_text() for name, _ in comparison_docs.PAGES)
    for text in (english, russian):
        assert text.startswith("before\n")
        assert text.endswith("after\n")
        assert "last year's" not in text
        assert "(../bench/results/today/report.md)" in text
        assert "| plain |" in text
    assert "**Take plain" in english
    assert "**Берите plain" in russian
    comparison_docs.refresh(comparison(), tmp_path / "bench" / "results" / "today", docs)
    assert (docs / comparison_docs.PAGES[0][0]).read_text() == english


def test_pages_without_the_marks_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "comparison.md").write_text(f"{comparison_docs.BEGIN}\n{comparison_docs.END}\n")
    (tmp_path / "comparison.ru.md").write_text("nothing")
    with pytest.raises(comparison_docs.DocsError, match=r"comparison\.ru\.md"):
        comparison_docs.refresh(comparison(), tmp_path, tmp_path)
    assert (tmp_path / "comparison.md").read_text() == f"{comparison_docs.BEGIN}\n{comparison_docs.END}\n"


def test_the_russian_answer_has_no_english_left_in_it() -> None:
    found = answer(comparison())
    head, rows = answer_words.table(found, "ru")
    said = [*answer_words.opening(found, "ru"), *head, *(cell for row in rows for cell in row)]
    assert not any(english in line for english in RUSSIAN if len(english) > 3 for line in said)


def test_edges_that_are_alike_are_not_decided_between_in_both_languages() -> None:
    found = comparison()
    for part in found.parts:
        for case in part.cases:
            case.cells["njs"] = case.cells["openresty"] = case.cells["plain"]
    said = answer(found)
    assert said.first == ["plain", "njs", "openresty"]
    assert answer_words.opening(said)[0].startswith("**plain, njs or openresty: the figures do not decide.**")
    assert answer_words.opening(said, "ru")[0].startswith("**plain, njs или openresty: значения не решают.**")
    found.modes = ["direct", "plain"]
    assert answer_words.opening(answer(found), "ru")[0].startswith("Вывода нет")
