"""Settings of the machine, from environment variables; read when asked for, never on import."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from matloop.errors import ConfigurationError


class Settings(BaseSettings):
    """What differs between machines but not between campaigns; each field is ``MATLOOP_<FIELD>``.

    Attributes
    ----------
    mp_api_key
        Key of the Materials Project; ``MP_API_KEY`` and ``PMG_MAPI_KEY`` are read as well.
    programs
        Commands that campaigns may run by name; ``MATLOOP_PROGRAMS__MATTERGEN`` names one. A
        campaign file cannot bring another: it is data, and may be anybody's.
    checkpoints
        Files of trained models that such programs may load, by name;
        ``MATLOOP_CHECKPOINTS__MINE`` names one. Loading them may execute code.
    program_variables
        Names of environment variables that programs see beside the harmless ones, with commas.
    program_folder
        Where programs work; what they leave there is kept. Without it they work in temporary
        folders that are removed.
    """

    model_config = SettingsConfigDict(
        env_prefix="MATLOOP_", env_nested_delimiter="__", frozen=True, populate_by_name=True
    )

    mp_api_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("MATLOOP_MP_API_KEY", "MP_API_KEY", "PMG_MAPI_KEY")
    )
    programs: dict[str, str] = Field(default_factory=dict)
    checkpoints: dict[str, Path] = Field(default_factory=dict)
    program_variables: str = ""
    program_folder: Path | None = None


@cache
def settings() -> Settings:
    """Return the settings, read from the environment at the first call of the process.

    Raises
    ------
    ConfigurationError
        If a variable cannot be read. The message names it, never its value.
    """
    try:
        return Settings()
    except ValidationError as error:
        names = sorted({"__".join(str(step) for step in e["loc"]).upper() for e in error.errors()})
        raise ConfigurationError(
            f"the environment variables of {', '.join(names)} (MATLOOP_...) cannot be read"
        ) from None
    except SettingsError:
        raise ConfigurationError(
            "MATLOOP_PROGRAMS and MATLOOP_CHECKPOINTS take no plain text; name each entry in a "
            "variable of its own, such as MATLOOP_PROGRAMS__MATTERGEN"
        ) from None
