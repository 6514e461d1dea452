"""Checks nodes against the forms of their elements, so that what API Management refuses never runs here."""

from __future__ import annotations

from local.apim.document import Node, Value
from local.apim.elements import POLICIES
from local.apim.errors import PolicyError
from local.apim.schema import Attribute, Element

_IDENTIFIER = Attribute(expression=False)  # every policy may carry an id, which LastError.PolicyId repeats


def check_section(root: Node, section: str) -> None:
    """Raises PolicyError naming file and line of the first thing that is wrong in a section."""
    _check_policies(root, section, in_fragment=False)
    if section == "backend" and len(root.children) > 1:
        raise PolicyError(root.children[1].where, "the backend section takes one policy")


def check_fragment(root: Node, section: str) -> None:
    """Raises PolicyError for what is wrong in a fragment that is included in `section`."""
    _check_policies(root, section, in_fragment=True)


def _check_policies(parent: Node, section: str, *, in_fragment: bool) -> None:
    for node in parent.children:
        policy = POLICIES.get(node.name)
        if policy is None:
            raise PolicyError(node.where, "is not a policy that this runner knows")
        if in_fragment and node.name in ("base", "include-fragment"):
            raise PolicyError(node.where, "cannot stand in a fragment")
        if section not in policy.sections:
            raise PolicyError(node.where, f"cannot stand in the {section} section")
        if node.name == "base" and parent.path:
            raise PolicyError(node.where, "stands only at the top of a section")
        _check_element(node, policy.form, section, in_fragment=in_fragment, is_policy=True)


def _check_element(node: Node, form: Element, section: str, *, in_fragment: bool, is_policy: bool = False) -> None:
    known = {**form.attributes, **({"id": _IDENTIFIER} if is_policy else {})}
    for name, value in node.attributes.items():
        if name not in known:
            raise PolicyError(node.where, f"has no attribute {name!r}")
        _check_value(value, known[name])
    for name, attribute in form.attributes.items():
        if attribute.required and name not in node.attributes:
            raise PolicyError(node.where, f"lacks the attribute {name!r}")
    _check_text(node, form)
    if form.policies:
        if not node.children:
            raise PolicyError(node.where, "is empty")
        _check_policies(node, section, in_fragment=in_fragment)
        return
    _check_children(node, form, section, in_fragment=in_fragment)


def _check_children(node: Node, form: Element, section: str, *, in_fragment: bool) -> None:
    for child in node.children:
        if child.name not in form.children:
            raise PolicyError(child.where, f"cannot stand in <{node.name}>")
        _check_element(child, form.children[child.name].element, section, in_fragment=in_fragment)
    for name, children in form.children.items():
        count = len(node.all(name))
        if count < children.least:
            raise PolicyError(node.where, f"lacks <{name}>")
        if children.most is not None and count > children.most:
            raise PolicyError(node.all(name)[children.most].where, f"stands more than {children.most} time(s)")


def _check_text(node: Node, form: Element) -> None:
    if node.text is None:
        if form.text == "required":
            raise PolicyError(node.where, "is empty")
        return
    if form.text == "none":
        raise PolicyError(node.text.where, f"takes no text, has {node.text.text.strip()[:60]!r}")
    if node.text.is_expression and not form.text_expression:
        raise PolicyError(node.text.where, "takes no expression")


def _check_value(value: Value, attribute: Attribute) -> None:
    if value.is_expression:
        if not attribute.expression:
            raise PolicyError(value.where, "takes no expression")
        return
    if attribute.choices and value.text not in attribute.choices:
        raise PolicyError(value.where, f"is {value.text!r}, not one of {', '.join(sorted(attribute.choices))}")
    if attribute.kind == "boolean" and value.text.lower() not in ("true", "false"):
        raise PolicyError(value.where, f"is {value.text!r}, not true or false")
    if attribute.kind in ("integer", "number"):
        _check_number(value, attribute)


def _check_number(value: Value, attribute: Attribute) -> None:
    try:
        number = float(value.text) if attribute.kind == "number" else int(value.text)
    except ValueError:
        raise PolicyError(value.where, f"is {value.text!r}, not a number") from None
    if attribute.least is not None and number < attribute.least:
        raise PolicyError(value.where, f"is {value.text}; the least is {attribute.least:g}")
    if attribute.most is not None and number > attribute.most:
        raise PolicyError(value.where, f"is {value.text}; the most is {attribute.most:g}")
