"""Acts on keys: create, rotate, change, bind, deactivate and revoke; each act is a page with a form."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from smarter_auth_mw.admin.call import etag
from smarter_auth_mw.admin.pages.acts import Act, ask_or_open, confirmation, impossible, outcomes
from smarter_auth_mw.admin.pages.commands import changes_of_key, command, lines, no_route, option, together
from smarter_auth_mw.admin.pages.forms import FieldError, Fields, beside
from smarter_auth_mw.admin.pages.visit import Html, Reply, SeeOther, Visit, path_of
from smarter_auth_mw.admin.requests import MAX_IDS
from smarter_auth_mw.config.durations import RULE, parse_duration
from smarter_auth_mw.domain import Key, KeyState, Resource
from smarter_auth_mw.errors import ConflictError, InvalidReferenceError, NotFoundError, UnknownKindError, UsageError
from smarter_auth_mw.management import naming
from smarter_auth_mw.management.leaks import copied_words
from smarter_auth_mw.management.lifetimes import LifetimeError
from smarter_auth_mw.postgres.storable import checked_labels
from smarter_auth_mw.tokens import MAX_TOKEN_BYTES, Token, without_tokens

_WHEN = f"{RULE}; a date, for example 2027-01-31; or empty"


MOST_PASTED = 500
"""The maximum number of tokens in one form, which its size allows."""
_LEAKS = command("key", "revoke", "--token-file", "FILE")
_REVOKED = "It is revoked for good. Create another key instead."
_IMPOSSIBLE: Mapping[str, Mapping[KeyState, str]] = {
    "Rotate": {KeyState.EXPIRED: "It has expired, so a new token would not work. First change its expiry."},
    "Activate": {
        KeyState.ACTIVE: "It is already active.",
        KeyState.EXPIRED: "It has expired: change its expiry instead.",
    },
    "Deactivate": {KeyState.INACTIVE: "It is already inactive."},
}
"""The acts that are refused for a key, by its state, with the reason."""

Show = Callable[[Visit, Key], Awaitable[Reply]]


def _unless_impossible(act: str) -> Callable[[Show], Callable[[Visit], Awaitable[Reply]]]:
    """Show the form of an act on a key; where the act is impossible, say why in its place."""

    def form_of(show: Show) -> Callable[[Visit], Awaitable[Reply]]:
        async def shown(visit: Visit) -> Reply:
            key = await _changeable(visit)
            why = _hindrance(key, act, visit.now)
            return impossible(f"{act} {key.name}", why, _trail(visit, key)) if why else await show(visit, key)

        return shown

    return form_of


def _hindrance(key: Key, act: str, now: datetime) -> str:
    if key.is_platforms:
        return "It belongs to the platform: change it there."
    state = key.state(now)
    return _REVOKED if state is KeyState.REVOKED else _IMPOSSIBLE.get(act, {}).get(state, "")


async def show_new(visit: Visit) -> Reply:
    typed = visit.form or visit.query
    context = {
        "typed": {name: typed.get(name) for name in ("name", "account", "bind", "description", "labels", "expires")},
        "default_account": visit.operator.account or visit.services.settings.default_account,
        "longest": visit.services.settings.max_key_lifetime,
        "taken": getattr(visit.error, "key_id", None),
        "command": _creation(visit, typed),
    }
    return Html("key_new.html", context)


async def create(visit: Visit) -> Reply:
    form = visit.form
    body: dict[str, Any] = {
        "name": form.get("name"),
        "description": form.get("description"),
        "labels": _labels(form.get("labels")),
        "bind": _several(form.all("bind")),
        **({"account": form.get("account")} if form.get("account") else {}),
        "expires_at": _expiry(form.get("expires")),
    }
    try:
        with beside("bind", UnknownKindError, InvalidReferenceError, NotFoundError), beside("expires", LifetimeError):
            made = await visit.document("create_key", body=body)
    except ConflictError as conflict:
        if (key_id := getattr(conflict, "key_id", None)) is None:
            raise
        words = f"{conflict} If you have already sent this form, the key exists and its token was shown."
        hint = "A token is shown once. If it is lost, rotate the key."
        raise FieldError("name", words, status=409, hint=hint, key_id=key_id) from None
    context = {
        "title": "Key created",
        "key_id": made["key_id"],
        "name": made["name"],
        "token": made["token"],
        "bindings": made["bindings"],
        "until": None,
        "urls": _urls(visit, made["bindings"]),
        "wait": None,
        "command": _creation(visit, form),
    }
    return Html("token.html", context, 201)


def _creation(visit: Visit, typed: Fields) -> str:
    """Return the command that creates the key in the form; tokens that were typed into it are left out."""
    fields = typed.without_tokens()
    words: list[str | None] = [*option("--name", fields.get("name") or "NAME"), "--format", "checked"]
    words += option("--account", fields.get("account") or visit.operator.account)
    words += [*option("--description", fields.get("description")), *option("--expires-in", fields.get("expires"))]
    for flag, texts in (("--label", lines(fields.get("labels"))), ("--bind", _several(fields.all("bind")))):
        words += [word for text in texts for word in (flag, text)]
    return command("key", "create", *words, _anyway(visit, *_several(fields.all("bind"))))


def _anyway(visit: Visit, *names: str) -> str | None:
    """Return ``--no-route`` if no route reaches one of these resources, as far as they are written as such."""
    resources = [Resource(kind, ref) for kind, colon, ref in (name.partition(":") for name in names) if kind and ref]
    return next(filter(None, (no_route(visit.services.routes, resource) for resource in resources)), None)


def _urls(visit: Visit, names: list[str]) -> list[str]:
    """Return where requests reach the resources that a new key opens."""
    return [url for name in names for url in naming.urls(visit.services.routes, Resource(*naming.split(name)))]


@_unless_impossible("Rotate")
async def show_rotate(visit: Visit, key: Key) -> Reply:
    newest = key.token_keys[-1] if key.token_keys else ""
    replaces = visit.form.get("token_key", newest)
    context = {
        "key": key,
        "token_key": newest,
        "is_done": bool(visit.error) and replaces != newest,
        "previous": key.previous_tokens(visit.now),
        "overlap": visit.form.get("overlap", "24h"),
        "command": command(
            "key",
            "rotate",
            key.key_id,
            *option("--overlap", visit.form.get("overlap", "24h")),
            "--force" if key.previous_tokens(visit.now) else None,
        ),
    }
    return Html("key_rotate.html", context)


async def rotate(visit: Visit) -> Reply:
    form = visit.form
    body = {"token_key": form.get("token_key"), "overlap": form.get("overlap") or "0s"}
    made = await visit.document("rotate_key", body=body | ({"force": True} if form.get("force") else {}))
    key = await visit.call().find_key(visit.call().key_id)
    context = {
        "title": "Key rotated",
        "key_id": made["key_id"],
        "name": key.name,
        "token": made["token"],
        "bindings": list(map(str, key.bindings)),
        "until": made["previous_valid_until"],
        "urls": [],
        "wait": command("key", "wait", made["key_id"]) if made["previous_valid_until"] else None,
        "command": command(
            "key", "rotate", made["key_id"], "--overlap", body["overlap"], *(["--force"] if form.get("force") else [])
        ),
    }
    return Html("token.html", context)


@_unless_impossible("Change")
async def show_edit(visit: Visit, key: Key) -> Reply:
    kept = _kept(key)
    typed = {name: visit.form.get(name, value) for name, value in kept.items()}
    context = {
        "key": key,
        "typed": typed,
        "etag": visit.form.get("etag") or etag(key.updated_at),
        "command": command("key", "set", key.key_id, *(changes_of_key(kept, typed) or ["--name", kept["name"]])),
    }
    return Html("key_edit.html", context)


def _kept(key: Key) -> dict[str, str]:
    """Return the initial values of a key's form; tokens in them are hidden."""
    return {
        "name": without_tokens(key.name),
        "description": without_tokens(key.description),
        "labels": "\n".join(f"{name}={value}" for name, value in sorted(key.labels.items())),
        "expires": _written(key.expires_at),
    }


