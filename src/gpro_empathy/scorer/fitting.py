"""Train the empathy scorer on standardised labels, on turns of similar length at a time.

The loss is Huber's, after the published design.
"""

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from gpro_empathy import params
from gpro_empathy.data.dialogue import COLUMNS, Turn
from gpro_empathy.files import UserError
from gpro_empathy.labels import EMPATHY, LABELS
from gpro_empathy.scorer import empathy_scorer

SECONDS_BETWEEN_LINES = 20
# Settings that a trained scorer's provenance states.
RECIPE = ("layers", "epochs", "learning_rate", "head_learning_rate", "batch_size", "lora_rank")


def disjoint_halves(turns: Sequence[Turn], config: params.TrainScorer) -> dict[str, list[Turn]]:
    """Divide training turns by story between the reward's scorer and the audit's.

    The audit's gets two stories at least, as its penalty is chosen over stories.

    Raises:
        UserError: If there are fewer than three stories.
    """
    stories = sorted({turn.story for turn in turns})
    if len(stories) < 3:
        raise UserError(
            "train_scorer: need at least 3 training stories (conversations, where the data name none) for two scorers, "
            f"got {len(stories)}"
        )
    order = np.random.default_rng(config.seed).permutation(len(stories))
    size = min(max(2, round(config.audit_fraction * len(stories))), len(stories) - 1)
    audit = {stories[i] for i in order[:size]}
    return {
        "reward": [turn for turn in turns if turn.story not in audit],
        "audit": [turn for turn in turns if turn.story in audit],
    }


def labelled(turns: Sequence[Turn]) -> tuple[list[Turn], np.ndarray]:
    """Return the turns that carry a label, and their labels, shape (B, 3).

    A missing label is NaN.

    Raises:
        UserError: If no turn carries a label, none carries empathy, or a label has no spread.
    """
    turns = [turn for turn in turns if any(getattr(turn, name) is not None for name in LABELS)]
    if not turns:
        raise UserError("train_scorer: no training turn carries a label")
    targets_B3 = np.array([[getattr(turn, name) for name in LABELS] for turn in turns], float)  # None becomes NaN
    for name, target_B in zip(LABELS, targets_B3.T, strict=True):
        known = target_B[~np.isnan(target_B)]
        column = COLUMNS[name]
        if name == LABELS[EMPATHY] and not len(known):
            raise UserError(f"train_scorer: no training turn carries {column}, which the reward is learned from")
        if len(known) and (known == known[0]).all():
            raise UserError(
                f"train_scorer: {column} is {known[0]:g} in each of the {len(known)} training turns that carry it, so "
                "nothing can be learned; give labels that differ, or NULL in every turn to leave it out"
            )
    return turns, targets_B3


def train(
    turns: Sequence[Turn],
    config: params.TrainScorer,
    *,
    seed: int,
    bfloat16: bool = False,
    progress: Callable[[str], None] = print,
) -> empathy_scorer.Scorer:
    """Train a scorer on turns that carry at least one label.

    Missing labels do not count in the loss.

    A label that no turn carries is not learned: the scorer's values of it are NaN.

    Args:
        bfloat16: As `fit`.

    Raises:
        UserError: As `labelled`.
    """
    turns, labels_B3 = labelled(turns)
    torch.manual_seed(seed)
    model = empathy_scorer.build(config)
    texts, contexts = [turn.text for turn in turns], [turn.context for turn in turns]
    fit(model, texts, contexts, labels_B3, config, seed, progress, bfloat16=bfloat16)
    return model


def describe(turns: Sequence[Turn], config: params.TrainScorer, *, seed: int) -> dict:
    """Return what `empathy_scorer.save` stores of a training.

    That is the encoder, what it reads, and how it was trained on what.
    """
    return {
        **{name: getattr(config, name) for name in ("encoder", "revision", "max_tokens", "context_turns")},
        "training": {
            **{name: getattr(config, name) for name in RECIPE},
            "turns": len(turns),
            "conversations": len({turn.conversation for turn in turns}),
            "seed": seed,
        },
    }


