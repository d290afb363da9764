import json

import pytest
from small_corpus import DEMONSTRATION, SHARES, write_stories, write_turns


@pytest.fixture
def embedded(settings, tmp_path):
    """Return prepare's settings for a made-up corpus with one demonstration.

    It has 20 conversations on 10 stories, of which none is marked.
    """
    write_turns(tmp_path / "turns.csv", 20, article=lambda conversation: 100 + conversation // 2)
    write_stories(tmp_path, [None] * 10)
    (tmp_path / "demonstrations.jsonl").write_text(json.dumps(DEMONSTRATION) + "\n")
    return settings.prepare.model_copy(update=SHARES | {"embedded_folder": str(tmp_path)})