async def edit(visit: Visit) -> Reply:
    form, key = visit.form, await _changeable(visit)
    labels, kept = _labels(form.get("labels")), _kept(key)
    body: dict[str, Any] = {"labels": {**dict.fromkeys(key.labels.keys() - labels.keys()), **labels}}
    body |= {name: form.get(name) for name in ("name", "description") if form.get(name) != kept[name]}
    if form.get("expires") != _written(key.expires_at):
        body["expires_at"] = _expiry(form.get("expires"))
    with beside("name", ConflictError), beside("expires", LifetimeError):
        await visit.ask("change_key", body=body, if_match=form.get("etag") or None)
    return _to_key(visit)


@_unless_impossible("Activate")
async def show_activate(visit: Visit, key: Key) -> Reply:
    says = [f"Its tokens open {_named(key)} again."]
    return Act(f"Activate {key.name}?", "Activate", says, command("key", "activate", key.key_id)).html(
        _trail(visit, key)
    )


async def activate(visit: Visit) -> Reply:
    await visit.ask("activate_key")
    return _to_key(visit)


@_unless_impossible("Deactivate")
async def show_deactivate(visit: Visit, key: Key) -> Reply:
    found = await outcomes(visit, key)
    says = [*(one.text for one in found), "Its tokens are refused until the key is activated again."]
    opened = [one.resource for one in found if one.is_opened]
    words = ["--allow-anonymous"] if opened else []
    act = Act(
        f"Deactivate {key.name}?", "Deactivate", says, command("key", "deactivate", key.key_id, *words), is_danger=True
    )
    return act.html(_trail(visit, key), visit, opened)


