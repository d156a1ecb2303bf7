import numpy as np
import pytest

from benchmarks.sector import Measurement, contact_sheet, draw_tile, make_case, markdown_table, overlap
from echomen_hf.model.sector_echomen import Sector, find_sector


def test_a_case_depends_on_seed_and_number_only_and_can_be_drawn():
    first, second = make_case(3, 0), make_case(3, 0)
    assert first.settings == second.settings
    assert np.array_equal(first.export.frames, second.export.frames)
    assert first.clip.shape == (len(first.export.frames), 112, 112)
    sector = find_sector(first.export.frames)
    assert overlap(sector.box, first.export.box) > 0.9
    nothing = Sector((0, 0, *first.export.frames.shape[:0:-1]))
    sheet = contact_sheet([draw_tile(first.export, found) for found in (sector, nothing)])
    assert np.asarray(sheet)[:300, :400].any()


def test_boxes_overlap_by_their_common_area_over_all_of_it():
    assert overlap((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 10, 10), (20, 0, 30, 10)) == 0


def test_the_table_has_a_line_per_kind_and_one_for_all_and_the_time_on_the_usual_screen():
    measured = [
        Measurement("whole fan", (1024, 768), 0.95, 0.9, 2.0, 0.5, 50.0, 50.5, 58.0),
        Measurement("square clip", (640, 480), 0.80, 0.9, 4.0, 0.9, 60.0, 58.0, 54.0),
    ]
    lines = markdown_table(measured).splitlines()
    assert len(lines) == 7
    assert lines[2] == "| whole fan | 1 | 100.0% | 0.950 | 2.0 | 0.50 | 0.50 | +0.50 | 8.00 | +8.00 |"
    assert lines[4] == "| all | 2 | 50.0% | 0.875 | 3.0 | 0.70 | 1.25 | -0.75 | 7.00 | +1.00 |"
    assert lines[6] == "On the 1 screens of 1024 x 768 the search takes 2.0 ms."
    assert len(markdown_table(measured[1:]).splitlines()) == 4
