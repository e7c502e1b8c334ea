"""The seeds' models, asynchronously and outside Django: bots, LLM clients, keys, and which key opens which."""

from smarter_auth_mw.model_sessions import acting_as
from smarter_auth_mw.models.bindings import ChatBot, ChatBotAPIKey, LLMClient, LLMClientAPIKey, SmarterAuthToken

__all__ = ["ChatBot", "ChatBotAPIKey", "LLMClient", "LLMClientAPIKey", "SmarterAuthToken", "acting_as"]
