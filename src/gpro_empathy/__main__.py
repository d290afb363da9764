"""The command line: tools that use what was trained.

They are called as `python -m gpro_empathy {score,chat,serve,publish,judge}`.
"""

import argparse
import os
import sys
from pathlib import Path

from gpro_empathy import entry_point, params
from gpro_empathy.scorer import score_table
from gpro_empathy.tools import chat

MODEL = Path("models/scorer")
ABOUT = """\
Rate the turns of a CSV or JSON lines file: Emotion (0-5), EmotionalPolarity (0 positive, 2 negative), Empathy (0-5).

The file is in the layout of the official WASSA CONV-turn files (train, dev or test), or has a column text and, if you
like, a column context with the message before it. Labels are not needed. A scorer that reads context finds it in the
earlier turns of the same conversation; the rows of a conversation must then stand together and in order.
Written are the columns that name a turn (id, conversation_id, speaker, ...) and the three scores, one row for one row.
"""
ABOUT_JUDGE = """\
Let a language model rate the answers of the run, as people do on the page of `make rate`, by data/ratings/rubric.md.

Asked is any endpoint that speaks OpenAI's chat protocol, at temperature 0, about single answers and about pairs, each
pair in both orders. OPENAI_API_KEY is sent to it where it is set, and written nowhere. The ratings go to
data/ratings/<model>.csv, the raw replies to tmp/judge; the same command again goes on where this one ended.
"""


def main() -> None:
    """Run the command that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m gpro_empathy", description="Tools that use what was trained.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    score = commands.add_parser(
        "score",
        help="rate the turns of a file",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    score.add_argument("input", metavar="INPUT", help="CSV or JSON lines file in UTF-8, or - for standard input")
    score.add_argument(
        "--output", metavar="OUTPUT", required=True, help="file to write (.csv or .jsonl), or - for standard output"
    )
    score.add_argument(
        "--model", metavar="DIR", type=Path, default=MODEL, help=f"folder of a scorer (default: {MODEL})"
    )
    score.add_argument(
        "--escapes",
        choices=("auto", "backslash", "none"),
        default="auto",
        help="what a backslash in CSV is: an escape, as in the official files; itself (none); or as the file shows "
        "(auto, the default)",
    )
    score.set_defaults(run=_score)
    _add_chat(commands)
    _add_serve(commands)
    _add_publish(commands)
    _add_judge(commands)
    arguments = parser.parse_args()
    arguments.run(arguments)


def _add_chat(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("chat", help="talk to the tuned policy in the terminal")
    command.add_argument("--compare", action="store_true", help="show the starting policy's answers too")
    _add_seed(command)
    command.set_defaults(run=_chat)


def _add_serve(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("serve", help="serve the tuned policy by vLLM, on a machine with a GPU")
    command.add_argument("--port", type=int, default=8000, help="port on this machine (default: %(default)s)")
    command.add_argument("extra", nargs="*", metavar="ARGUMENT", help="after --: further arguments of vllm serve")
    _add_seed(command)
    command.set_defaults(run=_serve)


def _add_publish(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "publish", help="write the adapter with a model card for the hub, and push it with --push"
    )
    command.add_argument("repo", metavar="OWNER/NAME", help="repository on the Hugging Face hub")
    command.add_argument("--push", action="store_true", help="push it; without, tmp/publish is written and shown")
    _add_seed(command)
    command.set_defaults(run=_publish)


def _add_judge(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "judge",
        help="let a language model rate the answers of the run",
        description=ABOUT_JUDGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("--base-url", metavar="URL", required=True, help="address of the endpoint, such as http://localhost:8000/v1")
    add("--model", metavar="NAME", required=True, help="the model that judges, by the endpoint's name for it")
    add("--form", choices=("single", "pairs"), help="rate single answers or pairs alone (default: both)")
    add("--number", type=int, metavar="N", help="answers and pairs to rate at most (default: all); a part holds what "
        "people rated first, and is the same for every judge")  # fmt: skip
    add("--max-requests", type=int, metavar="N", default=2000, help="stop after so many requests of this call, repeated "
        "ones too; 0 only says what would be asked (default: %(default)s)")  # fmt: skip
    add("--max-cost", type=float, metavar="COST", help="stop before this call costs more; needs --prices")
    add(
        "--prices",
        type=float,
        nargs=2,
        metavar=("SENT", "RECEIVED"),
        help="what a million tokens sent and received cost",
    )
    add("--max-tokens", type=int, metavar="N", default=500, help="tokens of a reply at most (default: %(default)s); more "
        "for a model that thinks aloud")  # fmt: skip
    add(
        "--timeout",
        type=float,
        metavar="SECONDS",
        default=120,
        help="until a request is given up (default: %(default)s)",
    )
    command.set_defaults(run=_judge)


def _add_seed(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--seed", type=int, metavar="N", help="training seed of the policy (default: the first trained)"
    )


def _score(arguments: argparse.Namespace) -> None:
    score_table.score_file(arguments.input, arguments.output, lambda: _load(arguments.model), _note, arguments.escapes)


def _chat(arguments: argparse.Namespace) -> None:
    def load() -> chat.Policies:
        from gpro_empathy.policy import adapters

        config = params.load_all()
        found = adapters.find_tuned(arguments.seed, config.policy)
        from transformers.utils import logging

        from gpro_empathy.tools import answering

        logging.disable_progress_bar()
        logging.set_verbosity_error()  # it says at length that it dequantises, as `loading.load_base` wants it to
        return answering.Policies(config, found)

    for stream in (sys.stdin, sys.stdout):
        # A terminal of another encoding must not end the conversation.
        stream.reconfigure(errors="replace")
    chat.talk(load, sys.stdin, sys.stdout, sys.stderr, compare=arguments.compare)


def _serve(arguments: argparse.Namespace) -> None:
    from gpro_empathy.policy import adapters
    from gpro_empathy.tools import serve

    config = params.load_all()
    serve.run(adapters.find_tuned(arguments.seed, config.policy), config, arguments.port, arguments.extra)


def _load(folder: Path) -> score_table.Scorer:
    # These take seconds, which --help and a mistaken file need not wait for.
    from transformers.utils import logging

    from gpro_empathy.scorer import kinds

    logging.disable_progress_bar()
    model = kinds.load(folder)
    model.merge_adapter()
    return model


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _publish(arguments: argparse.Namespace) -> None:
    from gpro_empathy.tools import publish

    publish.run(arguments.repo, arguments.seed, push=arguments.push)


def _judge(arguments: argparse.Namespace) -> None:
    from gpro_empathy.tools import chat_endpoint, judge, judge_progress, request_budget

    endpoint = chat_endpoint.Endpoint(
        arguments.base_url,
        arguments.model,
        os.environ.get(chat_endpoint.KEY),
        request_budget.Budget(arguments.max_requests, arguments.max_cost, arguments.prices),
        timeout=arguments.timeout,
        max_tokens=arguments.max_tokens,
        note=judge_progress.note,
    )
    forms = {None: ("single", "pair"), "single": ("single",), "pairs": ("pair",)}
    judge.run(endpoint, forms[arguments.form], arguments.number)


if __name__ == "__main__":
    entry_point.run_stage(main)
