import pytest

from benchmarks import compare_protocols


def test_protocols_are_compared_with_the_first(trained, echonet_dir, capsys):
    arguments = ["--data_dir", str(echonet_dir), "--model", str(trained), "--num_workers", "0"]
    compare_protocols.main([*arguments, "--protocols", "all", "every4", "center"])
    printed = capsys.readouterr().out
    assert printed.startswith("SYNTHETIC")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines()]
    header, _, every, fourth, center = [line for line in lines if len(line) > 1]
    assert header[:3] == ["Protocol", "Clips per video", "Mean change against `all`"]
    assert [row[0] for row in (every, fourth, center)] == ["`all`", "`every4`", "`center`"]
    assert float(every[1]) > float(fourth[1]) > float(center[1]) == 1
    assert every[2] == every[3] == ""
    assert 0 <= float(fourth[2]) <= float(fourth[3])
    assert float(center[4]) > 0


def test_missing_split(trained, echonet_dir, tmp_path):
    import pandas as pd

    copy = tmp_path / "data"
    copy.mkdir()
    (copy / "Videos").symlink_to(echonet_dir / "Videos")
    table = pd.read_csv(echonet_dir / "FileList.csv", dtype={"FileName": str})
    table[table["Split"] != "TEST"].to_csv(copy / "FileList.csv", index=False)
    with pytest.raises(ValueError, match="No split 'test'; the data set has train, validation"):
        compare_protocols.main(["--data_dir", str(copy), "--model", str(trained)])


def test_a_misspelt_protocol_is_refused_before_anything_is_predicted(trained, echonet_dir, capsys):
    arguments = ["--data_dir", str(echonet_dir), "--model", str(trained), "--protocols", "all", "evry4"]
    with pytest.raises(ValueError, match="evry4"):
        compare_protocols.main(arguments)
    assert "Predicting" not in capsys.readouterr().err
