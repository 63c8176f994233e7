"""Who may call what: bearer tokens, each for some of the models.

Without any token the service is open. Questions about the server itself, and health checks, never need one.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from host_service.caller import Caller
from host_service.errors import RequestError

EVERY = "*"


@dataclass(frozen=True)
class Token:
    """``secret`` opens ``models`` ("*": all); ``admin``: it may load and unload models and register shared memory too."""

    name: str
    secret: str
    models: tuple[str, ...] = (EVERY,)
    admin: bool = False

    def opens(self, model: str) -> bool:
        """Whether it is for ``model``."""
        return EVERY in self.models or model in self.models


class Access:
    """Decides by the ``authorization: Bearer ...`` of a call."""

    def __init__(self, tokens: Sequence[Token] = ()) -> None:
        self._tokens = tuple(tokens)

    def check_model(self, caller: Caller, model: str) -> None:
        """Raise RequestError unless ``caller`` may use ``model``."""
        if self._tokens:
            token = self._token(caller.authorization)
            if not token.opens(model):
                text = f"the token {token.name!r} is not for model {model!r}, only for {', '.join(token.models)}"
                raise RequestError(text, grpc.StatusCode.PERMISSION_DENIED)

    def token(self, authorization: str) -> Token | None:
        """The caller's token; None where the service has none. Raises RequestError for one that it does not know."""
        return self._token(authorization) if self._tokens else None

    def check_admin(self, caller: Caller) -> None:
        """Raise RequestError unless ``caller`` may change what the service serves."""
        if self._tokens and not (token := self._token(caller.authorization)).admin:
            text = f"the token {token.name!r} may not load or unload models, nor register shared memory"
            raise RequestError(text, grpc.StatusCode.PERMISSION_DENIED)

    def _token(self, authorization: str) -> Token:
        kind, _, secret = authorization.partition(" ")
        if kind.lower() != "bearer" or not secret:
            text = "this service wants a token: send the metadata 'authorization: Bearer <token>'"
            raise RequestError(text, grpc.StatusCode.UNAUTHENTICATED)
        given, found = secret.strip().encode(), None
        for token in self._tokens:  # all of them, so that the time tells nothing
            if hmac.compare_digest(given, token.secret.encode()):
                found = token
        if found is None:
            raise RequestError("the token is not one that this service knows", grpc.StatusCode.UNAUTHENTICATED)
        return found
