"""Settings come from the environment, when asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from matloop.errors import ConfigurationError
from matloop.settings import settings


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    for name in ("MATLOOP_MP_API_KEY", "MP_API_KEY", "PMG_MAPI_KEY", "MATLOOP_MODELS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    settings.cache_clear()
    yield
    settings.cache_clear()


def test_variables_are_read_once_and_secrets_stay_hidden(monkeypatch):
    """Values come from MATLOOP_ variables; a key does not show when settings are printed."""
    monkeypatch.setenv("MATLOOP_MODELS_DIRECTORY", "/models")
    monkeypatch.setenv("MP_API_KEY", "my-secret")
    found = settings()
    assert found.models_directory == Path("/models")
    assert found.mp_api_key.get_secret_value() == "my-secret"
    assert "my-secret" not in repr(found) + str(found)
    assert settings() is found


def test_the_projects_own_variable_wins(monkeypatch):
    """MATLOOP_MP_API_KEY goes before the variables that other packages read."""
    monkeypatch.setenv("PMG_MAPI_KEY", "theirs")
    monkeypatch.setenv("MATLOOP_MP_API_KEY", "ours")
    assert settings().mp_api_key.get_secret_value() == "ours"


def test_defaults(monkeypatch):
    """Without variables there is no key, and models lie in the user's cache."""
    monkeypatch.setenv("HOME", "/home/someone")
    assert settings().mp_api_key is None
    assert settings().models_directory == Path("/home/someone/.cache/matloop/models")


def test_a_wrong_value_names_its_variable(monkeypatch):
    """A URI where the name of a variable belongs is refused without being repeated."""
    monkeypatch.setenv("MATLOOP_MONGODB_URI_VARIABLE", "mongodb://me:secret@host")
    with pytest.raises(ConfigurationError, match="MATLOOP_MONGODB_URI_VARIABLE") as caught:
        settings()
    assert "secret" not in str(caught.value)


def test_importing_reads_nothing():
    """A wrong environment does no harm until settings are asked for."""
    code = "import matloop.settings as s; assert s.settings.cache_info().currsize == 0"
    environment = {"MATLOOP_MONGODB_URI_VARIABLE": "no name", "PATH": ""}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
