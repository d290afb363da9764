"""Made-up rollouts and reports, seeded, in the shape that the pipeline writes them; a scorer."""

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd

from gpro_empathy.analysis import rated_items
from gpro_empathy.data import ratings

# Mean change of raw empathy and of raw similarity, tuned less starting policy.
EFFECTS = {"gain": (0.5, 0.04), "none": (0.0, 0.0), "harm": (-0.5, -0.15)}
_UTTERANCES = (
    "I can't stop thinking about the family who lost their house, the youngest is three.",
    "meh. happens every year, they should have moved",
    "My brother went through the same and nobody called him for weeks & weeks, 100% true_story #sad",
    "So what did you make of it, honestly?",
    "It makes me furious that the company knew and still did nothing about the pipes for so many years while people got ill.",
)
_ANSWERS = (
    "That sounds frightening, and it makes sense that it stays with you. What would help the family most?",
    "I'm sorry to hear that. It must be hard to see it happen again.",
    "You could ask the council what is planned \N{EM DASH} caf\xe9 owners did so last year.",
)

# Terms of the reward that are scored against what is usual.
AROUND_ZERO = ("approach_match", "relative_empathy", "relative_reader_sense", "relative_reader_empathy")


def rollouts(
    effect: str = "gain",
    *,
    prompts: int = 60,
    conversations: int = 30,
    stories: int | None = None,
    samples: int = 2,
    seed: int = 1,
    warm_start: bool = True,
    seeds: tuple[int, ...] = (23,),
    seed_sd: float = 0.02,
) -> list[dict]:
    """Make rollout rows of all policies; `effect` is a key of EFFECTS.

    The tuned policy has rows of each training seed, whose mean empathy differs by `seed_sd`. Each
    conversation is on a story of its own, unless there are fewer `stories`.
    """
    rng = np.random.default_rng(seed)
    empathy_gain, similarity_gain = EFFECTS[effect]
    mood_C = rng.normal(0, 0.3, conversations)
    rows = []
    for p in range(prompts):
        c = p % conversations
        emotion = float(np.clip(np.round(rng.normal(2.3, 0.9) * 3) / 3, 0, 5))
        prompt = {
            "prompt_id": f"{c + 1}.{p // conversations + 2}",
            "conversation": str(c + 1),
            "story": f"article {c % (stories or conversations) + 1}",
            "turn": p // conversations + 2,
            "prompt": _UTTERANCES[p % len(_UTTERANCES)],
            "emotion": emotion,
            "polarity": 1.33,
            "empathy": 2.0,
        }
        difficulty = rng.normal(0, 0.3) + 0.1 * emotion
        for model in ("base", "warm_start", "tuned") if warm_start else ("base", "tuned"):
            for s, training_seed in enumerate(seeds if model == "tuned" else (None,)):
                shift = (0.0, 0.0)
                if model == "tuned":
                    # The seeds' own effects sum to 0, so that the gain stays the stated one.
                    shift = (mood_C[c] + empathy_gain + seed_sd * (s - (len(seeds) - 1) / 2), similarity_gain)
                for sample in range(samples):
                    response = _response(rng, model, sample, difficulty, shift)
                    rows.append({**prompt, **response, "seed": training_seed})
    return rows


def _response(rng: np.random.Generator, model: str, sample: int, difficulty: float, shift: tuple) -> dict:
    empathy = float(np.clip(1.7 + difficulty + shift[0] + rng.normal(0, 0.4), 0, 5))
    similarity = float(np.clip(0.45 + shift[1] + rng.normal(0, 0.1), 0, 1))
    formed = bool(model != "base" or rng.random() < 0.1)
    answer = _ANSWERS[int(rng.integers(len(_ANSWERS)))]
    reasoning = (
        "User's main concern: the family and the pipes\nEmotional content: sorrow, some anger\n"
        "Intensity level (0-5): 3\nResponse approach: Acknowledge and ask"
    )
    calibrated = [float(x) for x in 1 / (1 + np.exp(-rng.normal(0, 1.5, 4)))]
    return {
        "model": model,
        "sample": sample,
        "text": f"<reasoning>\n{reasoning}\n</reasoning>\n<answer>\n{answer}\n</answer>" if formed else answer,
        "reasoning": reasoning if formed else "",
        "answer": answer,
        "well_formed": formed,
        "stated_intensity": int(rng.integers(1, 5)) if formed else None,
        "stated_approach": "share the sadness" if formed else None,
        "answer_words": len(answer.split()),
        "overlap": float(rng.uniform(0, 0.5)),
        "distinct_2": float(rng.uniform(0.9, 1)),
        "prompt_tokens": 120,
        "completion_tokens": 70,
        "finish_reason": "stop",
        "empathy_raw": empathy,
        "empathy_batch": calibrated[0],
        "empathy_reference": calibrated[1],
        "semantic_similarity_raw": similarity,
        "semantic_similarity_batch": calibrated[2],
        "semantic_similarity_reference": calibrated[3],
        "combined_batch": (calibrated[0] + calibrated[2]) / 2,
        "combined_reference": float(1 / (1 + np.exp(-(empathy - 1.9) / 0.5 / 0.6))),
        "audit_empathy_raw": float(np.clip(1.8 + difficulty + 0.7 * shift[0] + rng.normal(0, 0.4), 0, 5)),
    }


