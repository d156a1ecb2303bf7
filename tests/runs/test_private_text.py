import os
import sys

import pytest

from echomen_hf.runs import private_text
from echomen_hf.runs.private_text import hide_parents_of, paths_among, private_streams, without_parents


@pytest.fixture(autouse=True)
def nothing_hidden(monkeypatch):
    monkeypatch.setattr(private_text, "_parents", set())
    monkeypatch.setattr(private_text, "_ancestors", set())


@pytest.mark.parametrize(
    ("given", "text", "expected"),
    [
        ("/srv/DOE_J/run", "There is no folder /srv/DOE_J/run.", "There is no folder run."),
        (
            "/srv/DOE_J/run",
            "[Errno 2] No such file: '/srv/DOE_J/run/a/b.avi'",
            "[Errno 2] No such file: 'run/a/b.avi'",
        ),
        ("/srv/DOE_J/run", "in /srv/DOE_J: denied, file:///srv/DOE_J/x", "in ...: denied, file://x"),
        (
            "/srv/DOE_J/run",
            "/srv/DOE_J.old/x and /data/srv/DOE_J/x stay",
            "/srv/DOE_J.old/x and /data/srv/DOE_J/x stay",
        ),
        ("/srv/DOE_J/1953/run", "Permission denied: '/srv/DOE_J'", "Permission denied: '...'"),
        ("/srv/O'Brien\\1/run", repr("/srv/O'Brien\\1/run/x") + " /srv/O'Brien\\1/run", '"run/x" run'),
        ("../DOE_J/run", "in ../DOE_J/run or {cwd}/../DOE_J/run or {above}/DOE_J/run", "in run or run or run"),
        ("DOE_J/run/", "DOE_J/run and {cwd}/DOE_J/run but not me/DOE_J/run", "run and run but not me/DOE_J/run"),
        ("run", "{cwd}/run/x", "run/x"),
        ("~/DOE_J/run", "~/DOE_J/run {home}/DOE_J/run", "run run"),
        ("s3://bucket/DOE_J/in", "s3://bucket/DOE_J/in/a.avi bucket/DOE_J/in", "in/a.avi in"),
        (7, "7/8", "7/8"),
    ],
)
def test_folders_above_are_hidden_and_names_are_kept(given, text, expected):
    cwd = os.getcwd()
    hide_parents_of([given])
    text = text.format(cwd=cwd, above=os.path.dirname(cwd), home=os.path.expanduser("~"))
    assert without_parents(text) == expected


def test_ids_on_the_hub_are_no_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "DOE_J" / "model").mkdir(parents=True)
    given = ["push", "--model", "DOE_J/model", "--repo=me/echomen", "--output", "new/DOE_J", "--dry_run"]
    assert "me/echomen" not in paths_among(given)
    assert {"DOE_J/model", "new/DOE_J"} <= set(paths_among(given))
    assert list(paths_among(["me/echomen", "a/b/c", "./x"])) == ["a/b/c", "./x"]


def test_streams_are_private_for_a_while(capsys):
    hide_parents_of(["/srv/DOE_J/run"])
    with private_streams():
        print("/srv/DOE_J/run")
        print("/srv/DOE_J/log", file=sys.stderr)
    print("/srv/DOE_J/after")
    assert capsys.readouterr() == ("run\n/srv/DOE_J/after\n", "log\n")
