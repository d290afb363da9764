"""The model card of a scorer, from its settings and its measured accuracy alone."""

from collections.abc import Mapping

from gpro_empathy.data.dialogue import COLUMNS, LABELS, RANGES

ROLES = {
    "reward": "It rewards the responses of a policy in training.",
    "audit": "It only audits: no training of a policy sees it, and it learned from other conversations than the reward's.",
}

TRAINED = {
    True: "LoRA matrices and a linear head on the encoder {encoder}, which is not in this folder.",
    False: "The encoder {encoder}, its blocks trained further, and a linear head.",
}


def write(settings: Mapping, report: Mapping) -> str:
    """Return the card as Markdown.

    Args:
        settings: What scorer.json will hold: encoder, revision, max_tokens, context_turns, role and training.
        report: The scorer's part of the report, as `scorer_report.compare` gives it.
    """
    training, turns = settings["training"], settings["context_turns"]
    context = (
        f"after {turns} or more earlier turns of its conversation, where there are so many and they have room"
        if turns
        else "by itself, without its conversation"
    )
    encoder = settings["encoder"] + (f" at {settings['revision']}" if settings["revision"] else "")
    encoder += f" (its first {training['layers']} layers)" if training["layers"] else ""
    ranges = ", ".join(f"{COLUMNS[name]} ({RANGES[name][0]:g} to {RANGES[name][1]:g})" for name in LABELS)
    lines = [
        "# Empathy scorer",
        "",
        f"Rates a turn of a conversation, {context}: {ranges}. {ROLES[settings['role']]}",
        "",
        f"{TRAINED[bool(settings['training']['lora_rank'])].format(encoder=encoder)} Texts are normalised and cut to "
        f"{settings['max_tokens']} tokens.",
        "",
        f"Trained on {training['turns']} turns of {training['conversations']} conversations: epochs {training['epochs']}, "
        f"learning rates {training['learning_rate']:g} (encoder) and {training['head_learning_rate']:g} (head), batches "
        f"of {training['batch_size']}, seed {training['seed']}.",
        "",
        "Accuracy on held-out turns: Pearson correlation with the labels, and mean absolute error in label units.",
        "",
        "| split | turns | " + " | ".join(f"{COLUMNS[name]} r | error" for name in LABELS) + " | mean r |",
        "|---" * (3 + 2 * len(LABELS)) + "|",
        *(_row(split, report[split]) for split in ("validation", "test")),
        "",
        *_diagnostics(report),
        "",
        "A score says how people who rated such turns would have rated this one. It is not empathy, and not for use with "
        "people in distress.",
    ]
    return "\n".join(lines) + "\n"


def _diagnostics(report: Mapping) -> list[str]:
    """Return the headlines of the diagnostics: slope, and the reaction to stock phrases."""
    slope, changes = report["calibration"]["slope"], report["stock_phrases"]["mean"]
    return [
        "On the test turns, with 95 % intervals over conversations where there are enough of them:",
        "",
        f"- slope of labelled on predicted empathy (1: calibrated): {_estimate(slope)}",
        '- a stock phrase, such as "I\'m so sorry to hear that.", appended to any turn changes its Empathy by '
        f"{_estimate(changes['change'])} on average, a neutral sentence by {_estimate(changes['control_change'])}",
    ]


def _estimate(found: Mapping) -> str:
    interval = "" if found["low"] is None else f" [{found['low']:.2f}, {found['high']:.2f}]"
    return "not defined" if found["estimate"] is None else f"{found['estimate']:.2f}{interval}"


def _row(split: str, found: Mapping) -> str:
    cells = [split, str(found["turns"])]
    for name in LABELS:
        cells += [_number(found[name]["pearson"]), _number(found[name]["mae"])]
    return "| " + " | ".join([*cells, _number(found["mean_pearson"])]) + " |"


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"
