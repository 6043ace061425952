"""`/api/v1/gateway/keys` and `providers`: what an organization calls the gateway with."""

from tollkeeper import Gateway, PluginError, Refused, invalid_request
from tollkeeper.management import Caller, KeyStore, KeyTerms, Listed, ManagedKey
from tollkeeper_accounts import schemas
from tollkeeper_accounts.authorizer import READ_ERRORS, WRITE_ERRORS
from tollkeeper_accounts.orgs import not_found
from tollkeeper_accounts.routes import EVERYBODY
from tollkeeper_accounts.settings import AccountsSettings

KEYS_PATH = "/api/v1/gateway/keys"
PROVIDERS_PATH = "/api/v1/gateway/providers"
MANY_KEYS = 1000
"""That an organization may have at once."""
UNCHANGED = "-"
"""Stands for a name that is not to be changed."""
USERS_OF_KEYS = frozenset({"owner", "admin", "member"})

Keys = Listed[schemas.Key]
Providers = Listed[schemas.Provider]


class KeyRoutes:
    """The handlers."""

    def __init__(self, settings: AccountsSettings) -> None:
        self._settings = settings

    def register(self, gateway: Gateway) -> None:
        """Add the routes."""
        self._gateway = gateway
        gateway.need(KeyStore, "keys")
        gateway.add_route(
            KEYS_PATH,
            self.create,
            policy=USERS_OF_KEYS,
            methods=("POST",),
            body=schemas.NewKey,
            reply=schemas.CreatedKey,
            errors=WRITE_ERRORS,
            summary="Create API key.",
        )
        gateway.add_route(
            KEYS_PATH,
            self.keys,
            policy=USERS_OF_KEYS,
            reply=Keys,
            errors=READ_ERRORS,
            summary="List API keys.",
        )
        gateway.add_route(
            PROVIDERS_PATH,
            self.providers,
            policy=EVERYBODY,
            reply=Providers,
            errors=READ_ERRORS,
            summary="List available providers.",
        )
        self._register_one(gateway)

    def _register_one(self, gateway: Gateway) -> None:
        gateway.add_route(
            f"{KEYS_PATH}/<key_id>",
            self.change,
            policy=USERS_OF_KEYS,
            methods=("PATCH",),
            body=schemas.ChangeKey,
            reply=schemas.Key,
            errors=WRITE_ERRORS,
            summary="Change an API key.",
        )
        gateway.add_route(
            f"{KEYS_PATH}/<key_id>/rotate",
            self.rotate,
            policy=USERS_OF_KEYS,
            methods=("POST",),
            body=schemas.RotateKey,
            reply=schemas.RotatedKey,
            errors=WRITE_ERRORS,
            summary="Give an API key a new secret.",
        )
        gateway.add_route(
            f"{KEYS_PATH}/<key_id>",
            self.revoke,
            policy=USERS_OF_KEYS,
            methods=("DELETE",),
            reply=schemas.Key,
            errors=WRITE_ERRORS,
            summary="Revoke API key.",
        )

    async def create(self, caller: Caller, body: schemas.NewKey) -> schemas.CreatedKey:
        """A new key of the caller's organization."""
        self._check(body.rpm, body.models)
        if len(await self._store.keys_of(caller.org)) >= MANY_KEYS:
            raise Refused(409, "conflict", f"An organization has {MANY_KEYS} keys at most.")
        terms = KeyTerms(
            name=body.name,
            rpm=body.rpm,
            models=_unique(body.models),
            expires_at=body.expires_at,
        )
        key, secret = await self._store.add_key(caller.org, terms)
        return schemas.CreatedKey(
            id=key.id,
            key=secret,
            prefix=key.prefix,
            name=key.name,
            org=caller.org,
            rpm=key.rpm,
            created_at=key.created_at,
            models=_list(key.models),
            expires_at=key.expires_at,
        )

    async def keys(self, caller: Caller) -> object:
        """The keys of the caller's organization."""
        return Keys(data=[_key(key) for key in await self._store.keys_of(caller.org)])

    async def change(self, caller: Caller, key_id: str, body: schemas.ChangeKey) -> schemas.Key:
        """The key under terms of which some are new."""
        self._check(body.rpm, body.models)
        terms = KeyTerms(
            name=body.name or UNCHANGED,
            rpm=body.rpm,
            models=_unique(body.models),
            expires_at=body.expires_at,
        )
        changed = await self._store.change_key(caller.org, key_id, terms, body.model_fields_set)
        return _found(changed)

    async def rotate(
        self, caller: Caller, key_id: str, body: schemas.RotateKey
    ) -> schemas.RotatedKey:
        """The key with another secret."""
        rotated = await self._store.rotate_key(caller.org, key_id, body.grace_seconds)
        if rotated is None:
            raise not_found("key")
        key, secret = rotated
        return schemas.RotatedKey(**_key(key).model_dump(), key=secret)

    async def revoke(self, caller: Caller, key_id: str) -> schemas.Key:
        """The key, ended."""
        return _found(await self._store.revoke_key(caller.org, key_id))

    async def providers(self, caller: Caller) -> object:
        """Where requests go, and which models are served there."""
        models = self._gateway.models
        return Providers(
            data=[
                schemas.Provider(
                    id=name,
                    kind=provider.kind,
                    models=[
                        model
                        for model, settings in models.items()
                        if any(each.provider == name for each in settings.deployments)
                    ],
                    healthy=self._gateway.healthy.get(name),
                )
                for name, provider in self._gateway.providers.items()
            ]
        )

    def _check(self, rpm: int | None, models: list[str] | None) -> None:
        """Raise `Refused` for what a key may not be given here."""
        most = self._settings.max_rpm
        if rpm is not None and most is not None and rpm > most:
            raise invalid_request(f"A key may have {most} requests per minute.", param="rpm")
        for model in models or ():
            if model not in self._gateway.models:
                raise invalid_request(f"The model '{model}' does not exist.", param="models")

    @property
    def _store(self) -> KeyStore:
        store = self._gateway.find(KeyStore)  # type: ignore[type-abstract] # names a service
        if store is None:
            raise PluginError("plugin accounts: nobody keeps virtual keys")
        return store


def _unique(models: list[str] | None) -> tuple[str, ...] | None:
    return None if models is None else tuple(dict.fromkeys(models))


def _list(models: tuple[str, ...] | None) -> list[str] | None:
    return None if models is None else list(models)


def _key(key: ManagedKey) -> schemas.Key:
    return schemas.Key(
        id=key.id,
        prefix=key.prefix,
        name=key.name,
        rpm=key.rpm,
        models=_list(key.models),
        created_at=key.created_at,
        last_used_at=key.last_used_at,
        expires_at=key.expires_at,
    )


def _found(key: ManagedKey | None) -> schemas.Key:
    if key is None:
        raise not_found("key")
    return _key(key)
