"""Run a stage: its wall time, and what goes wrong as one line with what to try next.

Exceptions of torch, vLLM and Unsloth are known by their type, their words or the module that raised
them, so that this module imports none of these. Whatever else goes wrong keeps its traceback.
"""

import fcntl
import operator
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TextIO

from gpro_empathy import files, params
from gpro_empathy.files import UserError

# One file per stage with the wall time of its last run; no output of DVC, and not in git.
WALL_TIMES = Path("work/stages")
_STAGES = "gpro_empathy.stages."
_LONGEST = 300
GO_ON = "run the command again, which goes on from the newest checkpoint"
# How torch says that memory is not enough where it has no type of its own for it: of the machine,
# and of the GPU.
_NO_MEMORY = ("can't allocate memory", "not enough memory")
_NO_GPU_MEMORY = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
# The settings of a stage that bound its memory; those of GRPO depend on each other.
_SCORER = ("train_scorer.batch_size", "train_scorer.max_tokens")
_LESS = {
    "train_scorer": _SCORER,
    "train_reader": ("train_reader.batch_size", "train_scorer.max_tokens"),
    "evaluate_scorers": _SCORER,
    "warm_start": ("warm_start.batch_size",),
    "train_grpo": (),
    "rollout": ("rollout.batch_size",),
}
# What vLLM leaves of the GPU is for the reward models.
_LESS_BY_VLLM = ("rollout.vllm_gpu_memory_utilization", "rollout.max_completion_tokens")
# The stages that read files and folders of the user's.
READ_INPUTS = (
    "prepare_policy",
    "prepare",
    "train_scorer",
    "train_reader",
    "evaluate_scorers",
    "warm_start",
    "train_grpo",
    "rollout",
)
_HELD: list[TextIO] = []  # files whose locks this process holds
ENGINES = ("vllm", "unsloth", "unsloth_zoo")


def run_stage(main: Callable[[], None], stage: str | None = None) -> None:
    """Run the entry point of a stage or a command, and note the wall time of a stage.

    What the user can mend is printed as one line, and the exit status is then 1: a UserError, a
    full disk, and a failure of memory or of an engine. Any other error keeps its traceback.

    A process that a launcher started leaves the wall time, and saying that it was interrupted, to
    the launcher. A process that is told to end (SIGTERM), as by a launcher when another process
    failed, removes what is half written and exits with 143.

    Args:
        stage: By whose settings a lack of memory is explained; None for those of the stage that
            this process runs.
    """
    launched, this_stage = "LOCAL_RANK" in os.environ, _stage_of_this_process()
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        if _module_of_this_process().startswith(("gpro_empathy.stages.", "gpro_empathy.tools.")):
            _use_code_of_working_folder()
        if this_stage is not None:
            _lock(this_stage, launched)
        if this_stage in READ_INPUTS:
            params.check_inputs(params.load_all())
        _run(main, stage or this_stage)
        if not launched:
            _note_wall_time()
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(1 if launched else "interrupted; run the command again to go on")
    except OSError as error:
        if error.errno is None or error.strerror is None:
            raise
        place = f"{error.filename}: " if error.filename else ""
        sys.exit(f"error: {place}{error.strerror.lower()}")
    finally:
        signal.signal(signal.SIGTERM, before)


