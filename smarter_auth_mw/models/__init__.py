"""The platform's models, asynchronously and outside Django: bots, LLM clients, keys, and which key opens which.

They know the write side and the database that ``connect`` or a running app has opened, and nothing of requests.
Begin with ``models/bindings.py``; ``models/stored.py`` lists what a model declares.
"""

from smarter_auth_mw.model_sessions import acting_as
from smarter_auth_mw.models.bindings import ChatBot, ChatBotAPIKey, LLMClient, LLMClientAPIKey, SmarterAuthToken

__all__ = ["ChatBot", "ChatBotAPIKey", "LLMClient", "LLMClientAPIKey", "SmarterAuthToken", "acting_as"]
