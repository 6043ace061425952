"""`/api/v1/gateway/org`: organizations, their members, invitations and log."""

from tollkeeper import Gateway
from tollkeeper.management import ROLES, USER_POLICY, Caller, Listed
from tollkeeper_accounts import invitations, orgs, schemas, service, writes
from tollkeeper_accounts.authorizer import READ_ERRORS, WRITE_ERRORS
from tollkeeper_accounts.settings import AccountsSettings
from tollkeeper_accounts.writes import ORG_PATH

EVERYBODY = frozenset(ROLES)
MANAGERS = frozenset({"owner", "admin"})

Members = Listed[schemas.Member]
Invitations = Listed[schemas.Invitation]
AuditLog = Listed[schemas.AuditEntry]


class OrgRoutes:
    """The handlers."""

    def __init__(self, settings: AccountsSettings) -> None:
        self._settings = settings

    def register(self, gateway: Gateway) -> None:
        """Add the routes."""
        self._database, self._clock = gateway.database, gateway.clock
        gateway.add_route(
            ORG_PATH,
            self.create,
            policy=USER_POLICY,
            methods=("POST",),
            body=schemas.NewOrg,
            reply=schemas.Org,
            errors=WRITE_ERRORS,
            summary="Create organization.",
        )
        gateway.add_route(
            ORG_PATH,
            self.read,
            policy=EVERYBODY,
            reply=schemas.Org,
            errors=READ_ERRORS,
            summary="Get current organization.",
        )
        gateway.add_route(
            f"{ORG_PATH}/audit",
            self.audit,
            policy=MANAGERS,
            query=schemas.AuditQuery,
            reply=AuditLog,
            errors=READ_ERRORS,
            summary="Who changed what, newest first.",
        )
        self._register_members(gateway)
        self._register_invitations(gateway)

    def _register_members(self, gateway: Gateway) -> None:
        gateway.add_route(
            f"{ORG_PATH}/members",
            self.members,
            policy=EVERYBODY,
            reply=Members,
            errors=READ_ERRORS,
            summary="List organization members.",
        )
        gateway.add_route(
            f"{ORG_PATH}/members/<member_id>",
            self.change_member,
            policy=MANAGERS,
            methods=("PATCH",),
            body=schemas.ChangeMember,
            reply=schemas.Member,
            errors=WRITE_ERRORS,
            summary="Give a member another role.",
        )
        gateway.add_route(
            f"{ORG_PATH}/members/<member_id>",
            self.remove_member,
            policy=EVERYBODY,
            methods=("DELETE",),
            reply=schemas.Member,
            errors=WRITE_ERRORS,
            summary="Remove a member, or leave.",
        )

    def _register_invitations(self, gateway: Gateway) -> None:
        gateway.add_route(
            f"{ORG_PATH}/invitations",
            self.invite,
            policy=MANAGERS,
            methods=("POST",),
            body=schemas.Invite,
            reply=schemas.NewInvitation,
            errors=WRITE_ERRORS,
            summary="Invite somebody.",
        )
        gateway.add_route(
            f"{ORG_PATH}/invitations",
            self.invitations,
            policy=MANAGERS,
            reply=Invitations,
            errors=READ_ERRORS,
            summary="List open invitations.",
        )
        gateway.add_route(
            f"{ORG_PATH}/invitations/<invitation_id>",
            self.withdraw,
            policy=MANAGERS,
            methods=("DELETE",),
            reply=schemas.Invitation,
            errors=WRITE_ERRORS,
            summary="Withdraw an invitation.",
        )

    async def create(self, caller: Caller, body: schemas.NewOrg) -> schemas.Org:
        """A new organization of the caller's."""
        made = await self._database.write(orgs.create_org, caller.user, body.name, self._now())
        return schemas.Org.model_validate(made, from_attributes=True)

    async def read(self, caller: Caller) -> schemas.Org:
        """The caller's organization."""
        found = await self._database.read(orgs.membership, caller.org, caller.user)
        return schemas.Org.model_validate(found, from_attributes=True)

    async def audit(self, caller: Caller, query: schemas.AuditQuery) -> object:
        """What was changed in the caller's organization."""
        rows = await self._database.read(writes.audit, caller.org, query.limit, query.before)
        return AuditLog.model_validate({"data": rows}, from_attributes=True)

    async def members(self, caller: Caller) -> object:
        """Who is in the caller's organization."""
        found = await self._database.read(orgs.members, caller.org)
        return Members(data=[_member(person) for person in found])

    async def change_member(
        self, caller: Caller, member_id: str, body: schemas.ChangeMember
    ) -> schemas.Member:
        """Another role for a member."""
        person = await self._database.write(orgs.change_role, _actor(caller), member_id, body.role)
        return _member(person)

    async def remove_member(self, caller: Caller, member_id: str) -> schemas.Member:
        """One member less."""
        return _member(await self._database.write(orgs.remove_member, _actor(caller), member_id))

    async def invite(self, caller: Caller, body: schemas.Invite) -> schemas.NewInvitation:
        """A token for somebody to join by."""
        now = self._now()
        email = service.normal_email(body.email)
        terms = invitations.Terms(email, body.role, now + self._settings.invitation_seconds)
        invited, token = await self._database.write(invitations.invite, _actor(caller), terms, now)
        return schemas.NewInvitation(
            id=invited.id,
            email=invited.email,
            role=body.role,
            token=token,
            expires_at=invited.expires_at,
        )

    async def invitations(self, caller: Caller) -> object:
        """The open invitations of the caller's organization."""
        rows = await self._database.read(invitations.invitations, caller.org, self._now())
        return Invitations.model_validate({"data": rows}, from_attributes=True)

    async def withdraw(self, caller: Caller, invitation_id: str) -> schemas.Invitation:
        """One invitation less."""
        gone = await self._database.write(invitations.withdraw, caller.org, invitation_id)
        return schemas.Invitation.model_validate(gone, from_attributes=True)

    def _now(self) -> int:
        return int(self._clock.time())


def _actor(caller: Caller) -> orgs.Actor:
    return orgs.Actor(caller.user, caller.org, caller.role)


def _member(person: orgs.Person) -> schemas.Member:
    return schemas.Member.model_validate(
        {"id": person.id, "email": person.email, "role": person.role}
    )
