"""What must hold of the policies' files as they stand: APIM's limits, the README's contract, what is never read."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from shared.config.loader import load_config
from shared.config.named_values import MAX_CHARACTERS, generated_named_values

POLICIES = Path(__file__).parents[2] / "apim-policies"
README = (POLICIES / "README.md").read_text()
SECTIONS = {
    name: ElementTree.parse(POLICIES / f"{name}-policy.xml").getroot()
    for name in ("inbound", "backend", "outbound", "on-error")
}
FRAGMENTS = {path.stem: ElementTree.parse(path).getroot() for path in sorted((POLICIES / "fragments").glob("*.xml"))}
DOCUMENTS = SECTIONS | FRAGMENTS
FILES = [*(POLICIES / f"{name}-policy.xml" for name in SECTIONS), *sorted((POLICIES / "fragments").glob("*.xml"))]
NAMED_VALUES = yaml.safe_load((POLICIES / "named-values.yaml").read_text())

# Attributes that give a variable its value, beside set-variable's own.
SETTING = (
    "response-variable-name",
    "variable-name",
    "output-token-variable-name",
    "retry-after-variable-name",
)
READING = re.compile(r'Variables(?:\.ContainsKey\(|\.GetValueOrDefault<\w+>\(|\[)"(\w+)"')


def texts(root: ElementTree.Element) -> Iterator[str]:
    """Every attribute value and every text of a document; comments are none."""
    for element in root.iter():
        yield from element.attrib.values()
        yield element.text or ""


def included(root: ElementTree.Element) -> list[str]:
    """Ids of the fragments a section includes, in order."""
    return [element.attrib["fragment-id"] for element in root.iter("include-fragment")]


def variables() -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Which documents set each variable and which read it."""
    setters: defaultdict[str, set[str]] = defaultdict(set)
    readers: defaultdict[str, set[str]] = defaultdict(set)
    for name, root in DOCUMENTS.items():
        for element in root.iter():
            if element.tag == "set-variable":
                setters[element.attrib["name"]].add(name)
            for attribute in SETTING:
                if attribute in element.attrib:
                    users = readers if element.tag == "return-response" else setters
                    users[element.attrib[attribute]].add(name)
        for text in texts(root):
            for match in READING.finditer(text):
                readers[match[1]].add(name)
    return dict(setters), dict(readers)


def test_sizes_are_within_what_apim_stores() -> None:
    """256 KiB for the document, 512 KB for a fragment; over it the deployment fails, or works on one tier only."""
    assert sum((POLICIES / f"{name}-policy.xml").stat().st_size for name in SECTIONS) < 256 * 1024
    assert all(path.stat().st_size < 256 * 1024 for path in FILES)


def test_documents_have_the_roots_that_apim_wants() -> None:
    """A section is its own root; a fragment holds policies only, neither sections nor base nor other fragments."""
    assert all(root.tag == name for name, root in SECTIONS.items())
    for name, root in FRAGMENTS.items():
        assert root.tag == "fragment", name
        tags = {element.tag for element in root.iter()}
        assert not tags & {"inbound", "outbound", "backend", "on-error", "policies", "base", "include-fragment"}, name
        assert root.attrib == {}, name
    for name in ("inbound", "outbound", "on-error"):
        assert SECTIONS[name][0].tag == "base", f"{name} would leave out the policies of the scopes around it"


def test_backend_has_one_child() -> None:
    """APIM refuses a second one."""
    assert len(SECTIONS["backend"]) == 1


def test_streams_are_relayed_and_only_read_bodies_are_sent_twice() -> None:
    """The default of buffer-response holds chunks back; a retry without a buffered body sends an empty one."""
    forwards = list(SECTIONS["backend"].iter("forward-request"))
    assert [forward.attrib["buffer-response"] for forward in forwards] == ["false", "false"]
    retried = list(SECTIONS["backend"].find(".//retry").iter("forward-request"))  # type: ignore[union-attr]
    assert [forward.attrib["buffer-request-body"] for forward in retried] == ["true"]
    assert [forward.attrib["buffer-request-body"] for forward in forwards if forward not in retried] == ["false"]
    assert all(element.tag != "forward-request" for root in FRAGMENTS.values() for element in root.iter())


def test_every_fragment_is_included_and_every_include_exists() -> None:
    """A fragment that is nowhere included is not deployed for anything; a missing one fails the deployment."""
    used = [name for root in SECTIONS.values() for name in included(root)]
    assert set(used) == set(FRAGMENTS)


@pytest.mark.parametrize("section", SECTIONS)
def test_caches_are_written_once_in_a_section(section: str) -> None:
    """APIM's reference allows cache-store-value once in each."""
    documents = [SECTIONS[section], *(FRAGMENTS[name] for name in set(included(SECTIONS[section])))]
    assert sum(len(list(document.iter("cache-store-value"))) for document in documents) <= 1


def test_on_error_holds_only_what_apim_runs_there() -> None:
    """Another policy is an error of the error handler, and the client gets APIM's own body."""
    allowed = (
        "on-error base include-fragment choose when otherwise set-variable return-response set-status set-header value "
        "set-body send-one-way-request set-url set-method authentication-managed-identity log-to-eventhub fragment"
    )
    documents = [SECTIONS["on-error"], *(FRAGMENTS[name] for name in included(SECTIONS["on-error"]))]
    assert {element.tag for document in documents for element in document.iter()} <= set(allowed.split())


