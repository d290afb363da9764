"""The model card of a scorer, from its settings alone.

How accurate it is stands in reports/scorer.json, which is measured once it is trained.
"""

from collections.abc import Mapping

from gpro_empathy import model_card
from gpro_empathy.data.dialogue import COLUMNS, RANGES
from gpro_empathy.labels import LABELS

ROLES = {
    "reward": "It rewards the responses of a policy in training.",
    "audit": "It only audits: no training of a policy sees it, and it learned from other conversations than the reward's.",
}
TRAINED = {
    True: "LoRA matrices and a linear head on the encoder {encoder}, which is not in this folder.",
    False: "The encoder {encoder}, its blocks trained further, and a linear head.",
}


def write(settings: Mapping) -> str:
    """Return the card as Markdown.

    Args:
        settings: What scorer.json will hold: encoder, revision, max_tokens, context_turns, role and
            training.
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
    return model_card.render(
        "Empathy scorer",
        f"Rates a turn of a conversation, {context}: {ranges}. {ROLES[settings['role']]}",
        f"{TRAINED[bool(training['lora_rank'])].format(encoder=encoder)} Texts are normalised and cut to "
        f"{settings['max_tokens']} tokens.",
        f"Trained on {training['turns']} turns of {training['conversations']} conversations: epochs {training['epochs']}, "
        f"learning rates {training['learning_rate']:g} (encoder) and {training['head_learning_rate']:g} (head), batches "
        f"of {training['batch_size']}, seed {training['seed']}.",
        "Its accuracy on held-out turns, its calibration and how it reacts to stock phrases stand under "
        f"`{settings['role']}` in reports/scorer.json of the run that trained it.",
        model_card.SCORER_LIMITS,
    )
