"""What API Management would refuse at deployment is refused when the policies are loaded, by file and line."""

from pathlib import Path

import pytest

from local.apim.document import MAX_DOCUMENT_BYTES
from local.apim.errors import PolicyError
from local.apim.loading import load_policy
from tests.support.policy_files import write_policies

OK = '<set-variable name="a" value="b" />'

REFUSED = {
    "unknown element": ("<base />\n<jsonp />", "inbound-policy.xml:3: <jsonp>: is not a policy that this runner knows"),
    "unknown attribute": ('<set-variable name="a" value="b" scope="c" />', "has no attribute 'scope'"),
    "missing attribute": ('<set-variable name="a" />', "inbound-policy.xml:2: <set-variable>: lacks the attribute"),
    "wrong section": ("<forward-request />", "cannot stand in the inbound section"),
    "wrong section, nested": (
        '<choose><when condition="true"><forward-request /></when></choose>',
        "cannot stand in the inbound section",
    ),
    "base below the top": ('<choose><when condition="true"><base /></when></choose>', "only at the top of a section"),
    "foreign child": ("<choose><set-variable name='a' value='b' /></choose>", "cannot stand in <choose>"),
    "choose without when": ("<choose><otherwise><base /></otherwise></choose>", ""),
    "empty when": ('<choose><when condition="true" /></choose>', "is empty"),
    "two otherwise": (
        f'<choose><when condition="true">{OK}</when><otherwise>{OK}</otherwise><otherwise>{OK}</otherwise></choose>',
        "more than 1 time",
    ),
    "text where none may be": ('<set-variable name="a" value="b">text</set-variable>', "takes no text, has 'text'"),
    "text beside elements": ('<set-header name="a">x<value>1</value></set-header>', "has text beside its child"),
    "not a choice": ('<set-header name="a" exists-action="replace"><value>1</value></set-header>', "not one of append"),
    "not a boolean": ('<choose><when condition="yes"><base /></when></choose>', "is 'yes', not true or false"),
    "not a number": ('<rate-limit-by-key calls="x" renewal-period="1" counter-key="k" />', "is 'x', not a number"),
    "above the most": ('<rate-limit-by-key calls="1" renewal-period="301" counter-key="k" />', "the most is 300"),
    "no expression allowed": ('<set-variable name="@(1)" value="b" />', "takes no expression"),
    "expression with a tail": ('<set-variable name="a" value="@(1) + 1" />', "must be the whole value"),
    "expression with a head": ('<set-variable name="a" value="x-@(1)" />', "must be the whole value"),
    "unresolved named value": (
        '<set-variable name="a" value="{{nobody}}" />',
        "inbound-policy.xml:2: <set-variable> value: {{nobody}} is not a named value",
    ),
    "no such fragment": ('<include-fragment fragment-id="x" />', "there is no fragment 'x'"),
    "not XML": ("<base>", "inbound-policy.xml:3: is not XML"),
}


def load(directory: Path, **overrides: str) -> None:
    load_policy(directory, overrides)


@pytest.mark.parametrize(("inbound", "message"), REFUSED.values(), ids=REFUSED)
def test_a_policy_that_would_be_refused_is_refused_with_file_and_line(
    tmp_path: Path, inbound: str, message: str
) -> None:
    """Unknown, missing, misplaced and mistyped parts each end the load and name their place."""
    with pytest.raises(PolicyError) as refusal:
        load(write_policies(tmp_path, inbound))
    assert str(refusal.value).startswith("inbound-policy.xml:")
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<base />", "fragments/f.xml:2: <base>: cannot stand in a fragment"),
        ('<include-fragment fragment-id="f" />', "cannot stand in a fragment"),
        ("<forward-request />", "fragments/f.xml:2: <forward-request>: cannot stand in the inbound section"),
    ],
)
def test_a_fragment_is_checked_for_the_section_that_includes_it(tmp_path: Path, content: str, message: str) -> None:
    """No <base/>, no nesting, and nothing that the including section may not hold."""
    with pytest.raises(PolicyError, match=message):
        load(write_policies(tmp_path, '<include-fragment fragment-id="f" />', fragments={"f": content}))


def test_a_fragment_that_nothing_includes_is_refused(tmp_path: Path) -> None:
    """A forgotten include would pass every test without running."""
    with pytest.raises(PolicyError, match="is included nowhere"):
        load(write_policies(tmp_path, fragments={"f": OK}))


def test_the_backend_section_takes_one_policy(tmp_path: Path) -> None:
    """API Management refuses a second child of <backend>."""
    with pytest.raises(PolicyError, match=r"backend-policy\.xml:3: <forward-request>: the backend section takes one"):
        load(write_policies(tmp_path, backend="<base />\n<forward-request />"))


def test_set_body_cannot_stand_in_on_error(tmp_path: Path) -> None:
    """There a body is set by return-response."""
    with pytest.raises(PolicyError, match="cannot stand in the on-error section"):
        load(write_policies(tmp_path, on_error="<set-body>x</set-body>"))


def test_a_document_over_256_kib_is_refused(tmp_path: Path) -> None:
    """The limit holds for each file and for the four sections together."""
    half = f"<!-- {'x' * (MAX_DOCUMENT_BYTES // 2)} -->"
    with pytest.raises(PolicyError, match="the limit is 256 KiB"):
        load(write_policies(tmp_path, f"{half}{half}"))
    with pytest.raises(PolicyError, match="the four sections together"):
        load(write_policies(tmp_path, half, outbound=half))


def test_a_named_value_over_4096_characters_is_refused(tmp_path: Path) -> None:
    """API Management stores no longer one."""
    with pytest.raises(PolicyError, match="has 4097 characters"):
        load(write_policies(tmp_path, named_values={"long": "-"}), long="x" * 4097)


def test_a_named_value_that_is_not_listed_is_refused(tmp_path: Path) -> None:
    """A misspelt override would silently leave the default in force."""
    with pytest.raises(PolicyError, match="lists no named value 'tk-typo'"):
        load(write_policies(tmp_path), **{"tk-typo": "1"})


def test_an_expression_that_does_not_compile_is_refused_at_its_line(mono: None, tmp_path: Path) -> None:
    """The real compiler decides, and the message leads to the policy file."""
    with pytest.raises(PolicyError, match=r"inbound-policy\.xml:3"):
        load(write_policies(tmp_path, '<base />\n<set-variable name="a" value="@(context.Nothing)" />'))


def test_a_condition_must_be_a_boolean(mono: None, tmp_path: Path) -> None:
    """A condition of another type is a compile error, not a surprise in a call."""
    with pytest.raises(PolicyError, match="inbound-policy"):
        load(write_policies(tmp_path, f'<choose><when condition="@(1)">{OK}</when></choose>'))