def test_every_named_value_is_declared_and_used() -> None:
    """An undeclared one fails the deployment, an unused one is a promise that changing it does something."""
    declared = Counter(entry["name"] for entry in NAMED_VALUES)
    used = {name for path in FILES for name in re.findall(r"\{\{([^}]+)\}\}", path.read_text())}
    assert set(declared) == used
    assert max(declared.values()) == 1
    for entry in NAMED_VALUES:
        assert set(entry) <= {"name", "default", "secret", "generated", "description"}
        assert 0 < len(str(entry["default"])) <= MAX_CHARACTERS, entry["name"]
        assert entry["description"], entry["name"]
        assert not entry.get("secret"), "the gateway needs no secret; a named value that holds one would be new"
        assert f"`{entry['name']}`" in README, f"README.md does not name {entry['name']}"


def test_generated_named_values_are_the_commands_own() -> None:
    """What the command prints and what the files call generated are the same, and with it their defaults."""
    generated = {entry["name"]: entry["default"] for entry in NAMED_VALUES if entry.get("generated")}
    assert generated == generated_named_values(load_config({"tenants.yaml": b"tenants: [{id: default}]"}, "config"))


def test_variables_are_those_of_the_readme() -> None:
    """The contract names who sets and who reads each; a variable that is set and never read, or the reverse, is a
    fault that no test of a branch would show."""
    setters, readers = variables()
    assert set(setters) == set(readers)
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([\w, -]+) \| ([\w, -]+) \| .+ \|$", README, re.MULTILINE)
    documented = {name: (set(sets.split(", ")), set(reads.split(", "))) for name, _, sets, reads in rows}
    assert documented == {name: (_short(setters[name]), _short(readers[name])) for name in setters}
    assert {kind for _, kind, _, _ in rows} <= {"string", "bool", "int", "long", "response", "token"}


def _short(names: set[str]) -> set[str]:
    return {name.removeprefix("tk-") for name in names}


def test_readme_explains_every_policy() -> None:
    """A heading for each section and each fragment."""
    headings = set(re.findall(r"^### (.+)$", README, re.MULTILINE))
    assert headings == {f"{name}-policy.xml" for name in SECTIONS} | set(FRAGMENTS)


def test_answers_are_read_in_one_guarded_place() -> None:
    """Reading a stream holds it back from the caller until its end: an outage. The one read stands behind a condition
    on the answer's content type and length, which no stream can meet."""
    reading = [name for name, root in DOCUMENTS.items() for text in texts(root) if "context.Response.Body" in text]
    assert reading == ["tk-read-usage"]
    branches = list(FRAGMENTS["tk-read-usage"].iter("when"))
    assert len(branches) == 1
    assert any("context.Response.Body" in text for text in texts(branches[0]))
    for guard in ("application/json", "Content-Length", "{{tk-buffer-bytes}}"):
        assert guard in branches[0].attrib["condition"]


def test_prompts_are_read_in_two_places_and_kept_in_none() -> None:
    """read-request takes names and numbers from it, apply-decision writes it anew; neither makes a variable of it, and
    no event, header or message has it at hand."""
    reading = [name for name, root in DOCUMENTS.items() for text in texts(root) if "context.Request.Body" in text]
    assert sorted(set(reading)) == ["tk-apply-decision", "tk-read-request"]
    body = FRAGMENTS["tk-apply-decision"].find(".//set-body")
    assert body is not None
    assert all("context.Request.Body" not in element.attrib.get("value", "") for element in body.iter("set-variable"))
    assert sum("context.Request.Body" in text for text in texts(FRAGMENTS["tk-apply-decision"])) == 1
    for name, root in DOCUMENTS.items():
        for element in root.iter():
            if element.tag in ("log-to-eventhub", "set-header", "value", "trace"):
                assert "Body" not in "".join(texts(element)), name


def test_events_carry_no_text_of_an_exception() -> None:
    """LastError.Message may quote an expression, a token or a piece of a body."""
    assert all("LastError.Message" not in text for root in DOCUMENTS.values() for text in texts(root))


def test_sent_messages_are_read_without_consuming_them() -> None:
    """A body that was consumed reaches the model, or the caller, empty."""
    for name, root in DOCUMENTS.items():
        for text in texts(root):
            assert text.count(".Body.As<") == text.count("(preserveContent: true)"), name


def test_operations_cover_the_paths_and_catch_the_rest() -> None:
    """Every path that tk-route knows, each under an id of its own, and `/*` for all methods."""
    api = yaml.safe_load((POLICIES / "openai-api.yaml").read_text())
    ids = [operation["operationId"] for item in api["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids))
    assert set(api["paths"]["/*"]) == {"get", "post", "put", "patch", "delete", "head", "options"}
    served = {path: set(item) for path, item in api["paths"].items() if path != "/*"}
    calls = ("chat/completions", "responses", "embeddings")
    paths = [f"{style}/{call}" for style in ("/v1", "/deployments/{deployment-id}") for call in calls]
    posted, fetched = [*paths, "/responses"], ["/v1/models", "/models"]
    assert served == {path: {"post"} for path in posted} | {path: {"get"} for path in fetched}


def test_files_say_what_they_are_for() -> None:
    """Each begins with a comment: whoever opens one in the portal sees no README."""
    assert all(path.read_text().startswith("<!-- ") for path in FILES)
