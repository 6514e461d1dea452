"""What must hold of a deployment, whichever template declares it. Each rule returns what is wrong, in sentences.

The rules are functions, and not tests, so that the mutation test can ask them too.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.infra.code_names import CodeNames
from tests.infra.rules.access import access, keyless
from tests.infra.rules.builtin import builtin
from tests.infra.rules.names import functions, hubs, policies, sign_in, stores
from tests.infra.rules.network import private
from tests.infra.rules.order import order
from tests.infra.rules.settings import no_content_logged, sound
from tests.support.arm import Deployment

Rule = Callable[[Deployment, CodeNames], list[str]]
RULES: tuple[Rule, ...] = (
    policies,
    hubs,
    stores,
    functions,
    sign_in,
    builtin,
    access,
    keyless,
    sound,
    no_content_logged,
    private,
    order,
)


def broken(found: Deployment, code: CodeNames) -> list[str]:
    """What all rules say against a private deployment."""
    return [problem for rule in RULES for problem in rule(found, code)]
