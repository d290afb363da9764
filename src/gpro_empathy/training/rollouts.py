"""Rollouts: responses of each policy to the same test prompts, with every reward of every response."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gpro_empathy import files, params, response_format, rewards, text_measures
from gpro_empathy.data.dialogue import Turn
from gpro_empathy.files import UserError
from gpro_empathy.labels import EMPATHY, LABELS
from gpro_empathy.policy import loading, sampling, vllm_engine
from gpro_empathy.policy.cpu_decoder import decoder_of
from gpro_empathy.scorer import empathy_scorer


@dataclass(frozen=True)
class Sample:
    """One response of one policy; `seed` is the training seed of a tuned one, and None for the others."""

    turn: Turn
    model: str
    seed: int | None
    sample: int
    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str


def choose_prompts(turns: Sequence[Turn], config: params.Rollout) -> list[Turn]:
    """Choose config.prompts turns at random, in their own order.

    Raises:
        UserError: If there are fewer than two.
    """
    if len(turns) < 2:
        raise UserError(f"rollout: need at least 2 test prompts, got {len(turns)}; see reports/data.json")
    if len(turns) < config.prompts:
        print(f"rollout: {len(turns)} test prompts, fewer than rollout.prompts = {config.prompts}; all are used")
    order = np.random.default_rng(config.seed).permutation(len(turns))
    return [turns[i] for i in sorted(order[: config.prompts])]


def sample_policies(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    adapters: Mapping[tuple[str, int | None], Path],
    turns: Sequence[Turn],
    config: params.Rollout,
) -> list[Sample]:
    """Sample responses of the base model and of each adapter, {(policy, training seed): folder}.

    All policies get the same random numbers; the base model gives config.base_samples responses.
    """
    model: PreTrainedModel | PeftModel = base
    count = config.base_samples(("warm_start", None) in adapters)
    result = _sample(decoder_of(model.eval()), ("base", None), tokenizer, turns, config, count)
    for key, folder in adapters.items():
        name = label(*key)
        if isinstance(model, PeftModel):
            model.load_adapter(str(folder), adapter_name=name)
        else:
            model = PeftModel.from_pretrained(model, str(folder), adapter_name=name)
        model.set_adapter(name)
        result += _sample(decoder_of(model.eval()), key, tokenizer, turns, config, config.samples_per_prompt)
    return result


def sample_policies_by_vllm(
    engine,
    tokenizer: PreTrainedTokenizerBase,
    adapters: Mapping[tuple[str, int | None], Path],
    turns: Sequence[Turn],
    config: params.Rollout,
) -> list[Sample]:
    """Sample as `sample_policies` does, by a vllm.LLM that holds the base; the policies that are compared get the same seeds."""
    tokens = _tokens(tokenizer, turns)
    how = _sampling(tokenizer, config)
    result: list[Sample] = []
    for number, (key, folder) in enumerate([(("base", None), None), *adapters.items()]):
        request = vllm_engine.adapter_request(label(*key), number, folder) if folder else None
        rng = np.random.default_rng(config.seed)
        print(f"rollout {label(*key)}: {len(turns)} prompts by vLLM", flush=True)
        count = config.samples_per_prompt if folder else config.base_samples(("warm_start", None) in adapters)
        responses = vllm_engine.sample(engine.generate, tokens, count, how, rng, request)
        result += _samples(key, turns, tokens, responses, how, tokenizer)
    return result


def label(name: str, seed: int | None) -> str:
    """Return how a policy is called in messages and as an adapter."""
    return name if seed is None else f"{name}-{seed}"


def load_scorers(
    config: params.Rewards, own: Path, audit: Path, reference: Path
) -> tuple[rewards.RewardModel, empathy_scorer.Scorer | empathy_scorer.Ensemble]:
    """Load the reward model, with its own scorer and the training's reference statistics, and the scorer that audits it.

    Raises:
        UserError: If one of them is missing or cannot be loaded.
    """
    model = rewards.with_reference(rewards.load(config, own), files.read_json(reference))
    return model, empathy_scorer.load(audit)


def score(
    samples: Sequence[Sample], model: rewards.RewardModel, audit: empathy_scorer.Scorer | empathy_scorer.Ensemble
) -> list[dict]:
    """Return one row per response with all its scores; batch calibration is over each policy's responses."""
    rows: list[dict] = []
    for key in dict.fromkeys((sample.model, sample.seed) for sample in samples):
        own = [sample for sample in samples if (sample.model, sample.seed) == key]
        responses = [response_format.parse_response(sample.text) for sample in own]
        scores = model.score([sample.turn.text for sample in own], responses)
        contexts = [(sample.turn.text,) for sample in own]
        audit_B = audit.score([response.answer for response in responses], contexts)[:, EMPATHY]
        columns = {f"{term}_raw": values for term, values in scores.raw.items()}
        for term in model.reference:
            columns |= {f"{term}_batch": scores.batch[term], f"{term}_reference": scores.reference[term]}
        columns |= {"combined_batch": scores.combined_batch, "combined_reference": scores.combined_reference}
        columns["audit_empathy_raw"] = audit_B
        for index, (sample, response) in enumerate(zip(own, responses, strict=True)):
            row = _describe(sample, response)
            rows.append(row | {column: float(values[index]) for column, values in columns.items()})
    return rows


