"""Lists of resources: ordered by kind and reference, or those of one key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from smarter_auth_mw.domain import RegisteredResource
from smarter_auth_mw.management.listings.cursors import CursorError
from smarter_auth_mw.management.listings.filters import CANDIDATES, ResourceFilters
from smarter_auth_mw.management.listings.pages import LAST_TEXT, Slice, cut
from smarter_auth_mw.postgres.lists import Lists
from smarter_auth_mw.postgres.storable import is_storable


class ResourcePlace(NamedTuple):
    """A place in a list of resources; those known only to an attached platform come last."""

    kind: str = ""
    lookup: str = ""
    id: int = 0
    is_platforms: bool = False

    @property
    def parts(self) -> Sequence[Any]:
        return tuple(self)

    @classmethod
    def of_parts(cls, parts: Sequence[Any]) -> ResourcePlace:
        """Parse the parts of a cursor; raises CursorError."""
        is_sound = [type(part) for part in parts] == [str, str, int, bool] and abs(parts[2]) < 2**63
        if not is_sound or not is_storable(parts[0] + parts[1]):
            raise CursorError()
        return cls(*parts)

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> ResourcePlace:
        return cls(row["kind"], row["lookup"], row["id"])


class ResourceList:
    """The resources of one account, or of all; within a scope without those of an attached platform."""

    place_type = ResourcePlace

    def __init__(
        self, filters: ResourceFilters, account: str | None, inner: int | None = None, *, scope: str | None = None
    ) -> None:
        self.filters = filters
        self._account = account
        self._scope = scope
        self._most_bound = None if inner is None else inner + 1

    def begins(self) -> ResourcePlace:
        return ResourcePlace(self.filters.kind or "", self._find if self.filters.kind else "")

    @property
    def _find(self) -> str:
        return (self.filters.find or "").replace("_", "-")

    async def read(self, lists: Lists, place: ResourcePlace, limit: int) -> Slice[RegisteredResource]:
        resources: list[RegisteredResource] = []
        end: ResourcePlace | None = place
        if not place.is_platforms:
            rows, end = cut(await lists.resources(self.arguments(place, limit + 1)), limit, ResourcePlace.of_row)
            resources = await lists.load_resources([row["id"] for row in rows], self._most_bound, self._scope)
            place = ResourcePlace(is_platforms=True)
        if end is None or end.is_platforms:
            platforms = await self._platforms(lists, place, limit - len(resources))
            return Slice(resources + platforms.items, platforms.end)
        return Slice(resources, end)

    async def _platforms(self, lists: Lists, place: ResourcePlace, limit: int) -> Slice[RegisteredResource]:
        """Read the platform's protected resources that have no own row."""
        if self._scope is not None:
            return Slice([], None)
        looked_at = await lists.platform_resources(place.kind, place.lookup, CANDIDATES)
        found: list[RegisteredResource] = []
        for resource in looked_at:
            if len(found) == limit:
                return Slice(found, place)
            loaded = await lists.load_platform_resource(resource)
            if loaded is not None and self._holds(loaded):
                found.append(loaded)
            place = ResourcePlace(resource.kind, resource.ref, is_platforms=True)
        return Slice(found, place if len(looked_at) == CANDIDATES else None)

    def _holds(self, resource: RegisteredResource) -> bool:
        return (
            self._account in (None, resource.account)
            and self.filters.kind in (None, resource.resource.kind)
            and self.filters.open is not True
            and resource.resource.ref.replace("_", "-").startswith(self._find)
            and self.filters.key_id in (None, *(key.key_id for key in resource.keys))
        )

    def arguments(self, place: ResourcePlace, most: int) -> dict[str, Any]:
        """Build what ``list_resources`` is asked with."""
        filters = self.filters
        driver = "key" if filters.key_id else "open" if filters.open else "lookup"
        return {
            "driver": driver,
            "account": self._account,
            "kind": filters.kind,
            "after_kind": place.kind,
            "after_lookup": place.lookup,
            "after_id": place.id,
            "end_kind": filters.kind or LAST_TEXT,
            "end_lookup": self._find + LAST_TEXT,
            "key_id": filters.key_id,
            "is_open": filters.open,
            "find_from": self._find,
            "find_until": self._find + LAST_TEXT,
            "most": most,
        }