async def deactivate(visit: Visit) -> Reply:
    await ask_or_open(visit, "deactivate_key")
    return _to_key(visit)


@_unless_impossible("Revoke")
async def show_revoke(visit: Visit, key: Key) -> Reply:
    # A revoked key protects as before: only who gets through changes.
    says = [one.text for one in await outcomes(visit, key, stays_closed=True)]
    says += [f"{within(visit)} A revoked key stays revoked."]
    act = Act(f"Revoke {key.name}?", "Revoke", says, command("key", "revoke", key.key_id), is_danger=True)
    return act.html(_trail(visit, key))


async def revoke(visit: Visit) -> Reply:
    await visit.ask("revoke_key")
    return _to_key(visit)


@_unless_impossible("Bind")
async def show_bind(visit: Visit, key: Key) -> Reply:
    resource = (visit.form or visit.query).get("resource")
    words = ["key", "bind", key.key_id, resource or "KIND:REF", _anyway(visit, resource)]
    context = {"key": key, "resource": resource, "command": command(*words)}
    return Html("key_bind.html", context | confirmation(visit))


async def bind(visit: Visit) -> Reply:
    kind, colon, ref = visit.form.get("resource").partition(":")
    if not (kind and colon and ref):
        raise FieldError("resource", "Write KIND:REF, for example bot:42.")
    path = {"kind": kind, "ref": ref, "key_id": visit.path["key_id"]}
    with beside("resource", UsageError, NotFoundError):
        await ask_or_open(visit, "bind_key", path=path)
    return _to_key(visit)


async def show_revoke_many(visit: Visit) -> Reply:
    chosen = visit.form.all("key_id") or visit.query.all("key_id")
    if not 1 <= len(chosen) <= MAX_IDS:
        return Html("keys_revoke.html", {"keys": [], "most": MAX_IDS, "unknown": 0, "says": "", "command": None})
    found = await visit.document("revoke_keys", body={"key_ids": chosen, "dry_run": True})
    keys = await _loaded(visit, found["key_ids"])
    context = {
        "keys": keys,
        "most": MAX_IDS,
        "unknown": len(found["unknown"]),
        "says": within(visit),
        "command": together(command("key", "revoke", key.key_id) for key in keys),
    }
    return Html("keys_revoke.html", context)


