"""Settings: argument, then environment, then file."""

from __future__ import annotations

from pathlib import Path

import pytest

from modeldeploy import config
from modeldeploy.errors import ConfigurationError


@pytest.fixture
def file(tmp_path):
    """Give a function that writes the configuration file and an environment that names it."""

    def write(text, **environ):
        path = tmp_path / "modeldeploy.toml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return {"MODELDEPLOY_CONFIG": str(path), **environ}

    return write


def test_without_settings_the_defaults_hold(monkeypatch):
    settings = config.load({})
    assert settings.backend == "local"
    assert settings.home.is_absolute()
    assert settings.of_backend("local") == {}


def test_the_file_is_read(file):
    settings = config.load(
        file('home = "/somewhere"\nbackend = "vertex"\n[backends.vertex]\nplace = "here"\nport = 8\n')
    )
    assert (settings.home, settings.backend) == (Path("/somewhere"), "vertex")
    assert settings.of_backend("vertex") == {"place": "here", "port": "8"}


def test_the_environment_wins_over_the_file(file):
    environ = file(
        'home = "/somewhere"\nbackend = "vertex"\n[backends.my-own]\nplace = "here"\nkey = "k"\n',
        MODELDEPLOY_HOME="~/there",
        MODELDEPLOY_BACKEND="my-own",
        MODELDEPLOY_MY_OWN_PLACE="there",
    )
    settings = config.load(environ)
    assert (settings.home, settings.backend) == (Path.home() / "there", "my-own")
    assert settings.of_backend("my-own") == {"place": "there", "key": "k"}


def test_the_process_environment_is_the_default(monkeypatch, tmp_path):
    monkeypatch.setenv("MODELDEPLOY_HOME", str(tmp_path / "mine"))
    assert config.load().home == tmp_path / "mine"


def test_the_environment_is_not_shown(file):
    assert "hidden" not in repr(config.load({"MODELDEPLOY_X_TOKEN": "hidden"}))


def test_the_same_settings_serve_another_home(tmp_path):
    settings = config.load({})
    assert config.at(settings, tmp_path).home == tmp_path
    assert config.at(settings, tmp_path).backend == settings.backend


def test_a_named_file_that_is_missing_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="which is not a file"):
        config.load({"MODELDEPLOY_CONFIG": str(tmp_path / "nowhere.toml")})


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("backend = ", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        ('backnd = "local"', r"unknown keys \['backnd'\]"),
        ("backends = 3", "'backends'"),
        ("[backends]\nlocal = 3", "'backends'"),
        ("backend = 3", "'backend'"),
        ("home = []", "'home'"),
    ],
)
def test_a_wrong_file_is_refused_and_named(file, text, part):
    environ = file(text)
    with pytest.raises(ConfigurationError, match=part) as caught:
        config.load(environ)
    assert environ["MODELDEPLOY_CONFIG"] in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("key", ["api_key", "password", "db_password", "client_secret", "token", "API_KEY"])
def test_a_secret_in_the_file_is_refused_with_the_variable_to_set_and_not_shown(file, key):
    environ = file(f'[backends.my-own]\n{key} = "hunter2"\n')
    with pytest.raises(ConfigurationError, match=f"set MODELDEPLOY_MY_OWN_{key.upper()}") as caught:
        config.load(environ)
    assert "hunter2" not in str(caught.value)


def test_the_file_in_the_users_own_directory_is_found(monkeypatch, tmp_path):
    import platformdirs

    monkeypatch.setattr(platformdirs, "user_config_path", lambda name: tmp_path)
    (tmp_path / "modeldeploy.toml").write_text('backend = "memory"')
    assert config.load({}).backend == "memory"
