"""The platform's models, asynchronous and without Django: chatbots, LLM clients, keys and bindings."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Self
from uuid import UUID

from smarter_auth_mw.decision import opens
from smarter_auth_mw.domain import Protection, RegisteredBinding, RegisteredResource, Resource
from smarter_auth_mw.errors import UsageError
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.model_sessions import acting_as, current
from smarter_auth_mw.models.base import TIMES, TimestampedModel
from smarter_auth_mw.models.querysets import Manager, Objects, QuerySet
from smarter_auth_mw.models.resources import ResourceModel
from smarter_auth_mw.models.tokens import TokenModel, key_reference
from smarter_auth_mw.postgres.transaction import Transaction
from smarter_auth_mw.routing.references import integer, plain

__all__ = ["ChatBot", "ChatBotAPIKey", "LLMClient", "LLMClientAPIKey", "SmarterAuthToken", "acting_as"]


class ChatBot(ResourceModel):
    """A chatbot: a resource of the kind ``chatbot``."""

    kind = "chatbot"

    @property
    def chatbotapikey_set(self) -> Manager[ChatBotAPIKey]:
        """The bindings of this chatbot."""
        return Manager(ChatBotAPIKey, (("chatbot", self),))


class LLMClient(ResourceModel):
    """An LLM client: a resource of the kind ``llm_client``."""

    kind = "llm_client"

    @property
    def llmclientapikey_set(self) -> Manager[LLMClientAPIKey]:
        """The bindings of this LLM client."""
        return Manager(LLMClientAPIKey, (("llm_client", self),))


class SmarterAuthToken(TokenModel):
    """An API key: created, bound, rotated, deactivated, and revoked when it is deleted."""

    @property
    def chatbotapikey_set(self) -> Manager[ChatBotAPIKey]:
        """The bindings of this key to chatbots."""
        return Manager(ChatBotAPIKey, (("api_key", self),))

    @property
    def llmclientapikey_set(self) -> Manager[LLMClientAPIKey]:
        """The bindings of this key to LLM clients."""
        return Manager(LLMClientAPIKey, (("api_key", self),))


class APIKeyModel(TimestampedModel):
    """Binds a key to a resource. While a resource has a binding, it requires a token."""

    objects = Objects()
    api_key: SmarterAuthToken
    api_key_id: str
    """The digest of the key's newest token, as on the platform."""

    _owner: ClassVar[str] = ""
    _owner_model: ClassVar[type[ResourceModel]] = ResourceModel
    _hidden = ("api_key_id",)

    def __init_subclass__(cls) -> None:
        """Set up a kind of binding: the kinds differ only in the name and the model of the owner."""
        super().__init_subclass__()
        owner, owner_id = cls._owner, f"{cls._owner}_id"
        cls._made_from = (owner, owner_id, "api_key", "api_key_id")
        cls._fields = {
            **dict.fromkeys(("id", owner_id, "api_key_id", *TIMES)),
            owner: cls._owner_model,
            "api_key": SmarterAuthToken,
        }
        cls._narrowings = {
            **dict.fromkeys((owner, owner_id), cls._ids_by_owner),
            **dict.fromkeys(("api_key", "api_key_id"), cls._ids_by_key),
            **dict.fromkeys(("id", "pk"), cls._ids_by_id),
        }

    def __init__(self, **given: Any) -> None:
        for name in self._made_from:
            setattr(self, name, given.pop(name, None))
        if given:
            raise TypeError(f"{type(self).__name__} takes {', '.join(self._made_from)}, not {', '.join(given)}.")

    @classmethod
    def _cached_set(cls, given: Iterable[object], owner: object, *, invalidate: bool) -> QuerySet[Self]:
        """Return the owner's bindings from the cache of requests, or without an owner all bindings, not cached.

        Positional arguments may come in either order: the platform documents both.
        """
        for one in given:
            owner, invalidate = (owner, one) if isinstance(one, bool) else (one, invalidate)
        if owner is None:
            return QuerySet(cls)
        return QuerySet(cls, fetch=partial(cls._cached, cls._resource(owner), invalidate=invalidate))

    @classmethod
    async def _cached(cls, resource: Resource, *, invalidate: bool) -> list[Self]:
        connection = await current()
        bindings = await connection.bindings(resource, invalidate=invalidate)
        read, found = connection.remembered.peek(resource.lookup) or (None, [])
        if read is not bindings:
            async with connection.reading() as transaction:
                ids = await transaction.binding_ids(resource.kind, resource=resource)
                found = await transaction.bindings(resource.kind, ids)
                found += _of_platform(await transaction.resource(resource))
            connection.remembered.put(resource.lookup, (bindings, found))
        return [cls._of(record) for record in found]

    @classmethod
    async def _has_active(cls, owner: object, *, invalidate: bool) -> bool:
        connection = await current()
        bindings = await connection.bindings(cls._resource(owner), invalidate=invalidate)
        now_s = time.time()
        return any(opens(binding, bindings, now_s) for binding in bindings.bindings)

    @classmethod
    def _resource(cls, owner: object) -> Resource:
        """Return the resource of an owner that is given as an object or by its number."""
        if isinstance(owner, cls._owner_model):
            return owner.resource
        ref = plain(str(owner)) if isinstance(owner, int | str) else None
        if ref is None:
            raise UsageError(f"{cls._owner} is a {cls._owner_model.__name__}, not {type(owner).__name__}.")
        return Resource(cls._owner_model.kind, ref)

    @classmethod
    async def _all_ids(cls, transaction: Transaction) -> Sequence[int]:
        return await transaction.binding_ids(cls._owner_model.kind)

    @classmethod
    async def _elsewhere(cls, transaction: Transaction, lookups: Sequence[tuple[str, Any]]) -> list[RegisteredBinding]:
        kind = cls._owner_model.kind
        if not await transaction.is_platforms(kind):
            return []
        owners = [value for name, value in lookups if name in (cls._owner, f"{cls._owner}_id") and value is not None]
        if owners:
            return _of_platform(await transaction.resource(cls._resource(owners[0])))
        return [binding for one in await transaction.resources(kind) for binding in _of_platform(one)]

    def __eq__(self, other: object) -> bool:
        """Compare key and resource: a binding of an attached platform has no id here."""
        if type(other) is not type(self) or not self.ready or not other.ready:
            return self is other
        return _identity_of(self._record) == _identity_of(other._record)

    def __hash__(self) -> int:
        return hash(_identity_of(self._record)) if self.ready else super().__hash__()

    @classmethod
    async def _ids_by_owner(cls, transaction: Transaction, value: Any) -> Sequence[int]:
        return await transaction.binding_ids(cls._owner_model.kind, resource=cls._resource(value))

    @classmethod
    async def _ids_by_key(cls, transaction: Transaction, value: Any) -> Sequence[int]:
        key_ids = await _key_ids(transaction, value)
        return await transaction.binding_ids(cls._owner_model.kind, key_id=key_ids[0]) if key_ids else []

    @classmethod
    async def _ids_by_id(cls, _: Transaction, value: Any) -> Sequence[int]:
        number = integer(str(value))
        return [] if number is None else [int(number)]

    @classmethod
    async def _load(cls, transaction: Transaction, ids: Sequence[int]) -> list[RegisteredBinding]:
        return await transaction.bindings(cls._owner_model.kind, ids)

    @classmethod
    def _values(cls, record: RegisteredBinding) -> Mapping[str, Any]:
        owner, key = cls._owner_model._of(record.resource), SmarterAuthToken._of(record.key)
        return {
            "id": record.id,
            "created_at": record.created_at,
            "updated_at": record.updated_at,
            cls._owner: owner,
            f"{cls._owner}_id": owner.id,
            "api_key": key,
            "api_key_id": key.digest,
        }

    @classmethod
    def _sources(cls, record: RegisteredBinding) -> Iterable[str]:
        return [f"resource:{record.resource.resource.lookup}"]

    async def _insert(self, acts: Management) -> RegisteredBinding:
        owner = getattr(self, self._owner)
        resource = self._resource(getattr(self, f"{self._owner}_id") if owner is None else owner)
        asked = key_reference(self.api_key if self.api_key is not None else self.api_key_id)
        key_id = asked if isinstance(asked, UUID) else (await acts.owner(asked)).key_id
        await acts.bind(key_id, resource, register=False)
        return await acts.binding(key_id, resource)

    async def _update(self, acts: Management, _: Mapping[str, Any]) -> RegisteredBinding:
        return await acts.touch_binding(self.api_key.key_id, self._record.resource.resource)

    async def _remove(self, acts: Management, *, allow_anonymous: bool) -> None:
        await acts.unbind(self.api_key.key_id, self._record.resource.resource, allow_anonymous=allow_anonymous)


