"""Read the source, split it by story, and choose the turns that serve as prompts.

Reads   the source that prepare.source names; demonstrations and readings in prepare.embedded_folder
        models/policy/                      the tokenizer, for the length of prompts
Writes  data/prepared/<split>.jsonl         turns
        data/prepared/prompts_<split>.jsonl the turns among them that are used as prompts
        data/prepared/demonstrations_{train,validation}.jsonl  utterance and response in the format,
                                            for the warm start
        data/prepared/readings_{train,validation}.jsonl  utterance, answer and marks, for the
                                            reader model
        reports/data.json                   sizes, label statistics, where the test split comes from
"""

from pathlib import Path

from gpro_empathy import entry_point, files, params, response_format
from gpro_empathy.data import demonstrations, dialogue, prompt_length, readings, sources

POLICY = Path("models/policy")
PREPARED = Path("data/prepared")
REPORT = Path("reports/data.json")


def main() -> None:
    """Run the stage."""
    config, limits = params.load(params.Prepare), params.load(params.Policy)
    splits = sources.load(config)
    shown, read = demonstrations.load(config, splits), readings.load(config, splits)
    count = prompt_length.counter(POLICY)
    report: dict = {"source": config.source, "split": config.split, "dataset": sources.describe(config), "splits": {}}
    report |= {"test_split": sources.test_split(config)} | dialogue.count_stories(splits)
    report["left_out"] = {"short": 0, "long": 0}
    with files.atomic_path(PREPARED) as folder:
        for name, turns in splits.items():
            long_enough = [turn for turn in turns if len(turn.text.split()) >= config.min_prompt_words]
            fitting = [
                turn for turn in long_enough if count(response_format.messages(turn.text)) <= limits.max_prompt_tokens
            ]
            report["left_out"]["short"] += len(turns) - len(long_enough)
            report["left_out"]["long"] += len(long_enough) - len(fitting)
            report["splits"][name] = dialogue.describe(turns) | {"prompts": len(fitting)}
            dialogue.write_turns(folder / f"{name}.jsonl", turns)
            dialogue.write_turns(folder / f"prompts_{name}.jsonl", fitting)
            print(f"{name}: {len(turns)} turns, {len(fitting)} of them prompts")
        for name, rows in shown.items():
            files.write_jsonl(folder / f"demonstrations_{name}.jsonl", rows)
        for name, rows in read.items():
            files.write_jsonl(folder / f"readings_{name}.jsonl", rows)
    report["demonstrations"] = {name: len(rows) for name, rows in shown.items()}
    report["readings"] = {name: len(rows) for name, rows in read.items()}
    files.write_json(REPORT, report)


if __name__ == "__main__":
    entry_point.run_stage(main)