def _use_code_of_working_folder() -> None:
    """Start this process again where the imported package is not that of the working folder.

    An environment holds the package of the copy that it was set up in, and DVC runs experiments of
    its queue, like a second clone, in another folder, whose results would be those of other code.

    Raises:
        UserError: If the other package is imported even so.
    """
    source, imported = Path("src").resolve(), Path(__file__).resolve().parents[1]
    if source == imported or not (source / "gpro_empathy").is_dir():
        return
    before = os.environ.get("PYTHONPATH", "")
    # Not split at the separator, which a path may hold.
    if f"{before}{os.pathsep}".startswith(f"{source}{os.pathsep}"):
        raise UserError(
            f"{source} is the code of this folder, but Python imports that of {imported}; run `make setup` here"
        )
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(source), before]))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _lock(stage: str, launched: bool) -> None:
    """Keep this stage from being started here again while this process lives, however that ends.

    The processes of a launcher share a second lock, as they may outlive the one that launched them.

    Raises:
        UserError: If the stage is still running.
    """
    WALL_TIMES.mkdir(parents=True, exist_ok=True)
    alone, shared = ((WALL_TIMES / f"{stage}.{kind}.lock").open("a+") for kind in ("main", "launched"))
    # Open for as long as the process lives: closed, a file gives its lock back.
    _HELD.extend((alone, shared))
    try:
        if launched:
            fcntl.flock(shared, fcntl.LOCK_SH)
            return
        fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(shared, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(shared, fcntl.LOCK_UN)
    except BlockingIOError:
        alone.seek(0)
        raise UserError(
            f"the stage {stage} is still running in this folder, started by process {alone.read().strip() or '?'}; wait "
            "until it finishes, or stop it and its child processes with `kill`"
        ) from None
    except OSError:  # some network file systems lock no files: then nothing guards against a second start
        return
    alone.truncate(0)
    alone.write(str(os.getpid()))
    alone.flush()


def _run(main: Callable[[], None], stage: str | None) -> None:
    """Run an entry point; a failure of memory or of an engine becomes a UserError."""
    try:
        main()
    except UserError:
        raise
    except Exception as error:  # vLLM has exceptions of every kind; what is not known is raised again
        line = explain(error, stage)
        if line is None:
            raise
        raise UserError(line) from None


def _leave(signum: int, frame: object) -> None:
    """Leave by an exception, so that the `finally` of a file that is being written runs.

    The exit code is as a shell would give it.
    """
    sys.exit(128 + signum)


def _stage_of_this_process() -> str | None:
    """Return the stage that was started as `python -m gpro_empathy.stages.<name>`, or None."""
    name = _module_of_this_process()
    return name.removeprefix(_STAGES) if name.startswith(_STAGES) else None


def _module_of_this_process() -> str:
    """Return the module that was started by `python -m`, or an empty text."""
    specification = sys.modules["__main__"].__spec__
    return specification.name if specification else ""


def _note_wall_time() -> None:
    """Write how long this process has run, if it is a stage: a reader waits for its imports too."""
    stage = _stage_of_this_process()
    if stage is None:
        return
    import psutil

    finished = time.time()
    seconds = round(finished - psutil.Process().create_time(), 1)
    files.write_json(WALL_TIMES / f"{stage}.json", {"finished": finished, "seconds": seconds})


def explain(error: Exception, stage: str | None) -> str | None:
    """Return what happened and what to try, in one line; None for an error it does not know."""
    if type(error).__name__ == "OutOfMemoryError" or any(words in str(error) for words in _NO_GPU_MEMORY):
        return f"the GPU's memory ran out{_where(error)} ({_words(error)}); {_smaller(stage)}"
    if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY):
        return f"the machine's memory ran out{_where(error)} ({_words(error)}); {_smaller(stage)}"
    engine = _engine(error)
    if engine is None:
        return None
    if isinstance(error, ImportError):
        return f"{engine} cannot be imported ({_words(error)}); run `make setup` on a machine with an NVIDIA driver"
    return f"{engine} failed{_where(error)} ({_words(error)}); {_without_engine(stage)}"


def _smaller(stage: str | None) -> str:
    """Return how the stage takes less memory."""
    if stage not in _LESS:
        return "close other programs and try again"
    config = params.load_all()
    if stage == "train_grpo":
        return _smaller_training(config)
    keys = _LESS_BY_VLLM if stage == "rollout" and config.rollout.engine == "vllm" else _LESS[stage]
    named = (f"{key} ({operator.attrgetter(key)(config):g})" for key in keys)
    return f"close other programs, or lower {' or '.join(named)}, and run the command again"


def _smaller_training(config: params.Params) -> str:
    grpo = config.train_grpo
    vllm = config.policy.backend == "unsloth" or grpo.vllm_mode == "colocate"
    in_forward = grpo.completions_in_effect(config.policy.backend)
    can = grpo.can_take_fewer(config.policy.backend)
    fewer = f"train_grpo.completions_per_forward ({in_forward}) or " if can else ""
    share = f"or lower train_grpo.vllm_gpu_memory_utilization ({grpo.vllm_gpu_memory_utilization:g}) " if vllm else ""
    return (
        f"close other programs {share}and {GO_ON}; or lower {fewer}policy.max_completion_tokens "
        f"({config.policy.max_completion_tokens}), which begins anew"
    )


def _without_engine(stage: str | None) -> str:
    """Return how to help the engine, or do without it."""
    config = params.load_all()
    if stage == "rollout":
        share = config.rollout.vllm_gpu_memory_utilization
        return (
            f"close other programs on the GPU or change rollout.vllm_gpu_memory_utilization ({share:g}); or set "
            "rollout.engine: transformers"
        )
    share = config.train_grpo.vllm_gpu_memory_utilization
    return (
        f"close other programs on the GPU or change train_grpo.vllm_gpu_memory_utilization ({share:g}), and {GO_ON} if there "
        "is one; or set policy.backend: transformers and train_grpo.vllm_mode: none, which begins anew"
    )


def _frames(error: BaseException) -> Iterator[FrameType]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def _engine(error: BaseException) -> str | None:
    """Return the engine whose code raised the error, or whose import failed.

    It is None if code of ours, which the engine called, raised the error.
    """
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] in ENGINES:
        return (error.name or "").partition(".")[0]
    packages = [str(frame.f_globals.get("__name__")).partition(".")[0] for frame in _frames(error)]
    known = [name for name in packages if name in (*ENGINES, "gpro_empathy")]
    return known[-1] if known and known[-1] in ENGINES else None


def _where(error: BaseException) -> str:
    """Return the step in which a trainer was, from the frames that the error came through."""
    for frame in _frames(error):
        state = getattr(frame.f_locals.get("self"), "state", None)
        if isinstance(getattr(state, "global_step", None), int) and getattr(state, "max_steps", 0) > 0:
            return f" in step {state.global_step + 1} of {state.max_steps}"
    return ""


def _words(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
