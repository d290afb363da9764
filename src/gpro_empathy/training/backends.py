"""The engines that hold the policy while it is trained by GRPO, behind one interface.

`transformers` loads 4-bit weights by bitsandbytes and runs anywhere, with the fast sampling and
log-probabilities of this package. `unsloth` needs CUDA: it trains with Unsloth's kernels and
samples with vLLM, or where train_grpo.vllm_mode is none with the trained model itself. The stage
differs in nothing else.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from peft import PeftModel
from trl import GRPOTrainer

from gpro_empathy import distributed, params
from gpro_empathy.policy import loading, vllm_engine
from gpro_empathy.policy.decoding import DecoderSampler
from gpro_empathy.policy.sampling import Sampler, Sampling
from gpro_empathy.training import grpo_trainer, launch, unsloth_engine


class Backend(Protocol):
    """What the GRPO stage asks for.

    Made from the settings, the folder of the converted policy, and that of the adapter to start
    from, if there is one.
    """

    def __init__(self, config: params.Policy, grpo_config: params.TrainGrpo, folder: Path, adapter: Path | None): ...

    def start(self, seed: int) -> PeftModel:
        """Return the starting policy; LoRA matrices that no adapter gives are drawn from `seed`."""

    @staticmethod
    def sampler(model: PeftModel) -> Sampler:
        """Return what samples from the policy as it is at this moment."""

    @staticmethod
    def trainer(config: params.TrainGrpo) -> tuple[type[GRPOTrainer], dict]:
        """Return the trainer's class, and what it takes beside the arguments of TRL's."""


class Transformers:
    """The policy in transformers, with bitsandbytes and PEFT."""

    def __init__(self, config: params.Policy, grpo_config: params.TrainGrpo, folder: Path, adapter: Path | None):
        self.config, self.folder, self.adapter = config, folder, adapter
        self.vllm_mode = grpo_config.vllm_mode

    def start(self, seed: int) -> PeftModel:
        """Load the base anew and wrap it."""
        torch.manual_seed(seed)
        model = loading.add_lora(loading.load_base(self.config, self.folder), self.config, self.adapter)
        if self.vllm_mode == "colocate":
            # TRL has its vLLM load what is named here, and would pass over the revision of a hub
            # model.
            model.get_base_model().name_or_path = str(vllm_engine.weights(self.folder))
        return model

    @staticmethod
    def sampler(model: PeftModel) -> Sampler:
        """Return a decoder of this package."""
        return DecoderSampler(model)

    @staticmethod
    def trainer(config: params.TrainGrpo) -> tuple[type[GRPOTrainer], dict]:
        """Return the trainer of this package, or TRL's where vLLM samples."""
        launch.check_whole_groups(config, "transformers")
        if config.vllm_mode == "none":
            return grpo_trainer.GroupTrainer, {
                "trained_generations": config.trained_generations,
                "advantage_on": config.advantage_on,
            }
        return grpo_trainer.EngineTrainer, {}


class Unsloth:
    """The policy in Unsloth, with vLLM.

    `unsloth_engine.prepare` must have been called before trl was imported.
    """

    def __init__(self, config: params.Policy, grpo_config: params.TrainGrpo, folder: Path, adapter: Path | None):
        self.config, self.grpo, self.folder, self.adapter = config, grpo_config, folder, adapter
        self._model: PeftModel | None = None

    def start(self, seed: int) -> PeftModel:
        """Load the model and vLLM once, and give them their starting LoRA matrices.

        The matrices are given again for every seed.
        """
        if self._model is None:
            unsloth_engine.check_padding(loading.load_tokenizer(self.folder), self.config)
            self._model = unsloth_engine.load(self.config, self.grpo, vllm_engine.weights(self.folder), seed)
        unsloth_engine.restart(self._model, self.adapter, seed)
        return self._model

    @staticmethod
    def sampler(model: PeftModel) -> Sampler:
        """Return vLLM with the LoRA matrices as they are now, or without it the model itself."""
        if not unsloth_engine.has_vllm(model):
            return unsloth_engine.UnslothSampler(model)
        adapter = model.load_lora(str(unsloth_engine.WORK / "adapter"), load_tensors=True)
        return vllm_engine.VllmSampler(model.fast_generate, adapter)

    @staticmethod
    def trainer(config: params.TrainGrpo) -> tuple[type[GRPOTrainer], dict]:
        """Return TRL's trainer, which Unsloth has patched."""
        launch.check_whole_groups(config, "unsloth")
        return grpo_trainer.EngineTrainer, {}


KINDS: dict[str, type[Backend]] = {"transformers": Transformers, "unsloth": Unsloth}


class ServerSampler:
    """Samples by the vLLM server of a trainer, which is sent the weights as they are now."""

    def __init__(self, trainer: GRPOTrainer) -> None:
        self._generation = trainer.vllm_generation

    def sample(
        self, prompts: Sequence[Sequence[int]], samples_per_prompt: int, how: Sampling, rng: np.random.Generator
    ) -> list[list[int]]:
        """Sample as `Sampler.sample`, by the trainer's settings and the server's random numbers.

        Every process must call it, and the responses of all come back to each.
        """
        self._generation.sync_weights()
        # The server takes the prompts of all processes together, so that the main one brings them
        # all.
        rows = [list(ids) for ids in prompts for _ in range(samples_per_prompt)] if distributed.is_main() else []
        _, responses, _, _ = self._generation.generate(rows, None, num_generations=samples_per_prompt)
        return distributed.from_main(lambda: responses)
