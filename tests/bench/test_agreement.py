from __future__ import annotations

import copy
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.compare import agreement
from bench.report.comparison import Comparison
from tests.bench.comparisons import comparison


def scaled_cells(found: Comparison, part: str, mode: str, factor: float) -> Comparison:
    """Another run, in which all that ``mode`` has in this part is ``factor`` times that."""
    other = copy.deepcopy(found)
    chosen = other.part(part)
    assert chosen is not None
    for case in chosen.cases:
        for cell in case.cells[mode]:
            cell.values = {name: value * factor for name, value in cell.values.items()}
    return other


def test_two_runs_with_the_same_figures_agree_in_all():
    found = agreement.compare(comparison(), comparison())
    assert found.figures == found.overlapping > 0
    assert found.ranked_by_both > 0
    assert not found.apart
    assert not found.contradicted
    assert all(one == other for one, other in found.needs.values())


def test_what_moved_is_named_and_is_no_contradiction():
    first = comparison()
    found = agreement.compare(first, scaled_cells(first, "call", "njs", 1.2))
    assert found.apart
    assert all(each.startswith("call ") and ", njs: " in each for each in found.apart)
    assert found.figures == found.overlapping + len(found.apart) + found.apart_at_fixed_rates
    assert not found.contradicted


def test_a_ranking_the_other_way_round_is_a_contradiction():
    first = comparison()
    found = agreement.compare(first, scaled_cells(first, "call", "njs", 0.01))
    assert any(each.startswith("call ") and "njs" in each for each in found.contradicted)
    assert any(one != other for one, other in found.needs.values())


def test_a_mode_with_a_fault_is_not_ranked():
    first, second = comparison(), comparison()
    for part in second.parts:
        for case in part.cases:
            case.cells["njs"][2].fault = "a message was lost"
    found = agreement.compare(first, scaled_cells(second, "call", "njs", 0.01))
    assert not found.contradicted


@pytest.mark.parametrize(("factor", "code"), [(1.0, 0), (0.01, 1)])
def test_the_command_ends_with_1_where_runs_contradict_each_other(
    factor: float, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    first = comparison()
    for name, found in (("a", first), ("b", scaled_cells(first, "call", "njs", factor))):
        (tmp_path / name).mkdir()
        found.write(tmp_path / name)
    monkeypatch.setattr("sys.argv", ["bench", "agree", str(tmp_path / "a"), str(tmp_path / "b")])
    assert main() == code
    assert "figures have spreads that overlap" in capsys.readouterr().out


def test_a_folder_without_a_comparison_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.argv", ["bench", "agree", str(tmp_path), str(tmp_path)])
    assert main() == 1
    assert "not two comparisons" in capsys.readouterr().err
