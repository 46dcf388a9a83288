"""The page of a sweep: who leads, what stands in its tables, and its chart in a browser."""

from html import unescape
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from dipkernels import sweep
from dipkernels.errors import OutputError
from dipkernels.reports import sweep_page, swept
from helpers.commands import call
from helpers.pages import data_of, opened, without_scripts
from helpers.studies import write_study

MODULE = """
from dipkernels import sweep

def nine_lives(prior, task, *, seed: int, fail: bool = False):
    if fail and seed == 1:
        raise ValueError("<b>it is broken</b>")
    lead = prior.parameter_count if task.noise_sigma < 0.07 else -prior.parameter_count
    return {"peak_psnr": 20.0 + 0.01 * lead + 0.001 * seed, "word": "<i>said</i>"}

sweep.register_measurement("NAME", nine_lives)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a sweep whose scores are known, of which one run fails."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "lives_of_cats.py").write_text(MODULE.replace("NAME", "lives"), encoding="utf-8")
    plan = {
        "imports": "lives_of_cats",
        "priors": {"name": "deep-decoder", "options": {"width": [4, 8]}},
        "tasks": {"name": "denoise", "noise_sigma": [0.05, 0.1]},
        "images": "camera",
        "sizes": 8,
        "seeds": [0, 1, 2],
        "measure": "lives",
        "blocks": [
            {},
            {"measure": {"name": "lives", "fail": True}, "seeds": 1, "images": "coffee"},
        ],
    }
    file = folder / "plan.yaml"
    file.write_text(yaml.safe_dump(plan), encoding="utf-8")
    assert call("sweep", str(file), "--output", str(folder / "store"), "--quiet") == 1
    return folder / "store"


def test_the_verdict_says_who_leads_and_what_failed(store: Path) -> None:
    text = unescape(without_scripts(store / "index.html"))
    assert (
        "12 runs are done and 4 failed. By peak_psnr, deep-decoder (width=8) leads in 1 of 2 "
        "settings, deep-decoder (width=4) in 1." in " ".join(text.split())
    )
    assert 'class="verdict bad"' in text
    raw = without_scripts(store / "index.html")
    assert "<b>it is broken" not in raw
    assert "&lt;b&gt;it is broken" in raw
    assert "What failed" in text
    assert "lives_of_cats" in text  # the plan
    box = raw.partition('<pre id="in-python">')[2].partition("</pre>")[0]
    scope: dict[str, Any] = {}
    exec(unescape(box), scope)
    assert len(scope["table"]) == 12
    assert scope["together"].seeds.tolist() == [3] * 4


def test_tables_and_chart_hold_the_runs(store: Path) -> None:
    frame, study = sweep.table(store), data_of(store / "index.html")["study"]
    assert study["values"]["peak_psnr"] == pytest.approx(frame.peak_psnr.tolist(), rel=1e-5)
    for name, labels in study["levels"].items():
        shown = [labels[code] for code in study["codes"][name]]
        assert shown == [str(value) for value in frame[name]], name
    assert study["levels"]["prior.width"] == ["4", "8"]
    text = without_scripts(store / "index.html").partition('id="together"')[2]
    text = text.partition("</table>")[0]
    means = sweep.over_seeds(frame)
    for mean, spread in zip(means.peak_psnr, means.peak_psnr_spread, strict=True):
        assert f">{mean:.4g} +- {spread:.2g}</td>" in text


def test_seeds_that_spread_tell_nothing_apart() -> None:
    rows = [("a", 20.0, 3.0), ("b", 21.0, 3.0)]
    table = pd.DataFrame(rows, columns=["prior", "peak_psnr", "peak_psnr_spread"])
    said = swept._leaders(table.assign(seeds=3), ["prior"], ["peak_psnr"])
    assert said == [
        "By peak_psnr, b leads.",
        "The second can't be distinguished from the first with these seeds.",
    ]
    said = swept._leaders(table.assign(seeds=1), ["prior"], ["peak_psnr"])
    assert said[1] == "With one seed, this may be chance."
    assert swept._leaders(table.assign(seeds=3)[:1], ["prior"], ["peak_psnr"]) == [
        "peak_psnr is 20."
    ]


def test_a_page_of_nothing_of_one_seed_and_of_no_store(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds no sweep"):
        sweep_page(tmp_path)
    file = write_study(tmp_path, 1)
    (tmp_path / "block-0").touch()
    store = tmp_path / "store"
    sweep.run(sweep.load(file), store)
    assert "0 runs are done and 1 failed." in unescape(without_scripts(sweep_page(store)))
    (tmp_path / "block-0").unlink()
    sweep.run(sweep.load(file), store, retry_failed=True)
    text = unescape(without_scripts(sweep_page(store)))
    assert "1 run is done." in text
    assert "One seed: no spread" in text


def test_more_runs_than_a_page_holds_are_counted(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swept, "BYTES", 4000)
    text = without_scripts(sweep_page(store))
    monkeypatch.undo()
    rows = text.partition('id="runs"')[2].partition("</table>")[0].count("<tr>") - 1
    assert 0 < rows < 12
    assert f"{12 - rows} further runs" in text
    sweep_page(store)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(390, False), (1400, True)])
def test_a_browser_draws_any_quantity_along_any_axis(
    store: Path, running: Any, width: int, dark: bool
) -> None:
    drawn = (
        "name => Bokeh.documents.flatMap(d => d.roots()).flatMap(p => p.renderers)"
        ".find(r => r.name === name).data_source.data.y"
    )
    label = "Bokeh.documents[0].roots()[0].below[0].axis_label"
    means = sweep.table(store).groupby(["prior.width", "task.noise_sigma"]).peak_psnr.mean()
    with opened(running, store / "index.html", width=width, dark=dark) as found:
        page = found.page
        assert found.overflow() <= 0
        assert page.evaluate(label) == "prior.width"
        page.get_by_label("a colour each").select_option("task.noise_sigma")
        shown = [*page.evaluate(drawn, "means")]
        assert sorted(shown) == pytest.approx(sorted(means), rel=1e-5)
        assert len([*page.evaluate(drawn, "runs")]) == 12
        page.locator("#series label").first.click()  # the lower noise goes
        shown = [*page.evaluate(drawn, "means")]
        assert sorted(shown) == pytest.approx(sorted(means.xs(0.1, level=1)), rel=1e-5)
        page.get_by_label("along", exact=True).select_option("seed")
        assert page.evaluate(label) == "seed"
        assert len([*page.evaluate(drawn, "means")]) == 3
        page.get_by_label("Filter rows").first.fill("0.05")
        assert page.locator("#together tbody tr:visible").count() == 2
        assert found.complaints == []
