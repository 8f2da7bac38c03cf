"""Settings of the machine, from environment variables; read when asked for, never on import."""

from __future__ import annotations

from functools import cache

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What differs between machines but not between campaigns; each field is ``MATLOOP_<FIELD>``.

    Attributes
    ----------
    mp_api_key
        Key of the Materials Project; ``MP_API_KEY`` and ``PMG_MAPI_KEY`` are read as well.
    """

    model_config = SettingsConfigDict(env_prefix="MATLOOP_", frozen=True, populate_by_name=True)

    mp_api_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("MATLOOP_MP_API_KEY", "MP_API_KEY", "PMG_MAPI_KEY")
    )


@cache
def settings() -> Settings:
    """Return the settings, read from the environment at the first call of the process."""
    return Settings()
