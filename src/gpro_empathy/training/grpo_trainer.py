"""Group Relative Policy Optimization of the policy.

The method is that of Shao et al. 2024, DeepSeekMath, arXiv:2402.03300.

TRL's GRPOTrainer computes advantages and loss. `GroupTrainer` replaces its two slow parts on one
machine: sampling (module `decoding`) and log-probabilities (module `packed_logprobs`). With an
engine of its own, such as vLLM, both are TRL's.
"""

import bisect
import dataclasses
import time
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from gpro_empathy import distributed, params, response_format
from gpro_empathy.files import UserError
from gpro_empathy.policy import loading, packed_logprobs
from gpro_empathy.policy.decoding import DecoderSampler
from gpro_empathy.policy.sampling import Sampling


def trl_config(
    grpo: params.TrainGrpo, rewards: params.Rewards, policy: params.Policy, seed: int, folder: Path
) -> GRPOConfig:
    """Return the GRPOConfig that the parameters stand for.

    TRL counts completions in a batch, where ours counts prompts: the generation batch is
    prompts_per_step x num_generations completions, shared out among the processes and cut into
    accumulation steps of completions_per_forward.

    Raises:
        UserError: If the installed TRL does not know a key, or the processes cannot share a step.
    """
    return checked_config(trl_values(grpo, rewards, policy, seed, folder))


def trl_values(
    grpo: params.TrainGrpo, rewards: params.Rewards, policy: params.Policy, seed: int, folder: Path
) -> dict[str, object]:
    """Return what `trl_config` hands to GRPOConfig."""
    grpo = grpo.model_copy(update={"completions_per_forward": grpo.completions_in_effect(policy.backend)})
    total = sum(rewards.weights.values())
    cuda = torch.cuda.is_available()
    values = {
        "output_dir": str(folder),
        "max_steps": grpo.steps,
        "per_device_train_batch_size": grpo.completions_per_forward,
        "gradient_accumulation_steps": grpo.accumulation_steps(distributed.count()),
        "num_generations": grpo.num_generations,
        "max_completion_length": policy.max_completion_tokens,
        "learning_rate": grpo.learning_rate,
        "lr_scheduler_type": grpo.lr_scheduler,
        "warmup_steps": round(grpo.warmup_ratio * grpo.steps),
        "optim": grpo.optimizer,
        "adam_beta1": grpo.adam_beta1,
        "adam_beta2": grpo.adam_beta2,
        "weight_decay": grpo.weight_decay,
        "max_grad_norm": grpo.max_grad_norm,
        "beta": grpo.kl_beta,
        "use_bias_correction_kl": False,  # the divergence as in the paper, not times the importance ratio
        "epsilon": grpo.clip_epsilon,
        # As TRL has them. Left out, Unsloth would set 0.28 and True for the loss dapo.
        "epsilon_high": grpo.clip_epsilon,
        "mask_truncated_completions": False,
        "loss_type": grpo.loss_type,
        "scale_rewards": grpo.scale_rewards,
        "multi_objective_aggregation": rewards.aggregation,
        # Shares, so that TRL's weighted sum is the weighted mean that the combined score is.
        "reward_weights": [rewards.weights[name] / total for name in sorted(rewards.weights)],
        "temperature": grpo.temperature,
        "top_p": grpo.top_p,
        "save_steps": grpo.save_steps,
        "seed": seed,
        "shuffle_dataset": False,  # the prompts come in the order of the steps
        "logging_steps": 1,
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "bf16": loading.compute_dtype(policy) == torch.bfloat16,
        "use_cpu": not cuda,
        "gradient_checkpointing": cuda,
        "dataloader_pin_memory": cuda,
    }
    if grpo.vllm_mode != "none":
        values |= {
            "use_vllm": True,
            "vllm_mode": grpo.vllm_mode,
            "vllm_server_base_url": grpo.vllm_server_url if grpo.vllm_mode == "server" else None,
            "vllm_gpu_memory_utilization": grpo.vllm_gpu_memory_utilization,
        }
    if grpo.vllm_mode == "colocate" and policy.backend == "transformers":
        # It would make room for the longest text that the model takes. Unsloth has its own limit,
        # max_seq_length.
        values |= {"vllm_max_model_length": policy.max_prompt_tokens + policy.max_completion_tokens}
    if policy.backend == "unsloth":
        # Unsloth's default too: vLLM samples from the very weights that are trained.
        values |= {"vllm_importance_sampling_correction": False}
    return values