def told_apart(rows: list[dict]) -> list[dict]:
    """Return the rows with the prompt's name in its message, and the policy's in its answers.

    So no text is given twice, as the made-up ones are.
    """
    rows = [dict(row) for row in rows]
    for row in rows:
        row["prompt"] += f" ({row['prompt_id']})"
        row["answer"] += f" ({row['model']} {row['seed']} {row['sample']})"
        row["text"] = row["answer"]
    return rows


def rate(
    rows: list[dict],
    sensible: float = 0.5,
    raters: tuple[str, ...] = ("A", "B"),
    kind: str = "model",
    pairs: bool = True,
    seed: int = 4,
) -> list[ratings.Rating]:
    """Make ratings of what is rated of a run: raters agree mostly, and prefer the tuned policy.

    Of single answers that share is sensible, up to rounding, in the mean over raters.
    """
    rng = np.random.default_rng(seed)
    items = rated_items.items(rows)
    found = []
    for rater in raters:
        for policy in ("base", "warm_start", "tuned"):
            of_policy = [item for item in items if item.policy == policy]
            for n, item in enumerate(of_policy):
                sense = 2 if n < round(sensible * len(of_policy)) else n % 2
                empathy = int(np.clip(2 + sense / 2 + rng.integers(-1, 3), 1, 5))
                found.append(ratings.Rating(rater, kind, "single", item.hash, None, None, sense, empathy))
        for pair in rated_items.pairs(items) if pairs else ():
            sides = [pair.start.hash, pair.tuned.hash]
            if rng.random() < 0.5:
                sides.reverse()
            better = "left" if sides[0] == pair.tuned.hash else "right"
            other = {"left": "right", "right": "left"}[better]
            choice = str(rng.choice([better, other, "both", "neither"], p=[0.7, 0.1, 0.1, 0.1]))
            found.append(ratings.Rating(rater, kind, "pair", *sides, choice, None, None))
    return found


def groups(
    steps: int = 10, prompts: int = 4, generations: int = 4, seed: int = 3, seeds: tuple[int, ...] = (23,)
) -> pd.DataFrame:
    """Make the raw scores of every training sample of each training seed."""
    rng = np.random.default_rng(seed)
    index = list(itertools.product(seeds, range(1, steps + 1), range(prompts), range(generations)))
    table = pd.DataFrame(index, columns=["seed", "step", "group", "sample"])
    level = np.repeat(rng.normal(0, 0.5, len(seeds) * steps * prompts), generations)
    table["empathy_raw"] = 1.9 + level + rng.normal(0, 0.4, len(table))
    table["semantic_similarity_raw"] = np.clip(0.4 + 0.2 * level + rng.normal(0, 0.1, len(table)), 0, 1)
    table["well_formed_raw"] = (rng.random(len(table)) < 0.95).astype(float)
    for term in ("length", "repetition", "overlap"):
        table[f"{term}_raw"] = np.clip(rng.normal(0.9, 0.1, len(table)), 0, 1)
    table["likelihood_raw"] = -1.2 + 0.1 * level + rng.normal(0, 0.3, len(table))
    table["polarity_match_raw"] = rng.uniform(0.5, 1.0, len(table))
    for term in ("reader_sense", "reader_empathy"):
        table[f"{term}_raw"] = rng.uniform(0.0, 1.0, len(table))
    for term in AROUND_ZERO:
        table[f"{term}_raw"] = rng.normal(0.0, 0.3, len(table))
    return table


def training_log(steps: int = 20, gain: float = 0.5, seed: int = 5, seeds: tuple[int, ...] = (23,)) -> pd.DataFrame:
    """Make the log of a training run of each training seed."""
    return pd.concat([_one_log(steps, gain, seed + s, training) for s, training in enumerate(seeds)])


