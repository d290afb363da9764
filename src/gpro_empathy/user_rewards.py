"""Reward terms of the user's own: functions in the files of `rewards/`, or in an installed package.

DVC sees no imports, so the folder as a whole is a dependency of the stages that score. What a term
imports must therefore be there too, or be installed.
"""

import importlib
import inspect
import os
import site
import sys
import sysconfig
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpro_empathy import entry_point, response_format
from gpro_empathy.files import UserError
from gpro_empathy.response_format import Response

FOLDER = Path("rewards")
# The trainer computes variances in float32, whose largest number is 3.4e38: the squares of these,
# summed over any batch, stay below.
LARGEST = 1e15
# What a term is tried on: a response in the format, an empty one, and one outside the format.
_TRIAL = (
    ("I failed the exam.", response_format.format_response(
        {"concern": "a failed exam", "emotion": "sad", "intensity": 3, "approach": "comfort",
         "answer": "I am sorry. What happened?"}
    )),
    ("My sister is getting married!", ""),
    ("Nobody came to my party, and I had cooked for ten.", "That must hurt, after all that work."),
)  # fmt: skip


@dataclass(frozen=True)
class TrlReward:
    """A reward function in TRL's form, called with `prompts` and `completions`.

    Both are lists of messages. Columns of a data set and token ids are not passed, as responses are
    also scored outside of training.

    Source:
        TRL's documentation of GRPOTrainer, "Using a custom reward function".
    """

    function: Callable[..., Sequence[float | None]]

    def __call__(self, utterances: Sequence[str], responses: Sequence[Response]) -> Sequence[float | None]:
        prompts = [response_format.messages(utterance) for utterance in utterances]
        completions = [[{"role": "assistant", "content": response.text}] for response in responses]
        return self.function(prompts=prompts, completions=completions)


@dataclass(frozen=True)
class UserTerm:
    """A term by its name, as it is called.

    What goes wrong in it is one line with its file and line.
    """

    name: str
    function: Callable

    def __call__(self, utterances: Sequence[str], responses: Sequence[Response]) -> np.ndarray:
        scored = TrlReward(self.function) if _is_trl(self.function) else self.function
        try:
            # Lists of its own, as a function may sort them or take things out.
            values = scored(list(utterances), list(responses))
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # a user's function may raise anything
            if entry_point.explain(error, None) is not None:  # memory or an engine, which has its own advice
                raise
            raise UserError(
                f"reward term {self.name}: {_what(error)}{_line_of(error) or _defined(self.function)}"
            ) from error
        return checked(f"{self.name}{_defined(self.function)}", values, responses)


def checked(term: str, values: object, responses: Sequence[Response]) -> np.ndarray:
    """Return a term's scores as a copy in float64, shape (B,).

    Args:
        term: Its name, and where it is defined if that is known.
        values: Numbers in any sequence, array or tensor.

    Raises:
        UserError: If they are no numbers, not one for each response, not finite or above `LARGEST`.
    """
    if isinstance(values, list | tuple):
        values = [_plain(value) for value in values]
    try:
        scores = np.asarray(_plain(values))
    except ValueError:  # numpy's word for rows of different lengths
        scores = np.asarray(None)
    if scores.shape != (len(responses),):
        shown = f"shape {scores.shape}" if scores.dtype.kind in "biuf" else _in_a_line(values)
        raise UserError(
            f"reward term {term} returned {shown} for {len(responses)} responses; it must return one number for each"
        )
    if scores.dtype.kind not in "biuf":
        numbers = [isinstance(value, int | float | np.number) for value in scores.tolist()]
        index = numbers.index(False) if False in numbers else 0
        raise UserError(
            f"reward term {term} gave {_in_a_line(scores.tolist()[index])} to {_sample(index, responses)}, which is no number"
        )
    scores = scores.astype(np.float64)
    fits = np.isfinite(scores) & (np.abs(scores) <= LARGEST)
    if not fits.all():
        index = int(np.flatnonzero(~fits)[0])
        raise UserError(
            f"reward term {term} gave {scores[index]} to {_sample(index, responses)}; a score must be finite and at most "
            f"{LARGEST:g} in size, as the trainer computes in float32"
        )
    return scores


