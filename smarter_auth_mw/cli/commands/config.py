"""`smarter-auth config`: every setting in effect, and where it comes from."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from pydantic import SecretStr

from smarter_auth_mw.cli.output import Script, Summary, to_json
from smarter_auth_mw.cli.session import Session, say_where_data_is
from smarter_auth_mw.config.masking import mask_url
from smarter_auth_mw.config.origins import TOML
from smarter_auth_mw.config.settings import Settings

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = Annotated[bool, typer.Option("--schema", help=f"Print the JSON schema of {TOML} instead.")]


async def config(session: Session, *, schema: Schema = False) -> Summary | Script:
    """Print the value and the origin of each setting; passwords are masked.

    Example: smarter-auth config
    """
    if schema:
        document = schema_of_toml()
        return Script(to_json(document), document)
    settings = session.settings
    _ = session.routes  # Compile them too: their mistakes are mistakes of the configuration.
    say_where_data_is(settings)
    rows = [
        {"setting": name, "value": shown(getattr(settings, name)), "source": settings.origin(name)}
        for name in type(settings).model_fields
    ]
    return Summary([row | {"value": _in_a_line(row["value"])} for row in rows], rows)


def shown(value: Any) -> Any:
    """Return a setting's value for JSON, without its password."""
    if isinstance(value, SecretStr):
        return mask_url(value.get_secret_value())
    return list(value) if isinstance(value, tuple) else value


def schema_of_toml() -> dict[str, Any]:
    """Return the JSON schema of ``smarter_auth.toml``, in which every setting is optional."""
    schema = Settings.model_json_schema()
    for name, field in schema["properties"].items():
        field["default"] = shown(Settings.model_fields[name].default)
        del field["title"]
    description = "All settings are optional here; .env and the environment override this file."
    return {"$schema": DIALECT, **schema, "title": TOML, "description": description}


def _in_a_line(value: Any) -> Any:
    return "; ".join(value) if isinstance(value, list) else value
