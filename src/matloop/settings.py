"""Settings of the machine, from environment variables; read when asked for, never on import."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from matloop.errors import ConfigurationError, Mistake


class Settings(BaseSettings):
    """What differs between machines but not between campaigns; each field is ``MATLOOP_<FIELD>``.

    Attributes
    ----------
    models_directory
        Folder in which models given by a bare file name are looked for.
    mp_api_key
        Key of the Materials Project; ``MP_API_KEY`` and ``PMG_MAPI_KEY`` are read as well.
    mongodb_uri_variable
        Name of the environment variable that holds the URI of the MongoDB server.
    """

    model_config = SettingsConfigDict(env_prefix="MATLOOP_", frozen=True, populate_by_name=True)

    models_directory: Path = Field(default_factory=lambda: Path.home() / ".cache/matloop/models")
    mp_api_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("MATLOOP_MP_API_KEY", "MP_API_KEY", "PMG_MAPI_KEY")
    )
    mongodb_uri_variable: str = Field("MATLOOP_MONGODB_URI", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")


@cache
def settings() -> Settings:
    """Return the settings, read from the environment at the first call of the process.

    Raises
    ------
    ConfigurationError
        Naming every variable that is wrong. Values are not repeated: they may be secrets.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise ConfigurationError(
            [
                Mistake(f"MATLOOP_{str(fault['loc'][0]).upper()}", fault["msg"])
                for fault in error.errors(include_url=False, include_input=False)
            ]
        ) from None
