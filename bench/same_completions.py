"""Both trainers on the same given completions: log-probabilities, loss, gradient and time."""

import time

import torch
from trl import GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from gpro_empathy import response_format
from timed_step import KINDS, Bench, Meter, Setting, make_trainer

# How far the log-probabilities of the sampling policy are put off, standard deviation in nats. Were
# they the policy's own, as in a training with one update per batch, the loss would not depend on
# the log-probabilities at all.
OFF_POLICY = 0.1


def compare(bench: Bench, setting: Setting, seed: int, rounds: int) -> dict:
    """Sample one batch with our trainer, give it to both, and return how far they differ.

    What differs are the results of the two trainers.

    The relative difference of the gradients is the norm of their difference over the norm of the
    stock trainer's.
    """
    trainers = {kind: make_trainer(kind, bench, setting, seed, Meter(None)) for kind in KINDS}
    inputs = _sampled(trainers["ours"], setting)
    parts = len(inputs["completion_ids"]) // setting.completions_per_forward
    logps = {kind: _log_probabilities(trainer, inputs, parts) for kind, trainer in trainers.items()}
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(logps["stock"].shape, generator=generator).to(logps["stock"].device)
    inputs["old_per_token_logps"] = logps["stock"] + OFF_POLICY * noise
    losses, gradients = {}, {}
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        for kind, trainer in trainers.items():
            started = time.perf_counter()
            losses[kind], gradients[kind] = _loss_and_gradient(trainer, inputs, parts)
            seconds[kind].append(time.perf_counter() - started)
            print(f"  same completions, {kind}: loss {losses[kind]:.9f}, {seconds[kind][-1]:.1f} s", flush=True)
    keep = inputs["completion_mask"].bool()
    apart = gradients["ours"] - gradients["stock"]
    return {
        "dtype": bench.dtype,
        "completions": len(keep),
        "completion_tokens": int(keep.sum()),
        "off_policy_sd": OFF_POLICY,
        "loss": losses,
        "largest_difference_of_log_probabilities": float((logps["ours"] - logps["stock"])[keep].abs().max()),
        "mean_difference_of_log_probabilities": float((logps["ours"] - logps["stock"])[keep].abs().mean()),
        "relative_difference_of_gradients": float(apart.norm() / gradients["stock"].norm()),
        "gradient_norm": float(gradients["stock"].norm()),
        "forward_backward_seconds": seconds,
    }


def _sampled(trainer: GRPOTrainer, setting: Setting) -> dict:
    trainer.model.train()
    rows = [
        {"prompt": response_format.messages(text)} for text in setting.prompts for _ in range(setting.num_generations)
    ]
    return trainer._generate_and_score_completions(rows)


@torch.no_grad()
def _log_probabilities(trainer: GRPOTrainer, inputs: dict, parts: int) -> torch.Tensor:
    logprobs = []
    for part in split_tensor_dict(inputs, parts):
        ids = torch.cat([part["prompt_ids"], part["completion_ids"]], dim=1)
        mask = torch.cat([part["prompt_mask"], part["completion_mask"]], dim=1)
        columns = part["completion_ids"].shape[1]
        logprobs.append(trainer._get_per_token_logps_and_entropies(_prepared(trainer), ids, mask, columns)[0])
    return torch.cat(logprobs).float()


def _loss_and_gradient(trainer: GRPOTrainer, inputs: dict, parts: int) -> tuple[float, torch.Tensor]:
    trainer.model.zero_grad()
    trainer.current_gradient_accumulation_steps = parts
    model, total = _prepared(trainer), 0.0
    for part in split_tensor_dict(inputs, parts):
        loss = trainer._compute_loss(model, part)
        loss.backward()
        total += loss.item()
    gradients = [p.grad.flatten().float() for p in trainer.model.parameters() if p.requires_grad]
    gradient = torch.cat(gradients)
    trainer.model.zero_grad()
    return total, gradient


def _prepared(trainer: GRPOTrainer) -> torch.nn.Module:
    """Return the model as training runs it: with the casts that the trainer's settings ask for."""
    return trainer.accelerator.prepare_model(trainer.model)
