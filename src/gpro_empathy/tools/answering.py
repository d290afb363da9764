"""Answer single messages by the tuned policy and by the starting one, and score the answers.

They are scored as rollouts are.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from peft import PeftModel
from transformers import PreTrainedModel

from gpro_empathy import params, response_format, rewards
from gpro_empathy.data import dialogue
from gpro_empathy.files import UserError
from gpro_empathy.policy import adapters, loading, sampling
from gpro_empathy.policy.decoding import DecoderSampler
from gpro_empathy.training import rollouts

WARM_START = Path("models/warm_start")
MODELS = Path("models")
AUDIT_SCORER = Path("models/audit_scorer")
REFERENCE = Path("reports/training/reference.json")


class Policies:
    """The base model with the adapters that are asked for, and both scorers.

    Random numbers follow from rollout.seed and the number of the message, so that equal sessions
    give equal answers; policies that answer the same message get the same ones.
    """

    def __init__(self, config: params.Params, trained: adapters.Tuned) -> None:
        """Load the models.

        Raises:
            UserError: If one of them is missing or cannot be loaded.
        """
        self._config, self._messages = config, 0
        self._tokenizer = loading.load_tokenizer(adapters.POLICY)
        start = rewards.StartingPolicy(config.policy, adapters.POLICY, adapters.adapter_in(WARM_START))
        self._rewards, self._audit = rollouts.load_scorers(config.rewards, MODELS, AUDIT_SCORER, REFERENCE, start)
        base = loading.load_base(config.policy, adapters.POLICY)
        self._tuned = ("tuned", trained.seed)
        self._model = PeftModel.from_pretrained(base, str(trained.adapter), adapter_name=rollouts.label(*self._tuned))
        self._model.eval()
        self._start = ("base", None)
        if adapters.adapter_in(WARM_START):
            self._start = ("warm_start", None)
            self._model.load_adapter(str(WARM_START), adapter_name=rollouts.label(*self._start))

    def choose(self, seed: int) -> None:
        """Talk to the policy that was tuned from another training seed.

        Raises:
            UserError: If there is none.
        """
        trained = adapters.find_tuned(seed, self._config.policy)
        name = rollouts.label("tuned", seed)
        if name not in self._model.peft_config:
            self._model.load_adapter(str(trained.adapter), adapter_name=name)
        self._tuned = ("tuned", seed)

    def respond(self, message: str, compare: bool, on_token: Callable[[str, int], None] | None = None) -> list[dict]:
        """Return the tuned policy's answer, and with `compare` the starting policy's too.

        The answers are rows of `rollouts.score`.

        Args:
            on_token: Called after every token with the policy's name and the tokens so far.

        Raises:
            UserError: If nothing is left of the message once it is normalised as in training, or it
                is too long.
        """
        text = dialogue.normalise(message)
        if dialogue.is_blank(text):
            raise UserError("there is no text in this message; write some words")
        turn = dialogue.Turn("chat", self._messages, text, (), None, None, None)
        ids = loading.prompt_ids(self._tokenizer, response_format.messages(text))
        longest = self._config.policy.max_prompt_tokens
        if len(ids) > longest:
            raise UserError(
                f"the prompt with this message has {len(ids)} tokens, in training at most {longest}; shorten it"
            )
        self._messages += 1
        keys = [self._tuned, self._start] if compare else [self._tuned]
        samples = [sample for key in keys for sample in self._sample(key, turn, ids, on_token)]
        return rollouts.score(samples, self._rewards, self._audit)

    def _sample(self, key, turn, ids, on_token) -> list[rollouts.Sample]:
        config, name = self._config.rollout, rollouts.label(*key)
        how = sampling.for_tokenizer(self._tokenizer, config.max_completion_tokens, config.temperature, config.top_p)
        rng = np.random.default_rng([config.seed, turn.turn])
        report = None if on_token is None else lambda step, _: on_token(name, step + 1)
        with self._speaking(key) as model:
            responses = DecoderSampler(model, on_token=report).sample([ids], 1, how, rng)
        return rollouts.samples(key, [turn], [ids], responses, how, self._tokenizer)

    @contextmanager
    def _speaking(self, key: tuple[str, int | None]) -> Iterator[PreTrainedModel]:
        if key[0] == "base":
            with self._model.disable_adapter():
                yield self._model
            return
        self._model.set_adapter(rollouts.label(*key))
        yield self._model
