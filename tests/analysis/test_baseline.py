import pytest
import yaml

import made_up
import made_up_runs
from gpro_empathy import files
from gpro_empathy.analysis import baseline, response_table


@pytest.fixture
def folder(tmp_path):
    baseline.write(tmp_path, made_up_runs.run())
    return tmp_path


def test_a_run_comes_back_to_the_last_digit(folder):
    run, back = made_up_runs.run(), baseline.read(folder)
    assert back.scores.equals(run.scores)
    assert back.settings == run.settings
    assert back.provenance == run.provenance


def test_scores_are_means_over_samples_and_hold_no_text(folder):
    rows = made_up.rollouts()
    scores = baseline.read(folder).scores
    one = scores[(scores["prompt_id"] == "10.2") & (scores["model"] == "tuned")].iloc[0]
    drawn = [row["empathy_raw"] for row in rows if row["prompt_id"] == "10.2" and row["model"] == "tuned"]
    assert one["empathy_raw"] == pytest.approx(sum(drawn) / len(drawn), abs=1e-15)
    assert one["seed"] == 23
    assert (scores.loc[scores["model"] == "base", "seed"] == response_table.NO_SEED).all()
    text = "".join(path.read_text() for path in folder.iterdir())
    assert not any(row["answer"] in text or row["prompt"] in text for row in rows)


def test_a_prompt_without_a_label_has_no_score_of_the_metric_that_needs_one(tmp_path):
    rows = [row | ({"emotion": None} if row["prompt_id"] == "1.2" else {}) for row in made_up.rollouts()]
    scores = baseline.scores(response_table.responses(rows), ["intensity_agreement"])
    baseline.write(tmp_path, baseline.Run({}, scores, made_up_runs.run().provenance))
    back = baseline.read(tmp_path).scores
    assert set(back.loc[back["intensity_agreement"].isna(), "prompt_id"]) == {"1.2"}


def test_a_folder_with_a_page_about_itself_is_no_baseline(tmp_path):
    (tmp_path / "README.md").write_text("about")
    assert baseline.read(tmp_path) is None
    assert baseline.read(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("provenance.json", None, r"provenance.json: no such file; restore it with `git checkout"),
        (
            "provenance.json",
            '{"commit": "a"}',
            r"provenance.json: no 'files'; .* or go without by `make baseline ARGS=--none`",
        ),
        ("provenance.json", "[]", r"provenance.json: no record of a run"),
        ("settings.yaml", None, r"settings.yaml: no such file; restore it"),
        ("settings.yaml", "a: [", r"settings.yaml: not YAML"),
        ("settings.yaml", "a: 1", r"settings.yaml: no settings by section and key"),
        ("scores.csv", "prompt_id,model,seed\n", r"scores.csv: column 'story' is missing"),
        ("scores.csv", "prompt_id,story,model,seed,x\n1,a,base,,0.5\n", r"scores.csv: no scores of the tuned policy"),
        ("scores.csv", "prompt_id,story,model,seed,x\n1,a,tuned,23,much\n", r"scores.csv, line 2: .*'much'"),
        ("scores.csv", "prompt_id,story,model,seed,x\n1,a,tuned,2,1\n1,a,tuned,2,1\n", r"stand twice"),
    ],
)
def test_a_damaged_baseline_is_refused_with_its_file_and_the_way_out(folder, name, change, said):
    (folder / name).unlink() if change is None else (folder / name).write_text(change)
    with pytest.raises(files.UserError, match=said):
        baseline.read(folder)


def test_deciding_files_are_code_and_data_of_the_stages_up_to_the_rollouts():
    deps = [
        {"path": path, "md5": "1"} for path in ("models/scorer", "src/a.py", "data/prepared/train.jsonl", "rewards")
    ]
    stages = {
        name: {"deps": deps}
        for name in ("prepare_policy", "prepare", "train_scorer", "train_reader", "warm_start", "train_grpo")
    }
    assert baseline.deciding_files({"stages": stages}) == {}
    lock = {"stages": stages | {"rollout": {"deps": [{"path": "src/b.py", "md5": "2"}]}, "paper": {"deps": deps[:1]}}}
    found = baseline.deciding_files(yaml.safe_load(yaml.safe_dump(lock)))
    assert found == {"src/a.py": "1", "src/b.py": "2", "data/prepared/train.jsonl": "1", "rewards": "1"}
