"""A Flask app with its bots protected, under any WSGI server.

export SMARTER_AUTH_DATABASE_URL=embedded: SMARTER_AUTH_ROUTES='bot /bots/{ref:int}'
smarter-auth db migrate
smarter-auth key create --name my-first-key --bind bot:1
gunicorn --chdir examples --worker-class gthread --threads 8 flask_app:app
"""

from __future__ import annotations

from typing import Any

from flask import Flask, request

from smarter_auth_mw.wsgi import SmarterAuthWSGIMiddleware

app = Flask(__name__)


@app.get("/bots/<int:bot>")
def describe(bot: int) -> dict[str, Any]:
    """Say who is asking: ``REMOTE_USER`` holds the key's id, where one was granted."""
    decision = request.environ["smarter_auth.decision"]
    return {"resource": str(decision.resource), "bot": bot, "key_id": request.remote_user}


@app.get("/health")
def health() -> dict[str, str]:
    """Not a resource: no line of ROUTES matches its path."""
    return {"status": "ok"}


app.wsgi_app = SmarterAuthWSGIMiddleware(app.wsgi_app)  # type: ignore[method-assign]
