"""Rollouts: responses of each policy to the same test prompts.

Every response stands with every reward.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gpro_empathy import files, params, response_format, rewards, text_measures
from gpro_empathy.data.dialogue import Turn
from gpro_empathy.files import UserError
from gpro_empathy.labels import EMPATHY, LABELS
from gpro_empathy.policy import loading, sampling, vllm_engine
from gpro_empathy.policy.decoding import DecoderSampler
from gpro_empathy.policy.sampling import Sampler
from gpro_empathy.scorer import empathy_scorer, kinds


@dataclass(frozen=True)
class Sample:
    """One response of one policy.

    `seed` is the training seed of a tuned one, and None for the others.
    """

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
    sampler_of: Callable[[str, Path | None], Sampler],
    tokenizer: PreTrainedTokenizerBase,
    adapters: Mapping[tuple[str, int | None], Path],
    turns: Sequence[Turn],
    config: params.Rollout,
) -> list[Sample]:
    """Sample responses of the base model and of each adapter, {(policy, training seed): folder}.

    All policies get the same random numbers. A base model that was warm-started is described and
    not compared: it gives one response to a prompt, and config.samples_per_prompt only where it is
    the starting policy itself.

    Args:
        sampler_of: Gives the sampler of an adapter by its label and folder, which is None for the
            base: `LocalPolicies`, or `VllmPolicies`.
    """
    policies = [(("base", None), None), *adapters.items()]
    result: list[Sample] = []
    for key, folder in policies:
        count = config.samples_per_prompt if folder else config.base_samples(("warm_start", None) in adapters)
        result += _sample(sampler_of(label(*key), folder), key, tokenizer, turns, config, count)
    return result


class LocalPolicies:
    """Samplers of policies that share one base model in this process.

    Each is good until the next is asked for.
    """

    def __init__(self, base: PreTrainedModel, config: params.Rollout) -> None:
        self._model: PreTrainedModel | PeftModel = base
        self._drawn_per_prompt = config.samples_per_prompt

    def __call__(self, name: str, adapter: Path | None) -> Sampler:
        """Return the sampler of an adapter, or of the base, which must come first."""
        if isinstance(self._model, PeftModel):
            self._model.load_adapter(str(adapter), adapter_name=name)
            self._model.set_adapter(name)
        elif adapter is not None:
            self._model = PeftModel.from_pretrained(self._model, str(adapter), adapter_name=name)
            self._model.set_adapter(name)
        return DecoderSampler(self._model.eval(), self._drawn_per_prompt)


class VllmPolicies:
    """Samplers of policies whose base a vllm.LLM holds, with the adapters as LoRA requests."""

    def __init__(self, engine, config: params.Rollout) -> None:
        self._engine, self._adapters = engine, 0
        self._drawn_per_prompt = config.samples_per_prompt

    def __call__(self, name: str, adapter: Path | None) -> Sampler:
        """Return the sampler of an adapter, or of the base."""
        request = None
        if adapter is not None:
            self._adapters += 1
            request = vllm_engine.adapter_request(name, self._adapters, adapter)
        return vllm_engine.VllmSampler(self._engine.generate, request, self._drawn_per_prompt)


def label(name: str, seed: int | None) -> str:
    """Return how a policy is called in messages and as an adapter."""
    return name if seed is None else f"{name}-{seed}"


def load_scorers(
    config: params.Rewards, folder: Path, audit: Path, reference: Path, start: rewards.StartingPolicy
) -> tuple[rewards.RewardModel, empathy_scorer.Rater]:
    """Load the reward model, and the scorer that audits it.

    The reward model has its own scorer and the training's reference statistics.

    Raises:
        UserError: If one of them is missing or cannot be loaded.
    """
    model = rewards.with_reference(rewards.load(config, folder, start), files.read_json(reference))
    return model, kinds.load(audit)


def score(samples: Sequence[Sample], model: rewards.RewardModel, audit: empathy_scorer.Rater) -> list[dict]:
    """Return one row per response with all its scores.

    Batch calibration is over each policy's responses.
    """
    rows: list[dict] = []
    for key in dict.fromkeys((sample.model, sample.seed) for sample in samples):
        of_policy = [sample for sample in samples if (sample.model, sample.seed) == key]
        responses = [response_format.parse_response(sample.text) for sample in of_policy]
        scores = model.score([sample.turn.text for sample in of_policy], responses)
        contexts = [(sample.turn.text,) for sample in of_policy]
        audit_B = audit.score([response.answer for response in responses], contexts)[:, EMPATHY]
        columns = {f"{term}_raw": values for term, values in scores.raw.items()}
        for term in model.reference:
            columns |= {f"{term}_batch": scores.batch[term], f"{term}_reference": scores.reference[term]}
        columns |= {"combined_batch": scores.combined_batch, "combined_reference": scores.combined_reference}
        columns["audit_empathy_raw"] = audit_B
        for index, (sample, response) in enumerate(zip(of_policy, responses, strict=True)):
            row = _describe(sample, response)
            rows.append(row | {column: float(values[index]) for column, values in columns.items()})
    return rows


def _describe(sample: Sample, response: response_format.Response) -> dict:
    turn = sample.turn
    return {
        "prompt_id": turn.key,
        "story": turn.story,
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
        "stated_approach": response.stated_approach,
        "answer_words": len(response.answer.split()),
        "overlap": text_measures.overlap(turn.text, response.answer),
        "distinct_2": text_measures.distinct_n(response.answer, 2),
        "prompt_tokens": sample.prompt_tokens,
        "completion_tokens": sample.completion_tokens,
        "finish_reason": sample.finish_reason,
    }


def _sample(
    sampler: Sampler,
    key: tuple[str, int | None],
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[Turn],
    config: params.Rollout,
    count: int,
) -> list[Sample]:
    prompts = [loading.prompt_ids(tokenizer, response_format.messages(turn.text)) for turn in turns]
    how = sampling.for_tokenizer(tokenizer, config.max_completion_tokens, config.temperature, config.top_p)
    rng = np.random.default_rng(config.seed)
    # vLLM makes batches by itself.
    batch_size = len(turns) if config.engine == "vllm" else config.batch_size
    result: list[Sample] = []
    started = time.perf_counter()
    for start in range(0, len(turns), batch_size):
        part = slice(start, start + batch_size)
        responses = sampler.sample(prompts[part], count, how, rng)
        result += samples(key, turns[part], prompts[part], responses, how, tokenizer)
        done = min(start + batch_size, len(turns))
        left = (time.perf_counter() - started) / done * (len(turns) - done)
        print(f"rollout {label(*key)}: {done}/{len(turns)} prompts, {left:.0f} s left", flush=True)
    return result


def samples(
    key: tuple[str, int | None],
    turns: Sequence[Turn],
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    how: sampling.Sampling,
    tokenizer: PreTrainedTokenizerBase,
) -> list[Sample]:
    """Describe the responses of a policy, as many to each turn, turn by turn.

    Args:
        prompts, responses: Their token ids, ragged.
    """
    result = []
    for index, ids in enumerate(responses):
        row, number = divmod(index, len(responses) // len(turns))
        text = tokenizer.decode(ids, skip_special_tokens=True)
        # vLLM may stop at an end token of the model's that is not the tokenizer's.
        finish = "length" if len(ids) == how.max_tokens and ids[-1] not in how.eos_ids else "stop"
        result.append(Sample(turns[row], *key, number, text, len(prompts[row]), len(ids), finish))
    return result