def _describe(sample: Sample, response: response_format.Response) -> dict:
    turn = sample.turn
    return {
        "prompt_id": turn.key,
        "conversation": turn.conversation,
        "turn": turn.turn,
        "prompt": turn.text,
        **{name: getattr(turn, name) for name in LABELS},
        "model": sample.model,
        "seed": sample.seed,
        "sample": sample.sample,
        "text": sample.text,
        "reasoning": response.reasoning,
        "answer": response.answer,
        "well_formed": response.well_formed,
        "stated_intensity": response.stated_intensity,
        "answer_words": len(response.answer.split()),
        "overlap": text_measures.overlap(turn.text, response.answer),
        "distinct_2": text_measures.distinct_n(response.answer, 2),
        "prompt_tokens": sample.prompt_tokens,
        "completion_tokens": sample.completion_tokens,
        "finish_reason": sample.finish_reason,
    }


def _tokens(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]) -> list[list[int]]:
    return [loading.prompt_ids(tokenizer, response_format.messages(turn.text)) for turn in turns]


def _sampling(tokenizer: PreTrainedTokenizerBase, config: params.Rollout) -> sampling.Sampling:
    return sampling.sampling(tokenizer, config.max_completion_tokens, config.temperature, config.top_p)


def _sample(model, key, tokenizer, turns, config, count) -> list[Sample]:
    tokens, how = _tokens(tokenizer, turns), _sampling(tokenizer, config)
    rng = np.random.default_rng(config.seed)
    uniform = torch.from_numpy(rng.random((len(turns), config.samples_per_prompt, how.max_tokens))[:, :count])
    result: list[Sample] = []
    started = time.perf_counter()
    for start in range(0, len(turns), config.batch_size):
        part = slice(start, start + config.batch_size)
        responses = sampling.decode(model, tokens[part], count, how, uniform[part].reshape(-1, how.max_tokens))
        result += _samples(key, turns[part], tokens[part], responses, how, tokenizer)
        done = min(start + config.batch_size, len(turns))
        left = (time.perf_counter() - started) / done * (len(turns) - done)
        print(f"rollout {label(*key)}: {done}/{len(turns)} prompts, {left:.0f} s left", flush=True)
    return result


def _samples(key, turns, tokens, responses, how: sampling.Sampling, tokenizer) -> list[Sample]:
    """Describe responses, as many to each turn, turn by turn."""
    result = []
    for index, ids in enumerate(responses):
        row, number = divmod(index, len(responses) // len(turns))
        text = tokenizer.decode(ids, skip_special_tokens=True)
        # vLLM may stop at an end token of the model's that is not the tokenizer's.
        finish = "length" if len(ids) == how.max_tokens and ids[-1] not in how.eos_ids else "stop"
        result.append(Sample(turns[row], *key, number, text, len(tokens[row]), len(ids), finish))
    return result