def _one_log(steps: int, gain: float, seed: int, training_seed: int) -> pd.DataFrame:
    rng, step = np.random.default_rng(seed), np.arange(1, steps + 1)
    columns = {
        "loss": 0.0, "reward": 0.5, "reward_sd": 0.2, "empathy_raw": 1.9, "semantic_similarity_raw": 0.4,
        "empathy_reference": 0.5, "semantic_similarity_reference": 0.5, "combined_reference": 0.5,
        "empathy_batch": 0.5, "semantic_similarity_batch": 0.5, "well_formed": 0.9, "completion_tokens": 70.0,
        "clipped_ratio": 0.0, "entropy": 1.4, "grad_norm": 0.6, "learning_rate": 3e-4,
    }  # fmt: skip
    table = pd.DataFrame({name: value + 0.03 * rng.normal(size=steps) for name, value in columns.items()})
    table["empathy_raw"] += gain * step / steps
    table.insert(0, "step", step)
    table.insert(0, "seed", training_seed)
    table["kl"] = None
    return table


def write_reports(
    root: Path,
    effect: str = "gain",
    rows: list[dict] | None = None,
    warm_start: bool = True,
    seeds: tuple[int, ...] = (23,),
) -> None:
    """Write below `root` what the stages before analyse_rewards leave, and the files of bench/."""
    training = root / "reports/training"
    training.mkdir(parents=True)
    (root / "data/rollouts").mkdir(parents=True)
    rows = rollouts(effect, warm_start=warm_start, seeds=seeds) if rows is None else rows
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (root / "data/rollouts/rollouts.jsonl").write_text(lines, encoding="utf-8")
    training_log(gain=EFFECTS[effect][0], seeds=seeds).to_csv(training / "log.csv", index=False)
    groups(steps=20, seeds=seeds).to_csv(training / "groups.csv", index=False)
    index = pd.MultiIndex.from_product([seeds, range(1, 21)], names=["seed", "step"])
    timing = pd.DataFrame({"generation_s": 6.5, "reward_s": 1.0, "update_s": 8.5, "step_s": 16.0}, index=index)
    timing.reset_index().to_csv(training / "timing.csv", index=False)
    _json(
        training / "reference.json",
        {
            "empathy": {"mean": 1.9, "sd": 0.6},
            "likelihood": {"mean": -1.2, "sd": 0.3},
            "reader_sense": {"mean": 0.5, "sd": 0.3},
            "reader_empathy": {"mean": 0.5, "sd": 0.3},
            "semantic_similarity": {"mean": 0.4, "sd": 0.15},
            **{term: {"mean": 0.0, "sd": 0.3} for term in AROUND_ZERO},
        },
    )
    settings = {"parameters_trained": 9768960, "model": "smollm2-135m-instruct",
                "load_in_4bit": True, "dtype": "bfloat16", "device": "cpu", "completions_per_step": 16, "backend": "transformers"}  # fmt: skip
    _json(training / "settings.json", settings)
    enabled = {
        "enabled": True,
        "kept": False,
        "demonstrations": 128,
        "loss_first": 2.9,
        "loss_last": 1.2,
        "loss_validation": 1.4,
    }
    read = {name: {"share": 0.4, "auc": 0.7, "approach_auc": 0.6} for name in ("sensible", "empathetic")}
    approach = {
        "trained_on": 600,
        "approaches": 9,
        "averaged": 100,
        "commonest": "share the sadness",
        "validation": {"demonstrations": 60, "message": 0.4, "answer": 0.9},
    }
    reader = {"trained_on": 900, "validation": {"readings": 90, **read}, "approach": approach}
    _json(root / "reports/reader.json", reader)
    _json(root / "reports/warm_start.json", enabled if warm_start else {"enabled": False})
    _json(root / "reports/data.json", _data())
    _json(root / "reports/scorer.json", scorer())
    _json(root / "reports/baseline_comparison.json", {"state": "none"})
    (root / "bench").mkdir()
    _json(root / "bench/scorer.json", benchmark())
    _json(root / "bench/best_of.json", {})
    rng = np.random.default_rng(7)
    label = np.round(np.clip(rng.normal(2.1, 0.9, 250), 0, 5) * 3) / 3
    predictions = pd.DataFrame(
        {"conversation": np.arange(250) // 8, "turn": np.arange(250) % 8, "label_empathy": label}
    )
    predictions["predicted_empathy"] = 2.1 + 0.5 * (label - 2.1) + rng.normal(0, 0.4, 250)
    predictions["audit_empathy"] = 2.1 + 0.4 * (label - 2.1) + rng.normal(0, 0.4, 250)
    predictions.to_csv(root / "reports/scorer_predictions.csv", index=False)


def _data() -> dict:
    labels = {
        "emotion": {"n": 800, "mean": 2.2, "sd": 0.8, "missing": 0},
        "polarity": {"n": 800, "mean": 1.3, "sd": 0.6, "missing": 0},
        "empathy": {"n": 799, "mean": 2.1, "sd": 0.9, "missing": 1},
    }
    split = {"stories": 30, "conversations": 90, "turns": 800, "prompts": 700, "mean_words": 17.3, "labels": labels}
    return {
        "source": "embedded",
        "split": "by_story",
        "test_split": "marked",
        "dataset": "data/embedded",
        "splits": {"train": split, "validation": split, "test": split},
        "demonstrations": {"train": 180, "used": 128},
        "left_out": {"short": 31, "long": 2},
        "stories": 42,
        "shared_stories": 0,
    }


def scorer() -> dict:
    """Make the report on both scorers."""
    quality = {key: {"pearson": 0.61, "mae": 0.48} for key in ("emotion", "polarity", "empathy")}
    split = {"turns": 120, **quality, "mean_pearson": 0.61}
    one = {"train_turns": 500, "train_stories": 30, "train_conversations": 60, "validation": split, "test": split}
    one |= {"calibration": _calibration(), "stock_phrases": _stock_phrases()}
    agreement = {"pearson_empathy": 0.8, "mean_absolute_difference": 0.25, "mean_difference": 0.03}
    agreement |= {"limit_low": -0.58, "limit_high": 0.64}
    correlations = {"grouped": 0.61, "by_turn": 0.63, "difference": estimate(0.02, 0.03)}
    leak = {
        "train_turns": 500,
        "held_out_turns": 60,
        "held_out_conversations": 30,
        "held_out_stories": 15,
        "mean": correlations,
    }
    leak["labels"] = dict.fromkeys(("emotion", "polarity", "empathy"), correlations)
    return {"encoder": "all-minilm-l6-v2", "reward": one, "audit": one, "agreement": agreement, "leak": leak}


def benchmark() -> dict:
    """Make what the benchmark finds on the official WASSA files.

    The difference between its recipes is not clear.
    """

    def pearson(mean: float, reach: float) -> dict:
        return {name: estimate(mean, reach) for name in ("emotion", "polarity", "empathy", "mean")}

    folds = {name: {"pearson": pearson(mean, 0.02)} for name, mean in (("published", 0.71), ("long_context", 0.72))}
    folds["published"] |= {"less": "published", "difference": pearson(0.0, 0.0)}
    folds["long_context"] |= {"less": "published", "difference": pearson(0.01, 0.02)}
    return {
        "dev": {"recipe": "long_context", "pearson": pearson(0.66, 0.03), "resampled": "stories"},
        "folds": {"stories": folds},
        "test": {"recipe": "alone", "dev_mean": 0.64, "pearson": {"emotion": 0.6, "polarity": 0.65, "empathy": 0.55}},
    }


def estimate(value: float, reach: float | None) -> dict:
    """Make an estimate whose interval reaches so far to either side; None: it has no interval."""
    low, high = (None, None) if reach is None else (value - reach, value + reach)
    return {"estimate": value, "low": low, "high": high}


def _calibration() -> dict:
    def errors(groups: dict) -> list[dict]:
        return [{"group": name, "turns": 40, "bias": bias, "mae": 0.5} for name, bias in groups.items()]

    return {
        "slope": estimate(0.8, 0.3),
        "reliability": [
            {"turns": 50, "predicted": 1.0 + 0.5 * k, "labelled": estimate(1.2 + 0.4 * k, 0.2)} for k in range(5)
        ],
        "by_label": errors({"0": estimate(1.4, None), "1": estimate(0.6, 0.2), "2": estimate(0.1, 0.2)}),
        "by_words": errors({"3-9": estimate(0.2, 0.1), "10-14": estimate(0.0, 0.1), "15-40": estimate(-0.1, 0.2)}),
        "by_polarity": errors({"0": estimate(0.3, 0.4), "1": estimate(0.0, 0.1), "2": estimate(-0.1, 0.2)}),
    }


def _stock_phrases() -> dict:
    changes = {"change": estimate(0.4, 0.1), "control_change": estimate(-0.1, 0.1), "difference": estimate(0.5, 0.2)}
    pairs = (
        ("I'm so sorry to hear that.", "The bus leaves at nine today."),
        ("You are not alone.", "The shop opens early."),
    )
    return {"phrases": [{"phrase": one, "control": other} | changes for one, other in pairs], "mean": changes}


def _json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


class WordCounter:
    """Rate a text by its words, half a point for `sorry`, and a point for each turn of context."""

    def score(self, texts, contexts):
        empathy = [
            0.1 * len(text.split()) + 0.5 * ("sorry" in text) + len(context)
            for text, context in zip(texts, contexts, strict=True)
        ]
        return np.column_stack([np.zeros(len(texts)), np.zeros(len(texts)), empathy])
