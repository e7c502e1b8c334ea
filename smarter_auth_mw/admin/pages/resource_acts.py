"""Acts on resources: register, change, protect, open and remove them, and bind or unbind keys."""

from __future__ import annotations

from typing import Any

from smarter_auth_mw.admin.call import etag
from smarter_auth_mw.admin.pages.acts import Act, Trail, ask_or_open, confirmation, confirmed, impossible, outlook
from smarter_auth_mw.admin.pages.commands import command, no_route, option, together
from smarter_auth_mw.admin.pages.forms import FieldError, beside
from smarter_auth_mw.admin.pages.visit import Html, Reply, SeeOther, Visit, path_of
from smarter_auth_mw.admin.values import UUID_TEXT
from smarter_auth_mw.domain import Key, Protection, RegisteredResource
from smarter_auth_mw.errors import ConflictError, NotFoundError, RefusedError, UsageError

_FIELDS = ("kind", "ref", "name", "account", "domain", "on_error")


async def show_new(visit: Visit) -> Reply:
    typed = visit.form or visit.query
    context = {
        "typed": {name: typed.get(name) for name in (*_FIELDS, "protect", "no_route")},
        "kinds": visit.services.routes.kinds,
        "default_account": visit.services.settings.default_account,
        "command": command(
            "resource",
            "add",
            f"{typed.get('kind') or 'KIND'}:{typed.get('ref') or 'REF'}",
            *(word for name in _FIELDS[2:] for word in option(_flag(name), typed.get(name))),
            *(_flag(name) for name in ("protect", "no_route") if typed.get(name)),
        ),
    }
    return Html("resource_new.html", context)


async def create(visit: Visit) -> Reply:
    form = visit.form
    body: dict[str, Any] = {name: form.get(name) for name in _FIELDS if form.get(name)}
    body |= {name: True for name in ("protect", "no_route") if form.get(name)}
    try:
        made = await visit.document("create_resource", body={"kind": "", "ref": "", **body})
    except UsageError as error:
        raise FieldError("kind" if error.code == "unknown_kind" else "ref", error) from None
    except ConflictError as error:
        raise FieldError("domain" if "domain" in error.message else "ref", error, status=409) from None
    return SeeOther(path_of("resources", made["kind"], made["ref"]))


async def show_edit(visit: Visit) -> Reply:
    found = await _found(visit)
    kept = {name: getattr(found, name) or "" for name in ("name", "account", "domain", "on_error")}
    typed = {name: visit.form.get(name, value) for name, value in kept.items()}
    changed = {name: value for name, value in typed.items() if value != kept[name]}
    shown = changed or {name: kept[name] for name in (["name"] if kept["name"] else ["on_error"])}
    words = [word for name, value in shown.items() for word in (_flag(name), value)]
    context = {
        "found": found,
        "trail": _trail(found),
        "typed": typed,
        "etag": visit.form.get("etag") or etag(found.updated_at),
        "command": _command(visit, found, "resource", "set", found.resource, *words),
    }
    return Html("resource_edit.html", context)


async def edit(visit: Visit) -> Reply:
    found = await _found(visit)
    given = {name: visit.form.get(name) for name in ("name", "account", "domain", "on_error") if name in visit.form}
    body = {name: value or None for name, value in given.items() if value != (getattr(found, name) or "")}
    is_claim = "domain" in body
    with beside("name", UsageError), beside("domain" if is_claim else "account", ConflictError, RefusedError):
        await visit.ask("change_resource", body=body, if_match=visit.form.get("etag") or None)
    return _to(visit)


async def show_protect(visit: Visit) -> Reply:
    found = await _found(visit)
    name = found.resource
    if found.protection is Protection.DECLARED:
        return impossible(f"Protect {name}", "It is already declared protected.", _trail(found))
    says = [f"Requests for {name} without a valid token are refused from now on, whether or not keys are bound to it."]
    if not found.keys:
        says.append("No key is bound to it, so every request is refused until one is.")
    act = Act(f"Protect {name}?", "Protect", says, _command(visit, found, "resource", "protect", name))
    return act.html(_trail(found))


async def protect(visit: Visit) -> Reply:
    await visit.ask("protect_resource")
    return _to(visit)


