"""Whose call an event reports and on which configured model, by the very rules of the check.

A gateway that could not ask, or that was told not to, knows neither: only the identity it validated and the name that
the caller used. Its events are resolved here, so that such a call is billed like any other.
"""

from __future__ import annotations

from shared.budgets.request import identified_caller
from shared.budgets.snapshot import Snapshot
from shared.errors import Forbidden, InvalidRequest
from shared.usage.events import UsageData
from shared.usage.rejected import EventRejected


def attribute(data: UsageData, snapshot: Snapshot) -> None:
    """Fill in what the event left to the configuration: tenant and scopes, the models' ids, provider and deployment.

    Raises EventRejected with the code that a check would refuse the identity with. Once the configuration knows it, the
    event sent again as it is gets through.
    """
    if data.identity is not None:
        try:
            tenant, data.scopes = identified_caller(snapshot.config, data.identity, data.scopes)
        except (Forbidden, InvalidRequest) as error:
            code = error.code if isinstance(error, Forbidden) else EventRejected.code
            message = error.message.removeprefix(f"{error.param}: ")
            raise EventRejected(f"data.{error.param}: {message}", code=code, param=f"data.{error.param}") from None
        data.tenant = tenant.id
    named = snapshot.deployments.named
    requested = data.requested_model if data.requested_model != data.model else None
    served = named(data.model, data.provider)
    if requested is not None and (asked := named(requested, data.provider)) is not None:
        data.requested_model = asked.model
    data.deployment = snapshot.deployments.spelled(data.deployment)
    if served is None:
        return
    if not data.deployment and served.deployment.lower() == data.model.lower():
        data.deployment = served.deployment
    data.model, data.provider = served.model, data.provider or served.provider
    if requested is None:
        data.requested_model = served.model
