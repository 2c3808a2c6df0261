"""What the command prints, word for word: the stories of tests/golden/cli, played against a stand-in agent."""

from pathlib import Path

import pytest

from tests.golden.cli.cases import play
from tests.golden.cli.stub import StubAgent
from tests.golden.cli.world import small_cluster

STORIES = sorted((Path(__file__).parents[1] / "golden" / "cli").glob("*.txt"))


@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.stem)
def test_the_command_prints_what_the_story_says(story, rewrite, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    told = story.read_text()
    with StubAgent(small_cluster()) as agent:
        now = play(told, agent.address)
    if rewrite:
        story.write_text(now)
    assert now == told