class ChatBotAPIKey(APIKeyModel):
    """Binds a key to a chatbot. A chatbot with a binding requires a token; without any it is open."""

    chatbot: ChatBot
    chatbot_id: int | None

    _owner = "chatbot"
    _owner_model = ChatBot

    @classmethod
    def get_cached_objects(
        cls, *given: ChatBot | int | bool, invalidate: bool = False, chatbot: ChatBot | int | None = None
    ) -> QuerySet[Self]:
        """Return the chatbot's bindings from the cache of requests, as fresh as decisions; or all bindings."""
        return cls._cached_set(given, chatbot, invalidate=invalidate)

    @classmethod
    async def has_active_api_key(cls, chatbot: ChatBot | int, invalidate: bool = False) -> bool:  # noqa: FBT001, FBT002
        """Return whether at least one key opens the chatbot now."""
        return await cls._has_active(chatbot, invalidate=invalidate)


class LLMClientAPIKey(APIKeyModel):
    """Binds a key to an LLM client. A client with a binding requires a token; without any it is open."""

    llm_client: LLMClient
    llm_client_id: int | None

    _owner = "llm_client"
    _owner_model = LLMClient

    @classmethod
    def get_cached_objects(
        cls, *given: LLMClient | int | bool, invalidate: bool = False, llm_client: LLMClient | int | None = None
    ) -> QuerySet[Self]:
        """Return the LLM client's bindings from the cache of requests, as fresh as decisions; or all bindings."""
        return cls._cached_set(given, llm_client, invalidate=invalidate)

    @classmethod
    async def has_active_api_key(cls, llm_client: LLMClient | int, invalidate: bool = False) -> bool:  # noqa: FBT001, FBT002
        """Return whether at least one key opens the LLM client now."""
        return await cls._has_active(llm_client, invalidate=invalidate)


def _identity_of(record: RegisteredBinding) -> tuple[Resource, UUID]:
    return record.resource.resource, record.key.key_id


def _of_platform(resource: RegisteredResource | None) -> list[RegisteredBinding]:
    """Return a resource's bindings to keys of an attached platform, which are changed only there."""
    if resource is None:
        return []
    is_declared = resource.protection is Protection.DECLARED
    bare = replace(resource, keys=(), protection=Protection.DECLARED if is_declared else Protection.BOUND)
    keys = [key for key in resource.keys if key.is_platforms]
    return [RegisteredBinding(None, key.created_at, key.updated_at, bare, key) for key in keys]


async def _key_ids(transaction: Transaction, value: object) -> list[UUID]:
    """Return the ids of the key with this id, or an empty list."""
    asked = key_reference(value)
    return [asked] if isinstance(asked, UUID) else list((await transaction.owners([asked])).values())
