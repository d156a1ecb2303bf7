from echomen_hf.data import is_synthetic


def test_simulated_data_say_so(echonet_dir):
    assert is_synthetic(echonet_dir)


def test_other_folders_do_not(tmp_path):
    assert not is_synthetic(tmp_path)
    (tmp_path / "README.txt").write_text("Videos of patients. This data set is SYNTHETIC in no way.")
    assert not is_synthetic(tmp_path)