def fit(
    model: empathy_scorer.Scorer,
    texts: Sequence[str],
    contexts: Sequence[Sequence[str]],
    labels_BL: np.ndarray,
    config: params.TrainScorer,
    seed: int,
    progress: Callable[[str], None] = print,
    name: str = "scorer",
    bfloat16: bool = False,
) -> None:
    """Train a built scorer on the labels of texts, each read after its context.

    Args:
        labels_BL: In label units, in the order of the model's labels; NaN where missing.
        name: What the progress lines call it.
        bfloat16: Whether training multiplies in bfloat16, which takes about half the time where the
            processor does it itself. The weights are float32 all the same.
    """
    targets_BL = torch.tensor(labels_BL, dtype=torch.float32, device=model.head.weight.device)
    known_L = ~targets_BL.isnan().all(0)
    model.label_mean.copy_(targets_BL.nanmean(0).nan_to_num(0.0))
    model.label_sd.copy_(((targets_BL - model.label_mean) ** 2).nanmean(0).sqrt().nan_to_num(1.0))
    windows, rng = model.encode(texts, contexts), np.random.default_rng(seed)
    # An update takes as many windows as hold about batch_size rated turns; without context a window
    # is one turn.
    windows_per_update = max(1, round(config.batch_size * len(windows) / len(texts)))
    lengths = [window.tokens for window in windows]
    total = config.epochs * -(-len(windows) // windows_per_update)
    warmup = max(1, round(config.warmup_fraction * total))
    encoder = [weights for weights in model.encoder.parameters() if weights.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": encoder, "lr": config.learning_rate},
            {"params": model.head.parameters(), "lr": config.head_learning_rate},
        ]
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (total - step) / max(1, total - warmup))
    )
    model.train()
    started = told = time.perf_counter()
    done = 0
    for epoch in range(config.epochs):
        losses = []
        for chosen in _shuffled_batches(lengths, windows_per_update, rng):
            loss = _loss(model, model.collate([windows[i] for i in chosen]), targets_BL, config, bfloat16)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            done += 1
            now = time.perf_counter()
            if now - told > SECONDS_BETWEEN_LINES or done == total * (epoch + 1) // config.epochs:
                told, left = now, (now - started) / done * (total - done)
                progress(f"{name}: epoch {epoch + 1} of {config.epochs}, loss {np.mean(losses):.4f}, {left:.0f} s left")
    model.label_mean[~known_L] = torch.nan


def _loss(model, batch, targets_BL, config, bfloat16) -> torch.Tensor:
    target_BL = (targets_BL[batch.rows] - model.label_mean) / model.label_sd
    with torch.autocast(batch.ids_BT.device.type, torch.bfloat16, enabled=bfloat16):
        predicted_BL = model(batch)
    # Delta is stated in label units; targets are standardised.
    return huber(predicted_BL, target_BL, config.huber_delta / model.label_sd)


def huber(predicted_BL: torch.Tensor, target_BL: torch.Tensor, delta_L: torch.Tensor) -> torch.Tensor:
    """Return Huber's loss, averaged over all B x L places.

    A missing target (NaN) counts as no error.
    """
    error_BL = torch.where(target_BL.isnan(), 0.0, predicted_BL - target_BL)
    size_BL = error_BL.abs()
    return torch.where(size_BL <= delta_L, 0.5 * error_BL**2, delta_L * (size_BL - 0.5 * delta_L)).mean()


def _shuffled_batches(lengths: Sequence[int], batch_size: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """Yield batches in random order, of windows of similar length.

    Padding to one length triples the time.
    """
    jittered = np.array(lengths) * rng.uniform(0.8, 1.2, len(lengths))
    order = np.argsort(jittered, kind="stable")
    batches = [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]
    for i in rng.permutation(len(batches)):
        yield batches[i]
