"""The processes that share a run, as a launcher started them.

A run without a launcher has one process. Processes are numbered from 0. Process 0, the main one,
writes files and prints. Which process this is, is read from the launcher's variables, as accelerate
reads it: accelerate itself, and torch with it, is imported where processes meet.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

ValueT = TypeVar("ValueT")
EFFICIENT_LOADING = "FSDP_CPU_RAM_EFFICIENT_LOADING"


def launched() -> bool:
    """Say whether a launcher started this process."""
    return "LOCAL_RANK" in os.environ


def count() -> int:
    """Return how many processes share the run."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def index() -> int:
    """Return the number of this process."""
    return int(os.environ["RANK"]) if launched() else 0


def is_main() -> bool:
    """Say whether this process writes and prints."""
    return index() == 0


def are_sharded() -> bool:
    """Say whether each process holds a part of the weights, rather than all of them.

    FSDP and DeepSpeed ZeRO give each process a part.
    """
    return launched() and any(
        os.environ.get(f"ACCELERATE_USE_{engine}", "").lower() == "true" for engine in ("FSDP", "DEEPSPEED")
    )


def device_map(*, whole: bool = False) -> dict[str, int | str] | None:
    """Return where this process loads a model: its own GPU, else the CPU, or None.

    None leaves sharded weights to the engine.

    Args:
        whole: Whether the model is one that no engine shards, such as a reward's.
    """
    import torch

    if are_sharded() and not whole:
        return None
    return {"": int(os.environ.get("LOCAL_RANK", 0)) if torch.cuda.is_available() else "cpu"}


@contextmanager
def whole_models() -> Iterator[None]:
    """Load the models of the block whole in every process.

    By `fsdp_cpu_ram_efficient_loading` transformers fills every model with zeros in all processes
    of a machine but the first, which sends the others their shards later. A model that is not
    sharded, such as a reward's, would stay zero.
    """
    asked = os.environ.pop(EFFICIENT_LOADING, None)
    try:
        yield
    finally:
        if asked is not None:
            os.environ[EFFICIENT_LOADING] = asked


def start() -> None:
    """Meet the other processes and take this process's own GPU, if there are several."""
    if count() > 1:
        from accelerate import PartialState

        PartialState()


def end() -> None:
    """Leave the other processes."""
    if count() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()
        PartialState().destroy_process_group()


def gather(value: ValueT) -> list[ValueT]:
    """Return the values that all processes bring, in their order. Every process must call it."""
    if count() == 1:
        return [value]
    from accelerate.utils import gather_object

    return gather_object([value])  # which joins the lists of all processes


def from_main(make: Callable[[], ValueT]) -> ValueT:
    """Return what `make` returns in the main process, which alone calls it.

    Every process must call this.
    """
    if count() == 1:
        return make()
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([make() if is_main() else None])[0]


def say(text: str) -> None:
    """Print a line, once for all processes."""
    if is_main():
        print(text, flush=True)
