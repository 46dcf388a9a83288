"""Names in docstrings: which are the package's, and that a wrong one isn't taken for one."""

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import dipkernels
from dipkernels.networks.layers import Generator

pytest.importorskip("sphinx")
SCRIPT = Path(__file__).parents[1] / "docs" / "_ext" / "short_names.py"


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_whole_names_are_imported(names: dict[str, Any]) -> None:
    imported = names["imported"]
    assert imported("dipkernels.fit") is dipkernels.fit
    assert imported("dipkernels.networks.layers.Generator") is Generator
    assert imported("dipkernels.networks.layers.Generater") is None
    assert imported("dipkernels.nowhere.thing") is None
    assert imported("os.path") is None


def test_words_are_those_of_code(names: dict[str, Any]) -> None:
    own = names["own_word"]
    assert own("learning_rate", "dipkernels.fitting.fits")
    assert own("vit", "dipkernels.networks.vit")
    assert not own("learning_rat", "dipkernels.fitting.fits")
    assert not own("prose", "dipkernels.sweep")  # of its docstrings alone
    assert not own("learning_rate.widht", "dipkernels.fitting.fits")


def test_a_short_name_means_one_public_object(names: dict[str, Any]) -> None:
    objects = dict.fromkeys(
        ["dipkernels.fitting.fit", "dipkernels.networks.names", "dipkernels.theory.audit.names"]
    )
    env = SimpleNamespace(get_domain=lambda _: SimpleNamespace(objects=objects), ref_context={})
    path = names["public_path"]
    assert path(env, "dipkernels.fit", None) == "dipkernels.fitting.fit"
    assert path(env, "fit", None) == "dipkernels.fitting.fit"
    assert path(env, "names", None) is None  # one of two that differ
    assert path(env, "fitt", None) is None
