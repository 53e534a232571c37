"""Settings: what is accepted, and what is said about the rest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsp_server.settings import EngineSettings, Settings
from lsp_server.settings_reader import client_config, concerns_us, read_settings

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["engine", "completion", "edit", "languages", "logLevel", "url", "debounceMs", "min", "enabled", "maxTokens"]


@given(st.recursive(json_values, lambda inner: st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)))
def test_no_input_is_fatal_and_what_is_refused_is_named(raw):
    settings, problems = read_settings(raw)
    assert isinstance(settings, Settings)
    assert all(problem.name in problem.message for problem in problems)
    assert problems or settings == read_settings(raw)[0]


def test_names_are_camel_case_and_null_means_not_set():
    raw = {"unmask": {"completion": {"maxPrefixChars": 500, "deadlineMs": None, "debounceMs": {"max": 50}}}}
    settings, problems = read_settings(raw)
    assert problems == ()
    assert settings.completion.max_prefix_chars == 500
    assert (settings.completion.debounce_ms.min, settings.completion.debounce_ms.max) == (30, 50)
    assert settings.completion.deadline_ms == Settings().completion.deadline_ms
    assert read_settings(None) == (Settings(), ())


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ({"completion": {"maxTokens": True}}, "unmask.completion.maxTokens"),
        ({"completion": {"maxTokens": 5000}}, "unmask.completion.maxTokens"),
        ({"completion": {"maxTokens": 1.5}}, "unmask.completion.maxTokens"),
        ({"completion": 5}, "unmask.completion"),
        ({"engine": {"url": "localhost:8712"}}, "unmask.engine.url"),
        ({"engine": {"dtype": "int7"}}, "unmask.engine.dtype"),
        ({"languages": {"enabled": ["lua", 5]}}, "unmask.languages.enabled"),
        ({"logLevel": "loud"}, "unmask.logLevel"),
        ({"nothing": 1}, "unmask.nothing"),
    ],
)
def test_a_wrong_value_is_named_and_the_others_count(raw, name):
    settings, (problem,) = read_settings({"edit": {"maxSelectionLines": 9}, **raw})
    assert problem.name == name
    assert settings.edit.max_selection_lines == 9
    assert settings.completion == Settings().completion


def test_a_token_is_never_shown():
    _, (problem,) = read_settings({"engine": {"token": ["secret-token"]}})
    assert "secret-token" not in problem.message
    settings, _ = read_settings({"engine": {"token": "secret-token"}})
    assert "secret-token" not in repr(settings)


def test_contradictions_are_resolved_and_said():
    settings, (problem,) = read_settings({"engine": {"token": "a", "tokenFile": "/b"}})
    assert problem.name == "unmask.engine.tokenFile" and settings.engine.token_file == ""
    settings, (problem,) = read_settings({"completion": {"debounceMs": {"min": 200}}})
    assert (settings.completion.debounce_ms.min, settings.completion.debounce_ms.max) == (200, 200)


def test_the_engine_is_configured_by_settings_before_environment(monkeypatch):
    monkeypatch.setenv("UNMASK_CLIENT_URL", "http://from-environment")
    monkeypatch.setenv("UNMASK_ENGINE_MODEL", "from-environment")
    config, problems = client_config(EngineSettings(model="mine", edit_model="auto"))
    assert problems == ()
    assert (config.url, config.engine.model) == ("http://from-environment", "mine")
    config, _ = client_config(EngineSettings(url="http://mine"))
    assert (config.url, config.engine.model) == ("http://mine", "from-environment")
    monkeypatch.setenv("UNMASK_CLIENT_URLL", "http://typo")
    config, (problem,) = client_config(EngineSettings())
    assert "UNMASK_CLIENT_URLL" in problem.message and config.url == ""


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"unmask": {}}, True),
        ({"engine": {"url": "http://engine:1"}}, True),
        ({"logLevel": "debug", "gopls": {}}, True),
        ({"gopls": {"staticcheck": True}, "pylsp": {}}, False),
        ({}, False),
        (None, False),
    ],
)
def test_what_is_pushed_to_every_server_concerns_us_only_with_a_section_of_ours(raw, expected):
    assert concerns_us(raw) is expected


def test_other_sections_beside_ours_do_not_hide_it():
    settings, problems = read_settings({"unmask": {"engine": {"url": "http://engine:1"}}, "python": {"engine": 3}})
    assert settings.engine.url == "http://engine:1"
    assert not problems
