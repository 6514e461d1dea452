"""Both templates declare the same: resources by type and name, and every property that is compared."""

from __future__ import annotations

from tests.support.arm import Deployment


def differences(terraform: Deployment, bicep: Deployment) -> list[str]:
    """What the two declare differently."""
    ones, others = ({(item.type, item.name): item for item in found.items} for found in (terraform, bicep))
    problems = [f"Terraform alone declares {kind} {name}" for kind, name in sorted(set(ones) - set(others))]
    problems += [f"Bicep alone declares {kind} {name}" for kind, name in sorted(set(others) - set(ones))]
    for kind, name in sorted(set(ones) & set(others)):
        left, right = ones[kind, name].properties, others[kind, name].properties
        problems += [
            f"{kind} {name}: {path} is {left.get(path)!r} in Terraform, {right.get(path)!r} in Bicep"
            for path in sorted(left.keys() | right.keys())
            if left.get(path) != right.get(path)
        ]
    return problems