def load(name: str, known: Sequence[str]) -> UserTerm:
    """Return the term `module:function`, after a trial call on three made-up responses.

    Args:
        known: The project's own terms, to name them where there is no such term.

    Raises:
        UserError: If there is none, its module lies elsewhere or fails, or the trial does.
    """
    before, place = set(sys.modules), Path.cwd()
    try:
        term = UserTerm(name, _function(name, known))
        utterances, texts = zip(*_TRIAL, strict=True)
        term(list(utterances), [response_format.parse_response(text) for text in texts])
        if Path.cwd() != place:
            raise UserError(
                f"rewards.weights: {name!r} changes the working folder to {Path.cwd()}, from which a stage would write its "
                "results elsewhere; open files by a path made of __file__"
            )
    finally:
        os.chdir(place)
    # After the trial, in which a function may import more.
    _refuse_elsewhere(name, {name.partition(":")[0], *(set(sys.modules) - before)})
    return term


def _function(name: str, known: Sequence[str]) -> Callable:
    module, _, function = name.partition(":")
    folder = str(FOLDER.resolve())
    if folder not in sys.path:
        sys.path.append(folder)  # the last, so that no file there stands before an installed module
    try:
        result = getattr(importlib.import_module(module), function)
    except (Exception, SystemExit) as error:  # a user's module may raise anything, and a script ends itself
        missing = isinstance(error, ImportError) and f"{module}.".startswith(f"{error.name}.")
        if not missing and not isinstance(error, AttributeError | ValueError):
            raise UserError(f"rewards.weights: {name!r} cannot be imported: {_what(error)}{_line_of(error)}") from error
        raise UserError(
            f"rewards.weights: {name!r} is no reward term ({_what(error)}{_line_of(error)}); there are {', '.join(known)}, and "
            f"any function as module.function of a file in {FOLDER}/ that git knows (`git add {FOLDER}`) or of an installed "
            "package"
        ) from None
    if _is_trl(result):
        try:
            inspect.signature(result).bind(prompts=[], completions=[])
        except TypeError as error:
            raise UserError(
                f"rewards.weights: {name!r} cannot be called ({error}); a reward function in TRL's form is given prompts and "
                "completions alone, so end its arguments with **kwargs and give the others defaults"
            ) from None
    return result


def _is_trl(function: Callable) -> bool:
    try:
        return "completions" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # not callable, or a built-in that does not say what it takes
        return False


def _refuse_elsewhere(name: str, modules: set[str]) -> None:
    """Refuse modules that are neither installed nor in `FOLDER`.

    No stage would notice a change of them.
    """
    for top in sorted({module.partition(".")[0] for module in modules} - {"gpro_empathy"}):
        module = sys.modules.get(top)
        # A folder without __init__.py has a path and no file; what is built in has neither.
        places = [module.__file__] if getattr(module, "__file__", None) else getattr(module, "__path__", [])
        for place in map(Path, places):
            if not any(place.resolve().is_relative_to(folder) for folder in (FOLDER.resolve(), *_installed())):
                raise UserError(
                    f"rewards.weights: {name!r} takes {top} from {place}, whose changes no stage would notice; move it "
                    f"into {FOLDER}/"
                )


def _installed() -> set[Path]:
    """Return the folders of Python's own modules and of installed packages."""
    folders = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), site.getusersitepackages()}
    folders |= set(site.getsitepackages())
    if sys.prefix != sys.base_prefix:
        folders.add(sys.prefix)
    return {Path(folder).resolve() for folder in folders}


def _plain(value: object) -> object:
    """Return a tensor's numbers, and all else as it is.

    The tensor may have any number format, device and gradient.
    """
    return value.detach().cpu().double().numpy() if hasattr(value, "detach") else value


def _sample(index: int, responses: Sequence[Response]) -> str:
    return f"sample {index} of the batch: {responses[index].text[:80]!r}"


def _in_a_line(value: object) -> str:
    return " ".join(repr(value).split())[:80]


def _what(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _line_of(error: BaseException) -> str:
    """Return the last line of the user's own code that an error came through.

    It is empty where there is none.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f" in {_shown(error.filename)}, line {error.lineno}"
    ours = (Path(__file__).parent, *_installed())
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<") and not any(Path(frame.filename).is_relative_to(path) for path in ours)
    ]
    return f" in {_shown(frames[-1].filename)}, line {frames[-1].lineno}" if frames else ""


def _defined(function: Callable) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f" ({_shown(code.co_filename)}, line {code.co_firstlineno})" if code else ""


def _shown(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else filename
