"""What an audit says of a resource's attributes."""

from nodeagent.api.auditing import text_of


def test_secrets_are_masked_however_deep_they_are():
    shown = {
        "name": "v",
        "cloud_init": {"hostname": "h", "user_data": "canary"},
        "many": [{"user_data": "canary"}, {"user_data": ""}],
    }
    text = text_of(shown, list(shown))
    assert "canary" not in text
    assert text.count("***") == 2
    assert '"hostname":"h"' in text


def test_only_the_attributes_asked_for_are_kept():
    assert text_of({"name": "v", "cpus": 2}, ["cpus"]) == '{"cpus":2}'
