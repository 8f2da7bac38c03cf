"""Settings come from the environment, when asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from matloop.errors import ConfigurationError
from matloop.settings import settings


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    for name in ("MATLOOP_MP_API_KEY", "MP_API_KEY", "PMG_MAPI_KEY"):
        monkeypatch.delenv(name, raising=False)
    settings.cache_clear()
    yield
    settings.cache_clear()


def test_variables_are_read_once_and_secrets_stay_hidden(monkeypatch):
    """A key is read from the environment once, and does not show when settings are printed."""
    monkeypatch.setenv("MP_API_KEY", "my-secret")
    found = settings()
    assert found.mp_api_key.get_secret_value() == "my-secret"
    assert "my-secret" not in repr(found) + str(found)
    assert settings() is found


def test_the_projects_own_variable_wins(monkeypatch):
    """MATLOOP_MP_API_KEY goes before the variables that other packages read."""
    monkeypatch.setenv("PMG_MAPI_KEY", "theirs")
    monkeypatch.setenv("MATLOOP_MP_API_KEY", "ours")
    assert settings().mp_api_key.get_secret_value() == "ours"


def test_without_variables_there_is_no_key():
    """The Materials Project is optional."""
    assert settings().mp_api_key is None


def test_importing_reads_nothing():
    """Settings are read when asked for, not when the module is imported."""
    code = "import matloop.settings as s; assert s.settings.cache_info().currsize == 0"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_programs_are_named_one_by_one(monkeypatch):
    """Each program has a variable of its own; a value that cannot be read is not repeated."""
    monkeypatch.setenv("MATLOOP_PROGRAMS__MATTERGEN", "/bin/true --all")
    assert settings().programs == {"mattergen": "/bin/true --all"}
    settings.cache_clear()
    monkeypatch.setenv("MATLOOP_PROGRAMS", "secret words")
    with pytest.raises(ConfigurationError, match="MATLOOP_PROGRAMS__MATTERGEN") as caught:
        settings()
    assert "secret" not in str(caught.value)
