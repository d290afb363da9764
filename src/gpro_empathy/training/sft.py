"""Supervised training of the policy on demonstrations: the loss counts the response's tokens alone.

The demonstrations of an update share the tokens of the system prompt, which are run once (module
`packed_logprobs`).
"""

import time
from collections.abc import Sequence

import numpy as np
import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gpro_empathy import model_card, params
from gpro_empathy import response_format as chat
from gpro_empathy.files import UserError
from gpro_empathy.policy import loading, packed_logprobs

# Demonstrations in one forward pass: bounds memory, changes no number.
EXAMPLES_PER_FORWARD = 8
# Updates over which the learning rate rises to its peak, before it falls linearly to 0, as Adam
# takes its largest steps when it knows least; and the norm to which the gradient is clipped.
WARMUP_UPDATES = 10
MAX_GRAD_NORM = 1.0


def train(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    demonstrations: Sequence[dict],
    config: params.WarmStart,
    policy_config: params.Policy,
) -> tuple[PeftModel, list[float]]:
    """Train new LoRA matrices on demonstrations, {"utterance", "response"} each.

    Returns:
        The model, and the mean loss (nats per response token) of every update.

    Raises:
        UserError: If there are no demonstrations.
    """
    if not demonstrations:
        raise UserError(
            "warm_start: no demonstration belongs to a training conversation; set warm_start.enabled to false"
        )
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    model = loading.add_lora(base, policy_config, None)
    model.train()
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=config.learning_rate)
    chosen = rng.permutation(len(demonstrations))[: config.demonstrations]
    examples = [_tokens(tokenizer, demonstrations[i]) for i in chosen]
    batches = [
        order[i : i + config.batch_size]
        for order in (rng.permutation(len(examples)) for _ in range(config.epochs))
        for i in range(0, len(examples), config.batch_size)
    ]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: _share_of_peak(done, len(batches)))
    losses: list[float] = []
    started = time.perf_counter()
    for number, rows in enumerate(batches, start=1):
        optimizer.zero_grad()
        losses.append(_accumulate(model.get_base_model(), [examples[i] for i in rows]))
        nn.utils.clip_grad_norm_(trainable, MAX_GRAD_NORM)
        optimizer.step()
        schedule.step()
        left = (time.perf_counter() - started) / number * (len(batches) - number)
        print(f"warm start: update {number}/{len(batches)}, loss {losses[-1]:.3f}, {left:.0f} s left", flush=True)
    return model, losses


def summary(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, losses: Sequence[float], held_out: Sequence[dict]
) -> dict:
    """Return {"losses": ...}: of the first and last update, and on demonstrations of other stories.

    All are means in nats per response token; `validation` is None where there are no such
    demonstrations.
    """
    found = mean_loss(model, tokenizer, held_out) if held_out else None
    return {"losses": {"loss_first": losses[0], "loss_last": losses[-1], "loss_validation": found}}


@torch.no_grad()
def mean_loss(model: PeftModel, tokenizer: PreTrainedTokenizerBase, demonstrations: Sequence[dict]) -> float:
    """Return the mean loss on demonstrations, nats per response token."""
    model.eval()
    examples = [_tokens(tokenizer, demonstration) for demonstration in demonstrations]
    parts = [examples[i : i + EXAMPLES_PER_FORWARD] for i in range(0, len(examples), EXAMPLES_PER_FORWARD)]
    total = sum(_summed_loss(model.get_base_model(), part).item() for part in parts)
    return total / sum(len(response) for _, response in examples)


def card(policy_config: params.Policy, config: params.WarmStart, losses: Sequence[float]) -> str:
    """Return the adapter's model card."""
    return model_card.render(
        f"Warm start of {policy_config.model}",
        f"LoRA of rank {policy_config.lora_rank}, trained on up to {config.demonstrations} synthetic demonstrations of the "
        f"response format ({config.epochs} epochs, learning rate {config.learning_rate:g}); loss from {losses[0]:.3f} to "
        f"{losses[-1]:.3f} nats per token. {model_card.POLICY_LIMITS}",
    )


def _share_of_peak(done: int, updates: int) -> float:
    """Return the share of the peak learning rate after `done` updates of `updates`."""
    rise = min(WARMUP_UPDATES, updates)
    return (done + 1) / rise if done < rise else (updates - done) / (updates - rise + 1)


def _tokens(tokenizer: PreTrainedTokenizerBase, demonstration: dict) -> tuple[list[int], list[int]]:
    prompt = loading.prompt_ids(tokenizer, chat.messages(demonstration["utterance"]))
    response = tokenizer(demonstration["response"], add_special_tokens=False)["input_ids"]
    return prompt, [*response, tokenizer.eos_token_id]


def _accumulate(model: PreTrainedModel, examples: Sequence[tuple[list[int], list[int]]]) -> float:
    """Add the gradient of the mean loss of an update, part by part, and return the loss."""
    tokens = sum(len(response) for _, response in examples)
    total = 0.0
    for start in range(0, len(examples), EXAMPLES_PER_FORWARD):
        loss = _summed_loss(model, examples[start : start + EXAMPLES_PER_FORWARD]) / tokens
        loss.backward()
        total += loss.item()
    return total


def _summed_loss(model: PreTrainedModel, examples: Sequence[tuple[list[int], list[int]]]) -> torch.Tensor:
    shared = chat.shared_prefix([prompt for prompt, _ in examples])
    packing = packed_logprobs.pack(
        [prompt[:shared] for prompt, _ in examples],
        [prompt[shared:] + response for prompt, response in examples],
        starts=[len(prompt) - shared for prompt, _ in examples],
    )
    with loading.autocast(model):
        logits_MV = packed_logprobs.logits(model, packing)
    return nn.functional.cross_entropy(logits_MV.float(), packing.target_M.to(logits_MV.device), reduction="sum")
