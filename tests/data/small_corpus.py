"""A made-up corpus of a few turns, in files."""

import json

HEADER = "id,article_id,conversation_id,turn_id,text,Emotion,EmotionalPolarity,Empathy\n"
SHARES = {"validation_fraction": 0.1, "test_fraction": 0.2, "seed": 13}
DEMONSTRATION = {
    "conversation": "0", "turn": 1, "concern": "the flood", "emotion": "fear", "intensity": 3,
    "approach": "Listen", "answer": "That sounds hard.",
}  # fmt: skip
MESSAGE = {"text": "We lost the barn too."} | {
    key: value for key, value in DEMONSTRATION.items() if key not in ("conversation", "turn")
}


def write_turns(path, conversations, turns=2, article=lambda conversation: "NULL", said="said"):
    rows = [f"{c}{t},{article(c)},{c},{t},{said} {c} {t},1,2,3\n" for c in range(conversations) for t in range(turns)]
    path.write_text(HEADER + "".join(rows))
    return path


def write_stories(folder, marks):
    """Write stories 100, 101, ... with these values of `part`, or without where it is None."""
    rows = [{"article_id": 100 + i} | ({"part": part} if part else {}) for i, part in enumerate(marks)]
    (folder / "stories.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def stories(parts):
    return {name: {turn.story for turn in turns} for name, turns in parts.items()}


def prepare_settings(settings, folder):
    """Write a corpus with one demonstration into a folder, and return prepare's settings for it.

    It has 20 conversations on 10 stories, of which none is marked.
    """
    write_turns(folder / "turns.csv", 20, article=lambda conversation: 100 + conversation // 2)
    write_stories(folder, [None] * 10)
    (folder / "demonstrations.jsonl").write_text(json.dumps(DEMONSTRATION) + "\n")
    return settings.prepare.model_copy(update=SHARES | {"embedded_folder": str(folder)})