async def show_unprotect(visit: Visit) -> Reply:
    found = await _found(visit)
    name = found.resource
    if found.keys:
        why = "Keys are bound to it, and each of them protects it. Unbind them first, on its page."
        return impossible(f"Open {name} to anyone", why, _trail(found))
    if not found.is_protected:
        return impossible(f"Open {name} to anyone", "It is already open.", _trail(found))
    words = _command(visit, found, "resource", "unprotect", name)
    act = Act(f"Open {name} to anyone?", "Open to anyone", [], words, is_danger=True)
    return act.html(_trail(found), visit, [name])


async def unprotect(visit: Visit) -> Reply:
    found = await _found(visit)
    await confirmed(visit, [found.resource])
    await visit.ask("unprotect_resource", body={"confirm": str(found.resource)})
    return _to(visit)


async def show_remove(visit: Visit) -> Reply:
    found = await _found(visit)
    name = found.resource
    if found.is_platforms:
        return impossible(f"Remove {name}", "It belongs to the platform: remove it there.", _trail(found))
    says = ["Its name, its domain and its bindings are deleted. The audit keeps its events."]
    if found.is_protected:
        says.append("It is protected now, and an unregistered resource is open.")
    commands = [_command(visit, found, "key", "unbind", key.key_id, name, "--allow-anonymous") for key in found.keys]
    commands += [_command(visit, found, "resource", "unprotect", name)] if found.is_protected else []
    commands += [_command(visit, found, "resource", "remove", name)]
    act = Act(f"Remove {name}?", "Remove", says, together(commands), is_danger=True)
    return act.html(_trail(found), visit, [name] if found.is_protected else [])


async def remove(visit: Visit) -> Reply:
    found = await _found(visit)
    if found.is_protected:
        await confirmed(visit, [found.resource])
    await visit.ask("remove_resource", opens=[found.resource] if found.is_protected else ())
    return SeeOther("resources")


async def show_bind(visit: Visit) -> Reply:
    found = await _found(visit)
    text = (visit.form or visit.query).get("key")
    context = {
        "found": found,
        "trail": _trail(found),
        "key": text,
        "command": _command(visit, found, "key", "bind", text or "KEY", found.resource),
    }
    return Html("resource_bind.html", context | confirmation(visit))


async def bind(visit: Visit) -> Reply:
    text = visit.form.get("key")
    try:
        key = await visit.call().listings.key(text.lower() if UUID_TEXT.fullmatch(text.lower()) else text, inner=0)
    except NotFoundError as error:
        raise FieldError("key", error) from None
    await ask_or_open(visit, "bind_key", path={**visit.path, "key_id": str(key.key_id)})
    return _to(visit)


async def show_unbind(visit: Visit) -> Reply:
    found, key = await _bound(visit)
    if found.resource not in key.bindings:
        return impossible(
            f"Unbind {key.name} from {found.resource}", "The key is not bound to this resource.", _trail(found)
        )
    held = await outlook(visit, found.resource, visit.services.settings.require)
    outcome = held.without(key, is_unbound=True)
    words = ["--allow-anonymous"] if outcome.is_opened else []
    act = Act(
        f"Unbind {key.name} from {found.resource}?",
        "Unbind",
        [outcome.text],
        _command(visit, found, "key", "unbind", key.key_id, found.resource, *words),
        is_danger=True,
    )
    return act.html(_trail(found), visit, [found.resource] if outcome.is_opened else [])


async def unbind(visit: Visit) -> Reply:
    await ask_or_open(visit, "unbind_key")
    return _to(visit)


def _command(visit: Visit, found: RegisteredResource, *words: object) -> str:
    """Return a command about the resource, also if no route reaches it."""
    return command(*words, no_route(visit.services.routes, found.resource))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


async def _found(visit: Visit) -> RegisteredResource:
    call = visit.call()
    return await call.find_resource(call.resource)


async def _bound(visit: Visit) -> tuple[RegisteredResource, Key]:
    call = visit.call()
    return await call.find_resource(call.resource), await call.find_key(call.key_id)


def _to(visit: Visit) -> SeeOther:
    return SeeOther(path_of("resources", visit.path["kind"], visit.path["ref"]))


def _trail(found: RegisteredResource) -> Trail:
    return (("Resources", "resources"), (str(found.resource), path_of("resources", *found.resource)))
