import importlib
import importlib.util
import pickle
import sys
import warnings

import pytest

import echomen_hf
from echomen_hf.moved_modules import MOVED_MODULES


@pytest.mark.parametrize(("old", "new"), MOVED_MODULES.items())
def test_old_path_is_the_new_module(old, new):
    sys.modules.pop(f"echomen_hf.{old}", None)
    expected = importlib.import_module(f"echomen_hf.{new}")
    with pytest.warns(DeprecationWarning, match=f"^echomen_hf.{old} is now echomen_hf.{new};") as caught:
        found = importlib.import_module(f"echomen_hf.{old}")
    assert found is expected
    assert found.__name__ == found.__spec__.name == f"echomen_hf.{new}"
    assert len(caught) == 1


def test_classes_are_the_same():
    sys.modules.pop("echomen_hf.modeling_echomen", None)
    with pytest.warns(DeprecationWarning) as caught:
        from echomen_hf.modeling_echomen import EchoMENModel
    assert caught[0].filename == __file__
    assert EchoMENModel is echomen_hf.EchoMENModel
    # A pickle made by version 0.1.0 names the old path.
    old = pickle.dumps(EchoMENModel, protocol=0).replace(b"echomen_hf.model.modeling", b"echomen_hf.modeling")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert pickle.loads(old) is EchoMENModel


def test_other_names_are_not_found():
    assert importlib.util.find_spec("echomen_hf.no_such_module") is None
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("echomen_hf.data.no_such_module")