def overridden_settings(grpo: params.TrainGrpo, asked: dict[str, object], args: GRPOConfig) -> list[str]:
    """Return "name set -> name in effect" for each setting the installed TRL or Unsloth changes.

    Args:
        asked: What was handed to GRPOConfig.
        args: The trainer's, which Unsloth may have changed.
    """
    overridden = []
    if args.per_device_train_batch_size != grpo.completions_per_forward:
        overridden.append(
            f"completions_per_forward {grpo.completions_per_forward} -> {args.per_device_train_batch_size}"
        )
    if grpo.warmup_ratio:
        overridden.append(f"warmup_ratio {grpo.warmup_ratio:g} -> warmup_steps {args.warmup_steps:g}")
    for name, value in sorted(asked.items()):
        effective = getattr(args, name)
        effective = getattr(effective, "value", effective)
        if name not in ("report_to", "output_dir") and effective != value:
            overridden.append(f"{name} {value} -> {effective}")
    return overridden


def checked_config(values: dict) -> GRPOConfig:
    """Return a GRPOConfig, refusing keys that the installed TRL does not know.

    Raises:
        UserError: Naming the keys.
    """
    known = {field.name for field in dataclasses.fields(GRPOConfig)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise UserError(
            f"train_grpo: the installed TRL knows no {', '.join(unknown)}; run `make setup` for the pinned one"
        )
    return GRPOConfig(**values)


class EngineTrainer(GRPOTrainer):
    """TRL's trainer, but with LoRA matrices in float32, and a clock.

    A user's text is text in its prompts.

    TRL rounds the matrices of a model loaded in 4 bits to bfloat16, in which an update below 0.4 %
    of a weight is lost.
    """

    def __init__(self, *args, model, **kwargs) -> None:
        trained = [(parameter, parameter.data) for parameter in model.parameters() if parameter.requires_grad]
        super().__init__(*args, model=model, **kwargs)
        for parameter, data in trained:
            parameter.data = data.float()
        self.generation_seconds = 0.0

    def _tokenize_prompts(self, prompts):
        # By this package, for which a user's text is text; without images or other fields of a
        # prompt.
        return [loading.prompt_ids(self.processing_class, prompt) for prompt in prompts], None, {}

    def _generate_single_turn(self, *args, **kwargs):
        started = time.perf_counter()
        result = super()._generate_single_turn(*args, **kwargs)
        self.generation_seconds += time.perf_counter() - started
        return result

    def create_model_card(self, *args, **kwargs) -> None:
        """Write no card into checkpoints: the stage writes the adapter's own."""


class GroupTrainer(EngineTrainer):
    """TRL's trainer with the fast sampling and log-probabilities of this package.

    Samples depend on the seed and the step alone, so a resumed run draws what the interrupted one
    would have, and several processes together what one would have.
    """

    def __init__(self, *args, trained_generations: int, advantage_on: str, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.trained_generations = trained_generations
        self.advantage_on = advantage_on

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        started = time.perf_counter()
        how = Sampling(
            temperature=self.args.temperature,
            top_p=self.args.top_p,
            max_tokens=self.args.max_completion_length,
            eos_ids=tuple(self.eos_token_ids),
            pad_id=self._tokenizer.pad_token_id,
        )
        rng = np.random.default_rng([self.args.seed, self.state.global_step])
        # The numbers are those of the whole step: the processes before this one take theirs first.
        rng.random((distributed.index() * len(prompt_ids), how.max_tokens))
        sampler = DecoderSampler(self.accelerator.unwrap_model(self.model))
        completions = sampler.sample(prompt_ids[::num_generations], num_generations, how, rng)
        self.generation_seconds += time.perf_counter() - started
        return completions, None

    def _prepare_inputs(self, generation_batch):
        # As TRL, without its shuffling of a batch that is then cut up: that would take the groups
        # apart.
        if self._step % self.args.steps_per_generation == 0 or self._buffered_inputs is None:
            batch = self._generate_and_score_completions(generation_batch)
            if self.trained_generations < self.num_generations:
                batch = down_sampled(batch, self.num_generations, self.trained_generations)
                batch["num_items_in_batch"] = self.accelerator.gather(batch["num_items_in_batch"]).sum()
            if self.advantage_on == "answer":
                in_answer_BT = answer_mask(batch["completion_ids"], batch["completion_mask"], self._tokenizer)
                batch["advantages"] = batch["advantages"][:, None] * in_answer_BT
            self._buffered_inputs = split_tensor_dict(batch, self.args.steps_per_generation)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def training_step(self, *args, **kwargs) -> torch.Tensor:
        """Do a forward and a backward pass.

        Before an update, average the gradients over the processes.
        """
        loss = super().training_step(*args, **kwargs)
        # DistributedDataParallel averages only what went through its own forward pass, which
        # `packed_logprobs` goes past.
        if distributed.count() > 1 and self.accelerator.sync_gradients:
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    torch.distributed.all_reduce(parameter.grad)
                    parameter.grad /= distributed.count()
        return loss

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **_
    ):
        boundary = input_ids.shape[1] - logits_to_keep
        prompts = _unpadded(input_ids[:, :boundary], attention_mask[:, :boundary])
        completions = _unpadded(input_ids[:, boundary:], attention_mask[:, boundary:])
        unwrapped = self.accelerator.unwrap_model(model)
        causal_model = unwrapped.get_base_model() if hasattr(unwrapped, "get_base_model") else unwrapped
        # Under the starting policy TRL asks for a whole step at once, in parts of batch_size.
        size, parts = batch_size or len(prompts), []
        for start in range(0, len(prompts), size):
            rows = slice(start, start + size)
            with self.accelerator.autocast():
                parts.append(
                    packed_logprobs.log_probabilities(
                        causal_model,
                        prompts[rows],
                        completions[rows],
                        columns=logits_to_keep,
                        temperature=self.temperature,
                    )
                )
        logps_BC, entropy_BC = (torch.cat(of) for of in zip(*parts, strict=True))
        return logps_BC, entropy_BC if compute_entropy else None, None


def down_sampled(batch: dict, group_size: int, kept: int) -> dict:
    """Return a batch of B samples with `kept` of each group: those whose advantages vary most.

    Advantages stay those of the whole group, so its mean is still the baseline. Sampling is cheap
    next to training on the samples, and those in the middle of a group carry little signal.

    Source:
        Xu et al. (2026), PODS, max-variance down-sampling; there advantages are those of the kept
        samples.
    """
    groups_PK = batch["advantages"].reshape(-1, group_size)
    rows = [
        group * group_size + index for group, values in enumerate(groups_PK) for index in widest_subset(values, kept)
    ]
    keep = torch.tensor(rows, device=groups_PK.device)
    size = batch["advantages"].shape[0]
    result = {
        name: value[keep] if isinstance(value, torch.Tensor) and value.dim() and len(value) == size else value
        for name, value in batch.items()
    }
    result["num_items_in_batch"] = result["completion_mask"].sum()
    return result


def answer_mask(ids_BT: torch.Tensor, mask_BT: torch.Tensor, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """Return 1 for the tokens after the tag that opens the answer, and 0 elsewhere, shape (B, T).

    A response without an answer block counts as an answer, as it does where it is scored.

    Args:
        mask_BT: 1 for the tokens of the response, which padding follows.
    """
    kept_BT = torch.zeros_like(mask_BT)
    for row, (ids, length) in enumerate(zip(ids_BT.tolist(), mask_BT.sum(1).tolist(), strict=True)):
        kept_BT[row, _tokens_to_answer(ids[:length], tokenizer) : length] = 1
    return kept_BT


def _tokens_to_answer(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> int:
    """Return after how many tokens the tag that opens the answer ends; 0 without an answer."""
    if response_format.answer_block(tokenizer.decode(ids, skip_special_tokens=True)) is None:
        return 0
    return bisect.bisect_left(
        range(len(ids)), True, key=lambda count: response_format.ANSWER_TAG in tokenizer.decode(ids[:count])
    )


def widest_subset(values_K: torch.Tensor, size: int) -> list[int]:
    """Return the indices, rising, of the `size` values of largest variance.

    These are always some lowest and some highest.
    """
    order = torch.argsort(values_K, stable=True).tolist()
    subsets = [order[:low] + order[len(order) - (size - low) :] for low in range(size + 1)]
    return sorted(max(subsets, key=lambda subset: float(values_K[subset].var(correction=0))))


def _unpadded(ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> list[list[int]]:
    return [ids[mask].tolist() for ids, mask in zip(ids_BT, mask_BT.bool(), strict=True)]
