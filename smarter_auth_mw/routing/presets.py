"""Lines of ROUTES for the URLs of the Smarter platform, in the shapes that it has had over the years.

Its console serves the API below ``/api/``, and its API hosts serve the same views at the root.

Left out are the bots that its first releases also served at ``/api/v1/<N>/``: a pattern for them would own all of
``/api/v1/``. Its sandbox pages require a session of the platform, and are not resources unless a line with ``always``
includes them. The ``none`` lines keep its dashboards out of patterns as wide as ``/workbench/{name}``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

SMARTER = "smarter"
CHATBOT = "smarter-chatbot"
KINDS = {SMARTER: "llm_client", CHATBOT: "chatbot"}
"""The kind that each preset's lines name, and the order in which they claim hosts."""

_API_ROOTS = ("/api", "")
"""The roots of the platform's API: that of the console's host, and that of the API hosts."""
_API = {
    SMARTER: (
        "llm_client {api}/v1/llm-clients/{ref:hashed}",
        "llm_client {api}/v1/workbench/{ref:int}/prompt",
        "llm_client {api}/v1/workbench/{ref:int}/config",
        "llm_client {api}/v1/cli/prompt/{name}",
        "llm_client {api}/v1/cli/prompt/config/{name}",
    ),
    CHATBOT: (
        "chatbot {api}/v1/chatbots/{ref:hashed}",
        "chatbot {api}/v1/chatbots/smarter/{name}",
        "chatbot {api}/v0/chatbots/{ref:int}",
        "chatbot {api}/v1/chatbot/{ref:int}",
        "chatbot {api}/v1/chatbot/smarter/{name}",
        "chatbot {api}/v1/smarter/{name}",
        "chatbot {api}/v1/workbench/{ref:int}/chat",
        "chatbot {api}/v1/cli/chat/{name}",
        "chatbot {api}/v1/cli/chat/config/{name}",
    ),
}
_SANDBOX = "none {api}/v1/prompt/**"
_CONSOLE = {SMARTER: "none /workbench/llm-clients/**", CHATBOT: "none /workbench/chatbots/**"}
_DASHBOARDS = (
    "none /workbench/api/**",
    "none /authtoken/**",
    "none /dashboard/**",
    "none /account/**",
)
_LINES = {
    preset: (
        *(line.replace("{api}", root) for root in _API_ROOTS for line in (*_API[preset], _SANDBOX)),
        _CONSOLE[preset],
        *_DASHBOARDS,
    )
    for preset in KINDS
}


def lines(preset: str, among: Collection[str], api_domains: Sequence[str]) -> list[str] | None:
    """Return the lines of a preset, given all presets in use; None for an unknown preset.

    The hosts below the API domains belong to the newest preset in use.
    """
    if preset not in _LINES:
        return None
    hosts = [f"{KINDS[preset]} host:{{label}}.{{account}}.{domain}" for domain in api_domains]
    return [*_LINES[preset], *(hosts if owner_of_hosts(among) == KINDS[preset] else ())]


def owner_of_hosts(presets: Collection[str]) -> str | None:
    """Return the kind whose resources the platform serves by host, given the presets in use."""
    return next((kind for preset, kind in KINDS.items() if preset in presets), None)
