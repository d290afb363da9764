"""The tasks of a rehearsal, each in a process of its own: build, scorer, train, rollout, reload."""

import os
import resource
import threading
import time
from pathlib import Path

from gpro_empathy import entry_point, files, params
from gpro_empathy.machine import GIB

# Largest difference of a log-probability, in nats, between the adapter as it was trained and as it
# is read back: rounding. Beside it comes twice the difference without the adapter, as two engines
# round one base differently too.
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}
TRAINED = Path("tasks/trained.json")
SECONDS_BETWEEN_LOOKS = 0.1
SCORER_UPDATES = 20


def task(name: str, arguments: tuple, folder: Path) -> None:
    """Run a task in `folder` and leave its seconds and peak memory in tasks/<name>.json."""
    os.chdir(folder)
    started = time.perf_counter()
    with Watch() as watch:
        entry_point.run_stage(lambda: TASKS[name](*arguments), STAGES.get(name))
    files.write_json(
        Path("tasks") / f"{name}.json", {"seconds": time.perf_counter() - started, "peak_gib": watch.peak_gib()}
    )


class Watch:
    """Watches the memory in use on the GPU, by this process or any other, as nvidia-smi shows it.

    Without a GPU the most memory of the machine that this process held.
    """

    def __enter__(self) -> "Watch":
        import torch

        self._peak, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True) if torch.cuda.is_available() else None
        if self._thread:
            self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()

    def peak_gib(self) -> float:
        """Return the peak in GiB."""
        if self._thread:
            return self._peak / GIB
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB

    def _look(self) -> None:
        import torch

        while not self._over.wait(SECONDS_BETWEEN_LOOKS):
            self._peak = max(self._peak, torch.cuda.device_memory_used(0))


def build(architectures: dict[str, dict]) -> None:
    """Write the models and prompts."""
    from rehearsal import models

    models.build(params.load_all(), architectures, Path().absolute())


def scorer() -> None:
    """Train the profile's scorer on made-up turns, and note how many of them it takes a second."""
    from gpro_empathy.scorer import fitting
    from rehearsal import models

    config = params.load(params.TrainScorer)
    encoder = str(Path("encoder").absolute())
    short = config.model_copy(update={"encoder": encoder, "revision": None, "epochs": 1})
    turns = models.rated_turns(SCORER_UPDATES * config.batch_size)
    # The first training loads and compiles what the second finds.
    fitting.train(turns[: config.batch_size], short, seed=config.seed)
    started = time.perf_counter()
    fitting.train(turns, short, seed=config.seed)
    files.write_json(Path("scorer.json"), {"turns_per_second": len(turns) / (time.perf_counter() - started)})


def train() -> None:
    """Run the stage train_grpo, then steps of real lengths; note what `reload` compares with."""
    if params.load(params.Policy).backend == "unsloth":
        os.environ["UNSLOTH_RETURN_LOGITS"] = "1"
    from gpro_empathy.stages import train_grpo

    train_grpo.main(before_it_is_saved)


def before_it_is_saved(model) -> None:
    """Train a policy at real lengths too, and note the log-probabilities of what is saved.

    Those of its base are noted too.
    """
    from rehearsal import lengths

    lengths.note_real(model)
    note_log_probabilities(model)


def note_log_probabilities(model) -> None:
    """Note a policy's log-probabilities, with its adapter and without.

    They are what `reload` compares with.
    """
    trained = log_probabilities(model)
    with model.disable_adapter():
        base = log_probabilities(model)
    files.write_json(TRAINED, {"trained": trained, "base": base})


def rollout() -> None:
    """Run the stage rollout."""
    from gpro_empathy.stages import rollout

    rollout.main()


def reload() -> None:
    """Compare the log-probabilities of the adapter read back with those that it was trained to.

    Raises:
        UserError: If they differ by more than rounding, or the adapter changes nothing.
    """
    from gpro_empathy.policy import loading

    config, folder = params.load(params.Policy), Path("models/policy")
    (adapter,) = Path("models/tuned").glob("seed-*")
    base = loading.load_base(config, folder)
    plain = log_probabilities(base)
    again = log_probabilities(loading.add_lora(base, config, adapter))
    noted = files.read_json(TRAINED)
    differences = {
        "difference": largest_difference(noted["trained"], again),
        "difference_of_bases": largest_difference(noted["base"], plain),
        "effect": largest_difference(noted["trained"], noted["base"]),
    }
    files.write_json(Path("reload.json"), differences)
    dtype = str(loading.compute_dtype(config)).removeprefix("torch.")
    allowed = TOLERANCE[dtype] + 2 * differences["difference_of_bases"]
    if differences["difference"] > allowed:
        raise files.UserError(
            f"the adapter read back gives log-probabilities that differ by {differences['difference']:.2g}, more than "
            f"{allowed:.2g}: it is not what was trained"
        )
    if differences["effect"] == 0:
        raise files.UserError("the trained adapter changes no log-probability: training did nothing")


def log_probabilities(model) -> list[float]:
    """Return the log-probabilities of the tokens of a fixed text."""
    import torch

    from gpro_empathy import response_format
    from gpro_empathy.policy import loading

    tokenizer = loading.load_tokenizer(Path("models/policy"))
    ids_1T = torch.tensor([loading.prompt_ids(tokenizer, response_format.messages("It rains."))], device=model.device)
    was_training = model.training
    model.eval()
    with torch.no_grad(), loading.autocast(model):
        logits_TV = model(input_ids=ids_1T).logits[0, :-1].float()
    model.train(was_training)
    return logits_TV.log_softmax(-1).gather(1, ids_1T[0, 1:, None]).squeeze(1).tolist()


def largest_difference(first: list[float], second: list[float]) -> float:
    """Return the largest difference of two lists of the same length."""
    return max(abs(a - b) for a, b in zip(first, second, strict=True))


TASKS = {"build": build, "scorer": scorer, "train": train, "rollout": rollout, "reload": reload}
# The stage that a task runs, by whose settings a lack of memory is explained.
STAGES = {"train": "train_grpo", "rollout": "rollout"}
