"""The agent's settings: all have defaults, and a typing error is told, not ignored."""

import stat

import pytest

from core.errors import InvalidError
from core.paths import write_file
from core.work_queue import Limit
from nodeagent.config import Config, read_config
from nodeagent.services.work_kinds import Limits


def test_without_a_file_there_are_defaults(tmp_path):
    assert read_config(tmp_path / "agent.toml") == Config()
    assert (Config().api_port, Config().mesh_port) == (7443, 7444)


def test_what_the_file_says_is_taken(tmp_path):
    (tmp_path / "agent.toml").write_text('log_level = "DEBUG"\ntrust_shared_storage = true\n')
    assert read_config(tmp_path / "agent.toml") == Config(
        log_level="DEBUG", trust_shared_storage=True
    )


def test_limits_are_taken_for_the_kinds_named(tmp_path):
    (tmp_path / "agent.toml").write_text("[limits]\nmigrations = 5\nwaiting_max = 20\n")
    limits = read_config(tmp_path / "agent.toml").limits.by_kind()
    assert limits["migrations"] == Limit(5, 20)
    assert limits["boots"] == Limit(Limits().boots, 20)


@pytest.mark.parametrize(
    "content",
    [
        b"api_prot = 1",
        b"api_port = 'x'",
        b"api_port",
        b"log_level = '\xff'",
        b"[api]\nport = 1",
        b"[limits]\nboots = 0",
        b"[limits]\nboats = 1",
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_name(tmp_path, content):
    (tmp_path / "agent.toml").write_bytes(content)
    with pytest.raises(InvalidError, match=r"agent\.toml can't be used"):
        read_config(tmp_path / "agent.toml")


def test_a_file_is_written_whole_and_for_root_alone(tmp_path):
    file = tmp_path / "deep" / "secret"
    write_file(file, b"old")
    write_file(file, b"n" * 3_000_000)
    assert file.read_bytes() == b"n" * 3_000_000
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    write_file(file, b"open", mode=0o644)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert [path.name for path in file.parent.iterdir()] == ["secret"]
