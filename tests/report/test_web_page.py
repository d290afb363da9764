import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import made_up
import made_up_sweep
from gpro_empathy import files, params
from gpro_empathy.data import ratings
from gpro_empathy.report import page_tables, web_page
from gpro_empathy.report.number_format import PAGE
from gpro_empathy.stages import analyse_ratings, analyse_rewards, write_page
from gpro_empathy.tools import sweep_estimates

ROOT = Path(__file__).parents[2]
PARAMS = params.load_all(ROOT / "params.yaml")
CONFIG = PARAMS.analyse_rewards.model_copy(update={"n_resamples": 200})
MARKUP = "</script><script>alert(1)</script><img src=x onerror=alert(2)> <!-- &amp; \u2028\u2029 {{ 7 * 7 }}"


class Reader(HTMLParser):
    """What a browser would see: elements with their attributes, and the text of scripts."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.elements, self.scripts, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] == "script":
            self.scripts.append(data)
        self.text += data

    def data(self):
        return json.loads(self.scripts[0])


def make_page(root, effect="gain"):
    """Write the page of made-up results below `root`, and return it."""
    made_up.write_reports(root, effect)
    analyse_rewards.run(CONFIG, PARAMS.rewards, PARAMS.train_grpo, root)
    analyse_ratings.run(CONFIG, root)
    shutil.copytree(ROOT / "reports/figures", root / "reports/figures")
    shutil.copytree(ROOT / "paper/web", root / "paper/web")
    write_page.run(root)
    return (root / "reports/index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a folder with made-up results and their page."""
    root = tmp_path_factory.mktemp("page")
    make_page(root)
    return root