async def revoke_many(visit: Visit) -> Reply:
    done = await visit.document("revoke_keys", body={"key_ids": visit.form.all("key_id")})
    context = {"keys": await _loaded(visit, done["key_ids"]), "unknown": len(done["unknown"]), "says": within(visit)}
    return Html("keys_revoked.html", context)


async def show_leaks(_: Visit) -> Reply:
    return Html("leaks.html", {"most": MOST_PASTED, "found": None, "ended": None, "command": _LEAKS})


async def report_leaks(visit: Visit) -> Reply:
    """Say whose tokens these are, or end them; no answer holds one."""
    pasted = copied_words(visit.form.get("tokens").encode("utf-8", "surrogatepass"))
    tokens = [word.decode("utf-8", "surrogatepass") for word in pasted]
    if not 1 <= len(tokens) <= MOST_PASTED:
        raise FieldError("tokens", f"Paste 1 to {MOST_PASTED} tokens, one per line.")
    if any(len(token.encode("utf-8", "surrogatepass")) > MAX_TOKEN_BYTES for token in tokens):
        raise FieldError("tokens", f"No token has more than {MAX_TOKEN_BYTES} characters. Paste one per line.")
    context: dict[str, Any] = {"most": MOST_PASTED, "found": None, "ended": None, "command": _LEAKS}
    if visit.form.get("act") == "end":
        ended = await visit.document("report_leaks", body={"tokens": tokens})
        return Html("leaks.html", context | {"ended": ended, "says": within(visit)})
    return Html("leaks.html", context | {"found": await _owners(visit, tokens), "now": visit.now})


async def _owners(visit: Visit, texts: list[str]) -> Mapping[str, Any]:
    tokens = {token.digest: token for token in (Token(text.encode("utf-8", "surrogatepass")) for text in texts)}
    owners = await visit.call().keys.owners(list(tokens))
    keys = {key.key_id: key for key in owners.values()}.values()
    operators = sum(token.is_operators for token in tokens.values())
    return {
        "tokens": len(tokens),
        "keys": sorted(keys, key=lambda key: (key.is_platforms, key.name)),
        "operators": operators,
        "unknown": len(tokens) - len(owners) - operators,
    }


async def _loaded(visit: Visit, key_ids: list[str]) -> list[Key]:
    """Return keys by their ids, which an operation found to be within the operator's account."""
    async with visit.services.store.lists() as lists:
        return await lists.load_keys([UUID(key_id) for key_id in key_ids], 1)


async def _changeable(visit: Visit) -> Key:
    call = visit.call()
    return await call.find_key(call.key_id)


def within(visit: Visit) -> str:
    """Say when a revocation is in force."""
    return f"Its tokens are refused everywhere within {visit.services.within_s:g} s, as this process is configured."


def _to_key(visit: Visit) -> SeeOther:
    return SeeOther(path_of("keys", visit.path["key_id"]))


def _trail(visit: Visit, key: Key) -> tuple[tuple[str, str], ...]:
    return (("Keys", "keys"), (key.name, path_of("keys", visit.path["key_id"])))


def _named(key: Key) -> str:
    shown = ", ".join(map(str, key.bindings[:3])) or "nothing"
    return f"{shown} and more" if len(key.bindings) > 3 else shown


def _several(texts: list[str]) -> list[str]:
    return [word for text in texts for word in text.replace(",", " ").split()]


def _labels(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines(text):
        name, equals, value = line.partition("=")
        if not (name and equals and value):
            raise FieldError("labels", "Write one label per line, for example team=sales.")
        found[name.strip()] = value.strip()
    with beside("labels", UsageError):
        return dict(checked_labels(found))


def _expiry(text: str) -> str | None:
    """Read when a key expires, as operations take it; raises FieldError."""
    if not text or text == "never":
        return None
    try:
        span = parse_duration(text)
        time = datetime.fromisoformat(text) if span is None else datetime.now(UTC) + span
    except OverflowError:
        raise FieldError("expires", "This is too long: the expiry would be after the year 9999.") from None
    except ValueError:
        raise FieldError("expires", f"Write {_WHEN}.") from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).isoformat()


def _written(time: datetime | None) -> str:
    return "" if time is None else time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
