"""The model card of a scorer, from its settings alone.

How accurate it is stands in reports/scorer.json, which is measured once it is trained.
"""

from collections.abc import Mapping, Sequence

from gpro_empathy import model_card
from gpro_empathy.data.dialogue import COLUMNS, RANGES
from gpro_empathy.labels import LABELS

TRAINED = {
    True: "LoRA matrices and a linear head on the encoder {encoder}, which is not in this folder.",
    False: "The encoder {encoder}, its blocks trained further, and a linear head.",
}
MEASURED = (
    "Its accuracy on held-out turns, its calibration and how it reacts to stock phrases stand under `{role}` in "
    "reports/scorer.json of the run that trained it."
)


def write(settings: Mapping) -> str:
    """Return the card of the reward's scorer as Markdown.

    Args:
        settings: What scorer.json will hold: encoder, revision, max_tokens, context_turns and
            training.
    """
    training, turns = settings["training"], settings["context_turns"]
    context = (
        f"after {turns} or more earlier turns of its conversation, where there are so many and they have room"
        if turns
        else "by itself, without its conversation"
    )
    return model_card.render(
        "Empathy scorer",
        f"Rates a turn of a conversation, {context}: {_ranges()}. It rewards the responses of a policy in training.",
        f"{_trained(settings)} Texts are normalised and cut to {settings['max_tokens']} tokens.",
        f"Trained on {training['turns']} turns of {training['conversations']} conversations: {_recipe(training)}.",
        MEASURED.format(role="reward"),
        model_card.SCORER_LIMITS,
    )


def write_lexical(settings: Mapping) -> str:
    """Return the card of the held-out scorer as Markdown.

    Args:
        settings: What scorer.json will hold: training.
    """
    training = settings["training"]
    penalties = ", ".join(f"{COLUMNS[name]} {penalty:g}" for name, penalty in training["penalties"].items())
    return model_card.render(
        "Held-out empathy scorer",
        f"Rates a turn of a conversation, by itself, without its conversation: {_ranges()}. It only audits: no training of "
        "a policy sees it, it is another kind than the reward's scorer, and it learned from other stories.",
        f"A linear model of {training['features']} features: TF-IDF weights of words, pairs of words and pieces of words, "
        "valence by the lexicon of VADER (package vaderSentiment, MIT licence), shares of words for each person, length, "
        "question and exclamation marks. No encoder has a part in it.",
        f"Trained on {training['turns']} turns of {training['conversations']} conversations about {training['stories']} "
        f"stories by ridge regression, the penalty of each label chosen by cross-validation over stories: {penalties}.",
        MEASURED.format(role="audit"),
        model_card.SCORER_LIMITS,
    )


def write_reader(settings: Mapping) -> str:
    """Return the card of the reader model as Markdown; the settings are as for `write`."""
    training = settings["training"]
    return model_card.render(
        "Reader model",
        "Rates an answer to a message as a reader would: its sense from 0 (nonsense) to 2 (a sensible reply), and whether it "
        "is empathetic (0 or 1). It rewards the responses of a policy in training.",
        f"{_trained(settings)} It reads the message and then the answer, normalised and cut to {settings['max_tokens']} tokens.",
        f"Trained on {training['readings']} readings of answers to {training['messages']} messages, by a language model: "
        f"{_recipe(training)}.",
        "How well it tells answers apart that were read stands in reports/reader.json of the run that trained it.",
        "A mark says how that reader would have marked the answer, and shares the reader's blind spots. It is not empathy, "
        "and not for use with people in distress.",
    )


def write_approach(names: Sequence[str], demonstrations: int) -> str:
    """Return the card of the approach model as Markdown.

    Args:
        names: The approaches that it knows.
        demonstrations: How many it learned from.
    """
    return model_card.render(
        "Approach model",
        'Says how likely it is that a message and an answer are of one approach, such as "share the sadness". It rewards '
        "the responses of a policy in training.",
        "Two linear models, of the message and of the answer, on TF-IDF weights of words, pairs of words and pieces of words, "
        "valence by the lexicon of VADER (package vaderSentiment, MIT licence), and a few measures of style.",
        f"Trained on {demonstrations} demonstrations by multinomial logistic regression. It knows {len(names)} approaches: "
        f"{', '.join(names)}.",
        "How often it finds the approach of a demonstration that it did not see, and how well it tells apart answers that were "
        "read, stands in reports/reader.json of the run that trained it.",
        "It knows words, and no message: an answer of the right kind that says something wrong has a high score. It is not "
        "for use with people in distress.",
    )


def _trained(settings: Mapping) -> str:
    """Say what was trained on which encoder."""
    training = settings["training"]
    encoder = settings["encoder"] + (f" at {settings['revision']}" if settings["revision"] else "")
    encoder += f" (its first {training['layers']} layers)" if training["layers"] else ""
    return TRAINED[bool(training["lora_rank"])].format(encoder=encoder)


def _recipe(training: Mapping) -> str:
    return (
        f"epochs {training['epochs']}, learning rates {training['learning_rate']:g} (encoder) and "
        f"{training['head_learning_rate']:g} (head), batches of {training['batch_size']}, seed {training['seed']}"
    )


def _ranges() -> str:
    return ", ".join(f"{COLUMNS[name]} ({RANGES[name][0]:g} to {RANGES[name][1]:g})" for name in LABELS)