@pytest.fixture(scope="module")
def page(made):
    return (made / "reports/index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def analysis(made):
    return files.read_json(made / "reports/reward_analysis.json")


@pytest.fixture(scope="module")
def unrated(made):
    return files.read_json(made / "reports/ratings.json")


def render(analysis, unrated, rows):
    """Return the page of other rows with the repository's template and no figures."""
    sources = [
        (ROOT / path).read_text(encoding="utf-8") for path in (write_page.MARKUP, write_page.STYLE, write_page.SCRIPT)
    ]
    return web_page.render(web_page.Template(*sources), analysis, unrated, rows, {})


@pytest.mark.parametrize(
    ("effect", "headline"),
    [
        ("none", "No change of the raw empathy score is established"),
        ("harm", "The tuned policy scores lower in raw empathy than the policy that it started from"),
    ],
)
def test_headline_is_the_verdict_of_the_run(tmp_path, effect, headline):
    page = make_page(tmp_path, effect)
    assert f"<h1>{headline}</h1>" in page
    analysis = files.read_json(tmp_path / "reports/reward_analysis.json")
    change = PAGE.number(analysis["metrics"]["empathy_raw"]["difference"], 2, signed=True)
    assert f"<strong>{change}</strong>" in page


def test_markup_in_texts_of_people_and_models_stays_text(analysis, unrated):
    rows = made_up.rollouts(prompts=4, conversations=2)
    for row in rows:
        for key in ("prompt", "answer", "reasoning", "text"):
            row[key] = MARKUP + row[key]
        row |= {"well_formed": False, "text": f"{row['text']} and more"}
    reader = Reader(render(analysis, unrated, rows))
    assert [tag for tag, _ in reader.elements].count("script") == 2
    assert not [value for _, attributes in reader.elements for value in attributes if value.startswith("on")]
    first = reader.data()["prompts"][0]
    assert first["text"] == rows[0]["prompt"]
    assert first["responses"]["base"][0]["answer"] == rows[0]["answer"]
    assert first["responses"]["base"][0]["whole"] == rows[0]["text"]


def test_markup_in_the_name_of_a_metric_stays_text(analysis, unrated):
    name = "<b>mine</b>"
    changed = analysis | {
        "metric_order": [*analysis["metric_order"], name],
        "metrics": analysis["metrics"] | {name: analysis["metrics"]["overlap"]},
    }
    page = render(changed, unrated, made_up.rollouts(prompts=2, conversations=2))
    assert name in Reader(page).text
    assert name not in page


@given(value=st.recursive(st.none() | st.text() | st.integers(), lambda x: st.dictionaries(st.text(), x), max_leaves=4))
def test_embedded_json_comes_back_and_cannot_end_its_element(value):
    text = web_page.embedded_json(value)
    assert json.loads(text) == value
    assert not set("<>&\u2028\u2029\n") & set(text)


def test_a_lone_surrogate_can_be_embedded():
    assert json.loads(web_page.embedded_json("a\ud800<")) == "a\ud800<"


def test_embedded_json_refuses_what_a_browser_cannot_parse():
    with pytest.raises(ValueError, match="JSON"):
        web_page.embedded_json([float("nan")])


def test_page_loads_nothing_but_its_figures(page):
    links = [
        attributes[key] for _, attributes in Reader(page).elements for key in ("src", "href") if attributes.get(key)
    ]
    assert {link for link in links if link.startswith("figures/")} == {
        f"figures/{path.name}" for path in (ROOT / "reports/figures").glob("*.png")
    }
    assert [link for link in links if re.match(r"\w+:|//", link)] == ["data:,"]


def test_content_policy_allows_the_two_inline_sources_and_no_other(page):
    policy = next(a["content"] for tag, a in Reader(page).elements if a.get("http-equiv"))
    for directive, element in (("script-src", "script"), ("style-src", "style")):
        source = re.search(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_same_results_give_the_same_bytes(made, page):
    write_page.run(made)
    assert (made / "reports/index.html").read_text(encoding="utf-8") == page


def test_a_gain_is_told_as_one(page):
    assert "<h1>The tuned policy scores higher in raw empathy than the policy that it started from</h1>" in page


def test_every_response_is_in_the_page_with_its_scores(analysis, unrated):
    rows = made_up.rollouts(prompts=6, conversations=3)
    data = Reader(render(analysis, unrated, rows)).data()
    assert data["responses"] == len(rows) == 36
    assert [metric["label"] for metric in data["metrics"]][:2] == ["empathy, reward's scorer", "semantic similarity"]
    responses = data["prompts"][2]["responses"]
    own = [row for row in rows if row["prompt_id"] == data["prompts"][2]["id"]]
    for policy in ("base", "warm_start", "tuned"):
        expected = [row for row in own if row["model"] == policy]
        assert [r["answer"] for r in responses[policy]] == [row["answer"] for row in expected]
        assert [r["scores"][0] for r in responses[policy]] == pytest.approx(
            [row["empathy_raw"] for row in expected], abs=1e-5
        )
    assert data["against"] == ["warm_start", "base"]


@pytest.mark.parametrize(("label", "level"), [(None, None), (2.5, 3), (2.49, 2), (0.0, 0)])
def test_intensity_is_the_rounded_label(label, level):
    rows = [row | {"emotion": label} for row in made_up.rollouts(prompts=1, conversations=1)]
    assert web_page.browser_data(rows, ["empathy_raw"], "warm_start")["prompts"][0]["level"] == level


def test_seeds_are_shown_where_there_are_several():
    rows = made_up.rollouts(prompts=2, conversations=2)
    again = [row | {"seed": 24} for row in rows if row["model"] == "tuned"]
    first = [row if row["model"] == "tuned" else row | {"seed": None} for row in rows]
    responses = web_page.browser_data(first + again, ["empathy_raw"], "warm_start")["prompts"][0]["responses"]
    assert [response["seed"] for response in responses["tuned"]] == [23, 23, 24, 24]
    assert [response["seed"] for response in responses["base"]] == [None, None]
    one = web_page.browser_data(rows, ["empathy_raw"], "warm_start")["prompts"][0]["responses"]
    assert [response["seed"] for response in one["tuned"]] == [None, None]


def test_without_a_warm_start_the_base_is_compared():
    rows = made_up.rollouts(prompts=2, conversations=2, warm_start=False)
    found = web_page.browser_data(rows, ["empathy_raw"], "base")
    assert found["against"] == ["base"]
    assert list(found["labels"]) == ["base", "tuned"]


def test_whole_reply_is_kept_only_where_it_says_more():
    rows = made_up.rollouts(prompts=1, conversations=1, samples=1)
    rows[0] |= {"well_formed": False, "text": "<answer>\na b\n</answer>", "answer": "a b"}
    rows[1] |= {"well_formed": False, "text": " a b\n", "answer": "a b"}
    rows[2] |= {"well_formed": True}
    found = web_page.browser_data(rows, ["empathy_raw"], "warm_start")["prompts"][0]["responses"]
    assert found["base"][0]["whole"] == rows[0]["text"]
    assert found["warm_start"][0]["whole"] is None
    assert found["tuned"][0]["whole"] is None


def test_a_metric_that_no_response_has_is_left_out():
    rows = made_up.rollouts(prompts=1, conversations=1)
    found = web_page.browser_data(rows, ["made_from_several", "empathy_raw"], "warm_start")
    assert [metric["label"] for metric in found["metrics"]] == ["empathy, reward's scorer"]
    assert found["shown"] == [0]
    with pytest.raises(ValueError, match="empathy_raw"):
        web_page.browser_data(rows, ["overlap"], "warm_start")


def test_a_prompt_without_a_policys_response_is_refused_by_name():
    rows = made_up.rollouts(prompts=2, conversations=2)
    rows = [row for row in rows if (row["prompt_id"], row["model"]) != ("2.2", "tuned")]
    with pytest.raises(ValueError, match=r"\b2\.2\b.*'tuned'"):
        web_page.browser_data(rows, ["empathy_raw"], "warm_start")


def test_a_number_missing_in_the_analysis_is_named(tmp_path, made, analysis):
    shutil.copytree(made, tmp_path / "made")
    without = {key: value for key, value in analysis.items() if key != "starting_policy"}
    files.write_json(tmp_path / "made/reports/reward_analysis.json", without)
    with pytest.raises(files.UserError, match=r"'starting_policy'.*`make reproduce`"):
        write_page.run(tmp_path / "made")


def test_every_figure_has_a_caption_and_no_other():
    assert set(write_page.CAPTIONS) == {path.stem for path in (ROOT / "reports/figures").glob("*.png")}


def test_page_does_not_depend_on_how_figures_look(made, page):
    shutil.rmtree(made / "reports/figures")
    write_page.run(made)
    assert (made / "reports/index.html").read_text(encoding="utf-8") == page


@pytest.mark.parametrize(
    ("value", "digits", "signed", "text"),
    [
        (0.126, 2, True, "+0.13"),
        (-0.126, 2, False, "\N{MINUS SIGN}0.13"),
        (-0.004, 2, True, "0.00"),
        (0.004, 2, True, "0.00"),
        (16.25, 1, False, "16.2"),
        (None, 2, True, "\N{EN DASH}"),
    ],
)
def test_numbers_are_written_as_in_print(value, digits, signed, text):
    assert PAGE.number(value, digits, signed) == text


def test_tables_hold_the_numbers_of_the_analysis(analysis, unrated):
    declared, audit, templates, levels = page_tables.tables(analysis, unrated, None)
    found = analysis["metrics"]["overlap"]
    assert declared["rows"][analysis["metric_order"].index("overlap")] == [
        "overlap with the user's words",
        *(f"{found['means'][policy]:.3f}" for policy in ("base", "warm_start", "tuned")),
        PAGE.number(found["difference"], 3, signed=True),
        PAGE.interval(found["low"], found["high"], 3),
        "\N{EN DASH}",  # no study is at hand
        PAGE.p_value(found["p_holm"]),
        found["verdict"],
    ]
    assert len(audit["rows"]) == len(analysis["audit"]["metrics"])
    assert [int(row[1]) for row in levels["rows"]] == [level["prompts"] for level in analysis["by_intensity"]["levels"]]
    change = analysis["by_intensity"]["values"]["empathy_raw"]["change"]["levels"]
    assert [row[-2] for row in levels["rows"]] == [PAGE.number(one["mean"], 2, signed=True) for one in change]
    assert [row[-1] == "\N{EN DASH}" for row in levels["rows"]] == [one["low"] is None for one in change]
    assert all(
        len(row) == len(table["header"]) for table in (declared, audit, templates, levels) for row in table["rows"]
    )


def test_page_leads_with_a_study_of_several_trainings(analysis, unrated):
    study = json.loads(json.dumps(analysis)) | {"training_seeds": [5, 7]}
    for comparison in (*study["metrics"].values(), *study["audit"]["metrics"].values()):
        ends = {"new_low": comparison["low"] - 0.1, "new_high": comparison["high"] + 0.1}
        comparison |= ends | {"by_seed": {"5": comparison["difference"] - 0.2, "7": comparison["difference"] + 0.2}}
    first, *rest = page_tables.tables(analysis, unrated, study)
    assert len(rest) == 4
    assert len(first["rows"]) == len(analysis["metrics"])
    found = study["metrics"]["empathy_raw"]
    mean, new = (PAGE.interval(found[low], found[high], 2) for low, high in (("low", "high"), ("new_low", "new_high")))
    assert first["rows"][analysis["metric_order"].index("empathy_raw")][2:4] == [mean, new]
    told = page_tables.findings(analysis, unrated, study)[0]["text"]
    assert f"label units ({mean} for the mean over trainings, {new} for a new training)" in told
    assert "no study of several is at hand" in page_tables.findings(analysis, unrated, None)[0]["text"]


def test_page_shows_every_sweep_with_its_table_and_figure(made, page):
    assert "sweeps" not in page
    temperature = "rewards.calibration_temperature"
    sweep = made_up_sweep.sweep({temperature: [0.6, 1.0]}, [23, 24], PARAMS.model_dump())
    rows = [made_up_sweep.row(sweep.runs()[0][0], 23, 0.3), made_up_sweep.failed(sweep.runs()[2][0], 23, "<why> & how")]
    summary = sweep_estimates.summary(sweep, made_up_sweep.by_key(rows), CONFIG, ["empathy_raw"])
    path = made / "reports/sweeps/made_up/summary.json"
    files.write_json(path, summary)
    try:
        write_page.run(made)
        shown = (made / "reports/index.html").read_text(encoding="utf-8")
    finally:
        shutil.rmtree(path.parents[1])
        (made / "reports/index.html").write_text(page, encoding="utf-8")
    assert '<img src="sweeps/made_up/figure.png"' in shown
    assert '<a href="#sweeps">Sweeps</a>' in shown
    assert "1, seed 23, failed: &lt;why&gt; &amp; how." in shown


def test_page_shows_what_raters_found_where_answers_were_rated(tmp_path, made, analysis, unrated):
    told = page_tables.findings(analysis, unrated, None)
    assert "No ratings of the tuned policy's answers, one by one, are at hand" in told[1]["text"]
    assert "Preference" not in [finding["what"] for finding in told]
    shutil.copytree(made / "data", tmp_path / "data")
    rows = made_up.told_apart(files.read_jsonl(made / "data/rollouts/rollouts.jsonl"))
    files.write_jsonl(tmp_path / "data/rollouts/rollouts.jsonl", rows)
    ratings.write(tmp_path / ratings.FOLDER / "a.csv", made_up.rate(rows, sensible=0.0, raters=("A",)))
    analyse_ratings.run(CONFIG, tmp_path)
    rated = files.read_json(tmp_path / analyse_ratings.RESULT)
    told = {finding["what"]: finding["text"] for finding in page_tables.findings(analysis, rated, None)}
    assert (
        "that a language model rated, blind to policy and score, the share of sensible replies is 0.00" in told["Sense"]
    )
    assert "the tuned policy's answer won" in told["Preference"]
    policies, validity, *rest = page_tables.tables(analysis, rated, None)
    assert len(rest) == len(page_tables.tables(analysis, unrated, None))
    for table in (policies, validity):
        assert all(len(cells) == len(table["header"]) for cells in table["rows"])
    assert [row[:3] for row in policies["rows"]] == [
        [name, "a language model", "60"] for name in ("warm start", "tuned")
    ]
    assert "Ratings of this run's answers: 180 by a language model (A)." in policies["note"]
    assert "Nothing was rated twice" in policies["note"]
    assert "empathy, reward's scorer" in [row[0] for row in validity["rows"]]


def test_page_of_pairs_alone_has_no_empty_table_and_says_who_rated(tmp_path, made, analysis, unrated):
    shutil.copytree(made / "data", tmp_path / "data")
    rows = made_up.told_apart(files.read_jsonl(made / "data/rollouts/rollouts.jsonl"))
    files.write_jsonl(tmp_path / "data/rollouts/rollouts.jsonl", rows)
    pairs = [one for one in made_up.rate(rows, raters=("A",)) if one.form == "pair"]
    ratings.write(tmp_path / ratings.FOLDER / "a.csv", pairs)
    analyse_ratings.run(CONFIG, tmp_path)
    first, *rest = page_tables.tables(analysis, files.read_json(tmp_path / analyse_ratings.RESULT), None)
    assert first["title"] == "Do the scores go with the ratings?"
    assert first["note"].startswith("Ratings of this run's answers: 60 by a language model (A).")
    assert len(rest) == len(page_tables.tables(analysis, unrated, None))


@pytest.mark.parametrize(
    "module", ["stages.write_page", "stages.record_provenance", "report.reproduction", "report.arxiv"]
)
def test_what_needs_no_torch_does_not_import_it(module):
    code = f"import sys, gpro_empathy.{module}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
