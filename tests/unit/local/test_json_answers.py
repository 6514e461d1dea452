"""The simulated model's JSON: it fits the schema that was asked for, as structured outputs of a real model do."""

import json

import pytest

from local.model.answers import answer_to, chat_prompt, responses_prompt
from local.model.json_answers import asked_schema, example_of

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "kind": {"enum": ["guest", "host"]},
        "nick": {"anyOf": [{"type": "null"}, {"type": "string"}]},
        "friends": {"type": "array", "items": {"$ref": "#/$defs/friend"}},
    },
    "$defs": {"friend": {"type": "object", "properties": {"name": {"type": "string"}, "ok": {"const": True}}}},
}


def test_an_object_has_every_property_in_its_type():
    """References, unions and enums are followed; a union with null takes the value."""
    assert example_of(PERSON) == {
        "name": "budget",
        "age": 1,
        "kind": "guest",
        "nick": "budget",
        "friends": [{"name": "budget", "ok": True}],
    }


def test_a_schema_that_names_itself_ends():
    """A tree of trees would never end; below some depth its branches are empty."""
    tree = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}}
    assert json.dumps(example_of(tree)).count("children") < 12


@pytest.mark.parametrize(
    "asked",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON}}},
        {"text": {"format": {"type": "json_schema", "name": "p", "schema": PERSON}}},
    ],
    ids=["chat", "responses"],
)
def test_both_apis_are_answered_in_the_schema(asked):
    """The text of the answer is JSON that fits, however many words were wanted; its words are its tokens."""
    read = chat_prompt if "response_format" in asked else responses_prompt
    body = {"messages": [{"role": "user", "content": "Who?"}], "input": "Who?", **asked}
    answer = answer_to("gpt-4o", read(body), 500, seen_before=False)
    assert json.loads(answer.text) == example_of(PERSON)
    assert answer.completion_tokens == len(answer.text.split(" "))


def test_plain_text_is_no_schema():
    """Only what asks for JSON gets it."""
    assert asked_schema({"response_format": {"type": "text"}}) is None
    assert asked_schema({"text": {"verbosity": "low"}}) is None
    assert asked_schema({}) is None


def test_a_called_tool_gets_arguments_that_fit():
    """A tool with parameters of its own is not called with a query that it does not know."""
    tool = {"type": "function", "function": {"name": "greet", "parameters": PERSON}}
    body = {"messages": [{"role": "user", "content": "greet"}], "tools": [tool]}
    answer = answer_to("gpt-4o", chat_prompt(body), 20, seen_before=False)
    assert json.loads(answer.tool_arguments) == example_of(PERSON)
